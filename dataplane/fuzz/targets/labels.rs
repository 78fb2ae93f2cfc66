//! A router with labels, tunnels of labels and two customers, fed with anything: frames, label stacks, customers' packets
//! and labels in tunnels. After each packet every frame is where it should be and every packet is accounted for (the walk's
//! `turn` checks the books), and nothing ever reaches customer B, into whose table no label and no route leads.
//!
//! Input: one octet that chooses the way in, then what comes that way.
#![no_main]

#[path = "../../tests/walk/mod.rs"]
mod walk;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use southbound::{
    ClassMapId, ClassMapSpec, Encapsulation, IlmSpec, LabelOperation, LabelSpaceId, LabelStack, LabelVia,
    Mode, NextHop, Nhlfe, PopClass, PushClass, TtlModel, TunnelId, TunnelSpec, Update,
};
use walk::gateway::Gateway;
use walk::packets::{Ip, udp};
use walk::provider::{
    CUSTOMER_A, CUSTOMER_B, EAST, HERE, VRF_A, WEST, forward, ilm, label, lookup, nhlfe, router,
};
use walk::specs;

const MAX_BYTES: usize = 2000;
/// Between two inputs.
const INTERVAL_NS: u64 = 20_000_000;
const GRE: [Encapsulation; 2] = [
    Encapsulation::Gre {
        key: None,
        checksum: false,
    },
    Encapsulation::Gre {
        key: Some(77),
        checksum: true,
    },
];

/// A tunnel to the neighbour on the western link.
fn tunnel(number: u32, encapsulation: Encapsulation) -> TunnelSpec {
    TunnelSpec {
        id: TunnelId(number),
        name: format!("tunnel-{number}"),
        encapsulation,
        protected: false,
        labels: Some(LabelSpaceId::PLATFORM),
        local: "172.16.2.1".parse().unwrap(),
        remote: "172.16.2.2".parse().unwrap(),
        ..specs::tunnel(Mode::Transport, false)
    }
}

/// Entries and routes of every kind; the seeds name their labels.
fn busy() -> Gateway {
    let mut router = router();
    let map = ClassMapSpec {
        id: ClassMapId(1),
        dscp_to_tc: (0..64).map(|dscp| dscp >> 3).collect(),
        tc_to_dscp: [Some(46); 8],
    };
    router.apply(Update::PutClassMap(map));
    router.apply(forward(100, nhlfe(&[200], EAST)));
    router.apply(forward(101, nhlfe(&[], EAST)));
    router.apply(forward(102, nhlfe(&[300, 301, 302, 303, 304, 305, 306, 307], EAST)));
    router.apply(Update::PutIlm(ilm(103, LabelOperation::Pop)));
    router.apply(Update::PutIlm(ilm(104, LabelOperation::Discard)));
    router.apply(Update::PutIlm(ilm(105, LabelOperation::Host)));
    let entropy = Nhlfe {
        entropy_beneath: Some(1),
        ttl: TtlModel::Pipe(255),
        class: PushClass::Set(3),
        ..nhlfe(&[400, 401], WEST)
    };
    router.apply(Update::PutIlm(ilm(
        106,
        LabelOperation::Forward {
            next_hops: vec![entropy, nhlfe(&[402], EAST)],
            weights: vec![1, 3],
        },
    )));
    router.apply(lookup(500, VRF_A));
    router.apply(Update::PutIlm(IlmSpec {
        ttl: TtlModel::Pipe(255),
        class: PopClass::Map(ClassMapId(1)),
        ..ilm(501, LabelOperation::PopAndLookup(VRF_A))
    }));
    let plain = NextHop::Labelled(Nhlfe {
        class: PushClass::Map(ClassMapId(1)),
        ..nhlfe(&[100, 700], WEST)
    });
    router.route_in(VRF_A, "192.168.102.0/24", vec![plain.clone()]);
    router.route_in(VRF_A, "fd00:102::/64", vec![NextHop::Labelled(entropy), plain]);
    let kinds = GRE.into_iter().chain([Encapsulation::Ip, Encapsulation::Udp]);
    for (number, encapsulation) in (1..).zip(kinds) {
        router.apply(Update::PutTunnel(tunnel(number, encapsulation)));
        let stack = LabelStack::new(&[label(600 + number)]).unwrap();
        let into = Nhlfe::new(stack, LabelVia::Tunnel(TunnelId(number)));
        router.route_in(
            VRF_A,
            &format!("192.168.{}.0/24", 110 + number),
            vec![NextHop::Labelled(into)],
        );
        router.apply(forward(600 + number, into));
    }
    router
}

thread_local! {
    static ROUTER: RefCell<Gateway> = RefCell::new(busy());
}

/// Labels, or what pretends to be, from the far end of the tunnels.
fn carried(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut outer = Ip::new("172.16.2.2", "172.16.2.1", protocol, payload.to_vec());
    if protocol == 17 {
        outer.payload = udp(&outer, 50_000, 6635, payload);
    }
    outer.bytes()
}

fuzz_target!(|data: &[u8]| {
    let Some((&way, rest)) = data.split_first() else {
        return;
    };
    let rest = &rest[..rest.len().min(MAX_BYTES)];
    ROUTER.with_borrow_mut(|router| {
        match way % 8 {
            0 if !rest.is_empty() => router.deliver_frame(WEST, rest),
            1 if !rest.is_empty() => router.deliver_frame(CUSTOMER_A, rest),
            2 => router.deliver_labelled(WEST, rest),
            3 => router.deliver_labelled(EAST, rest),
            4 => router.deliver(WEST, &carried(47, rest)),
            5 => router.deliver(WEST, &carried(137, rest)),
            6 if rest.len() < 1400 => router.deliver(WEST, &carried(17, rest)),
            7 => {
                // A customer's packet of which everything is sound but what the input says.
                let mut destination: std::net::Ipv4Addr = "192.168.102.9".parse().unwrap();
                if let [third, ..] = rest {
                    destination = [192, 168, *third, 9].into();
                }
                let packet = Ip::new(HERE[0], &destination.to_string(), 17, rest.to_vec());
                router.deliver(CUSTOMER_A, &packet.bytes());
            }
            _ => return,
        }
        // What waits for a neighbour or for its fragments gives up in time.
        router.now_ns += INTERVAL_NS;
        router.turn();
        for port in [CUSTOMER_A, WEST, EAST] {
            router.collect_frames(port);
        }
        assert!(router.collect_frames(CUSTOMER_B).is_empty(), "a packet crossed");
        router.host_got();
        router.events();
    });
});
