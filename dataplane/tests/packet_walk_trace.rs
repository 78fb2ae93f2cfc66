//! What a trace tells: each stage's decision, the label stack behind it, and why a packet goes no further.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{NextHop, TraceFilter, TracePoint, TraceRecord, TraceSpec, TraceStep};
use walk::gateway::Gateway;
use walk::packets::Ip;
use walk::provider::{
    CUSTOMER_A, EAST, HERE, THERE, VRF_A, WEST, entries, forward, labelled, lookup, nhlfe, router,
};
use wire::Lse;

fn watch(gateway: &Gateway, filter: TraceFilter) {
    gateway.tracer.arm(Some(TraceSpec {
        filter,
        packets: 10,
        snap_bytes: 128,
    }));
}

/// The one record that there is.
fn only(gateway: &Gateway) -> TraceRecord {
    let record = gateway.tracer.take().expect("a record");
    let more = gateway.tracer.take();
    assert!(more.is_none(), "{more:?}");
    record
}

fn step<'r>(record: &'r TraceRecord, stage: &str) -> &'r TraceStep {
    record
        .steps
        .iter()
        .find(|step| step.stage == stage)
        .unwrap_or_else(|| panic!("no step {stage} in {record:?}"))
}

/// Label and TTL of each entry behind a step.
fn labels(step: &TraceStep) -> Vec<(u32, u8)> {
    step.labels
        .iter()
        .map(|entry| Lse::from_bytes(entry.to_be_bytes()))
        .map(|entry| (entry.label.value(), entry.ttl))
        .collect()
}

fn inbound() -> Vec<u8> {
    Ip::udp(THERE[0], HERE[0], 200).bytes()
}

#[test]
fn a_swap_shows_the_stack_before_and_after() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200, 300], EAST)));
    watch(
        &router,
        TraceFilter {
            label: Some(100),
            ..TraceFilter::default()
        },
    );
    router.deliver_labelled(WEST, &labelled(&entries(&[(16, 64)]), &inbound()));
    router.deliver_labelled(WEST, &labelled(&entries(&[(100, 64), (5000, 33)]), &inbound()));
    router.turn();
    let record = only(&router);
    assert_eq!(labels(step(&record, "receive")), [(100, 64), (5000, 33)]);
    let swapped = step(&record, "mpls_forward");
    assert_eq!(labels(swapped), [(200, 63), (300, 63), (5000, 33)]);
    assert!(matches!(record.exit.unwrap().point, TracePoint::Port(_)));
}

#[test]
fn an_address_beneath_labels_is_found_and_a_pop_leaves_none() {
    let mut router = router();
    router.apply(lookup(500, VRF_A));
    watch(
        &router,
        TraceFilter {
            prefix: Some(format!("{}/32", HERE[0]).parse().unwrap()),
            ..TraceFilter::default()
        },
    );
    router.deliver_labelled(WEST, &labelled(&entries(&[(500, 64)]), &inbound()));
    router.turn();
    let record = only(&router);
    assert_eq!(labels(step(&record, "receive")), [(500, 64)]);
    assert_eq!(labels(step(&record, "mpls_forward")), []);
    assert_eq!(record.reason, None);
}

#[test]
fn a_push_shows_the_new_stack() {
    let mut router = router();
    router.route_in(
        VRF_A,
        "192.168.102.0/24",
        vec![NextHop::Labelled(nhlfe(&[100, 700], EAST))],
    );
    watch(&router, TraceFilter::default());
    router.deliver(CUSTOMER_A, &Ip::udp(HERE[0], THERE[0], 200).bytes());
    router.turn();
    let record = only(&router);
    assert_eq!(labels(step(&record, "receive")), []);
    let pushed: Vec<u32> = labels(step(&record, "label_push"))
        .into_iter()
        .map(|(label, _)| label)
        .collect();
    assert_eq!(pushed, [100, 700]);
}

#[test]
fn a_refused_packet_is_a_drop_of_its_own_beside_the_answer_to_its_sender() {
    let mut router = router();
    let packet = Ip::udp(HERE[0], "10.99.99.99", 200).bytes();
    let filter = TraceFilter {
        prefix: Some("10.99.99.99/32".parse().unwrap()),
        drops_only: true,
        ..TraceFilter::default()
    };
    watch(&router, filter);
    router.deliver(CUSTOMER_A, &packet);
    router.turn();
    let record = only(&router);
    assert_eq!(record.reason.as_deref(), Some("no_route"));
    assert_eq!(step(&record, "ip_forward").next, "no_route");
    assert_eq!(step(&record, "icmp_error").next, "drop");
    assert!(record.exit.is_none());
    assert!(matches!(record.entry.point, TracePoint::Port(_)));
    // Watched without a filter, the error that goes back is the second.
    watch(&router, TraceFilter::default());
    router.deliver(CUSTOMER_A, &packet);
    router.turn();
    let (dropped, error) = (router.tracer.take().unwrap(), router.tracer.take().unwrap());
    assert_eq!(dropped.reason.as_deref(), Some("no_route"));
    assert_eq!(error.entry.point, TracePoint::Gateway);
    assert!(matches!(error.exit.unwrap().point, TracePoint::Port(_)));
}
