//! The conversation with the dataplane, message by message, without a socket.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use control::plane::{Desired, Notice, Object, Session, SessionError};
use southbound::{
    ForwardingPlane, IpPrefix, KeyMaterial, Lifetime, LocalAddress, Mode, NextHop, PROTOCOL_VERSION, Query,
    Recorder, Rejection, RouteSpec, SaDirection, SaSpec, SelectorPair, ToControl, ToDataplane, TunnelId,
    Update, VrfId, encode,
};

fn welcome(version: u32) -> ToControl {
    ToControl::Welcome {
        version,
        instance: 1,
        generation: 4,
        workers: 1,
    }
}

fn live() -> (Session, Desired) {
    let (mut session, mut desired) = (Session::new(), Desired::default());
    assert!(matches!(
        session.poll_transmit(&mut desired),
        Some(ToDataplane::Hello { .. })
    ));
    session.handle(welcome(PROTOCOL_VERSION)).unwrap();
    while let Some(message) = session.poll_transmit(&mut desired) {
        let ToDataplane::Ask { sequence, .. } = message else {
            panic!("{message:?}")
        };
        session
            .handle(ToControl::Answer {
                sequence,
                records: vec![],
                last: true,
            })
            .unwrap();
    }
    assert!(session.take_notices().contains(&Notice::Learned(vec![])));
    (session, desired)
}

fn route(number: u16) -> Update {
    let [high, low] = number.to_be_bytes();
    Update::PutRoute(RouteSpec {
        vrf: VrfId::MAIN,
        prefix: IpPrefix::new(IpAddr::from([10, high, low, 0]), 24).unwrap(),
        next_hops: vec![NextHop::Kernel],
        weights: Vec::new(),
    })
}

/// Serves every message with `recorder` until nothing is left to say.
fn serve(session: &mut Session, desired: &mut Desired, recorder: &mut Recorder) {
    while let Some(message) = session.poll_transmit(desired) {
        assert!(encode(&message).is_ok());
        match message {
            ToDataplane::BeginSync { generation } => recorder.begin_sync(generation),
            ToDataplane::Apply {
                sequence,
                generation,
                updates,
            } => {
                let rejections = (0u32..)
                    .zip(updates)
                    .filter_map(|(index, update)| Some((index, recorder.apply(generation, update).err()?)))
                    .collect();
                session
                    .handle(ToControl::Applied { sequence, rejections })
                    .unwrap();
            }
            ToDataplane::EndSync { generation } => {
                let removed = recorder.end_sync(generation);
                session.handle(ToControl::Synced { generation, removed }).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_resynchronisation_leaves_what_is_wanted_and_sweeps_the_rest() {
    let (mut session, mut desired) = live();
    let mut recorder = Recorder::default();
    recorder.apply(4, route(9999)).unwrap();
    for number in 0..3000 {
        desired.put(route(number));
    }
    session.begin_sync(&mut desired);
    assert_eq!(session.generation(), 5);
    serve(&mut session, &mut desired, &mut recorder);
    assert!(session.is_settled(&desired));
    assert_eq!(recorder.installed().count(), 3000);
    assert!(session.take_notices().contains(&Notice::Synced(1)));
}

#[test]
fn no_more_than_the_window_is_in_flight() {
    let (mut session, mut desired) = live();
    for number in 0..10_000 {
        desired.put(route(number));
    }
    session.begin_sync(&mut desired);
    let mut sent = 0;
    while let Some(message) = session.poll_transmit(&mut desired) {
        sent += usize::from(matches!(message, ToDataplane::Apply { .. }));
    }
    assert_eq!(sent, 8);
    assert!(!session.is_settled(&desired));
}

#[test]
fn the_longest_updates_stay_within_a_message_and_longer_ones_are_refused() {
    let (mut session, mut desired) = live();
    let sa = |spi: u32, selectors: usize| {
        let side =
            southbound::Endpoint::any_port("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128".parse().unwrap());
        Update::InstallSa(SaSpec {
            direction: SaDirection::Inbound,
            spi,
            tunnel: TunnelId(u32::MAX),
            mode: Mode::Tunnel,
            local: "2001:db8::1".parse().unwrap(),
            remote: "2001:db8::2".parse().unwrap(),
            udp: None,
            transform: "aes256-sha512".parse().unwrap(),
            key: KeyMaterial::new(vec![255; 96]),
            extended_sequence_numbers: true,
            replay_window: None,
            selectors: vec![
                SelectorPair {
                    local: side,
                    remote: side,
                    protocol: southbound::ProtocolMatch::Only(255),
                };
                selectors
            ],
            lifetime: Lifetime::default(),
            last_sequence: u64::MAX,
        })
    };
    for spi in 256..400 {
        desired.put(sa(spi, 320));
    }
    desired.put(sa(999, 1000));
    session.begin_sync(&mut desired);
    let mut recorder = Recorder::default();
    serve(&mut session, &mut desired, &mut recorder);
    assert_eq!(recorder.installed().count(), 144);
    let refused = session.take_notices();
    assert!(
        refused
            .iter()
            .any(|notice| matches!(notice, Notice::Rejected(Object::Sa(sa), _) if sa.spi == 999))
    );
}

#[test]
fn a_refused_update_is_told_with_its_object() {
    let (mut session, mut desired) = live();
    let mut recorder = Recorder::default();
    recorder.refuse(&route(1), Rejection::Inconsistent("no".into()));
    desired.put(route(0));
    desired.put(route(1));
    session.begin_sync(&mut desired);
    serve(&mut session, &mut desired, &mut recorder);
    let refused: Vec<_> = session
        .take_notices()
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::Rejected(object, _) => Some(object.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(refused, ["route 10.0.1.0/24 in table 0"]);
}

#[test]
fn what_is_said_out_of_turn_ends_the_connection() {
    let mut session = Session::new();
    assert_eq!(session.handle(welcome(99)), Err(SessionError::Version(99)));
    session.handle(welcome(PROTOCOL_VERSION)).unwrap();
    assert!(session.handle(welcome(PROTOCOL_VERSION)).is_err());
    for message in [
        ToControl::Applied {
            sequence: 77,
            rejections: vec![],
        },
        ToControl::Synced {
            generation: 5,
            removed: 0,
        },
        ToControl::Answer {
            sequence: 77,
            records: vec![],
            last: true,
        },
    ] {
        assert!(session.handle(message).is_err());
    }
}

#[test]
fn questions_are_bounded() {
    let (mut session, _) = live();
    for _ in 0..32 {
        assert!(session.ask(Query::Routes).is_some());
    }
    assert_eq!(session.ask(Query::Routes), None);
}

#[test]
fn changes_during_a_resynchronisation_are_told_too() {
    let (mut session, mut desired) = live();
    let mut recorder = Recorder::default();
    desired.put(route(1));
    session.begin_sync(&mut desired);
    // BeginSync, then the first batch is on its way when more changes.
    session.poll_transmit(&mut desired);
    let Some(ToDataplane::Apply {
        sequence,
        generation,
        updates,
    }) = session.poll_transmit(&mut desired)
    else {
        panic!()
    };
    desired.put(Update::PutLocalAddress(LocalAddress {
        vrf: VrfId::MAIN,
        address: "10.0.0.1".parse().unwrap(),
        port: None,
    }));
    desired.remove(Object::Route(VrfId::MAIN, "10.0.1.0/24".parse().unwrap()));
    for update in updates {
        recorder.apply(generation, update).unwrap();
    }
    session
        .handle(ToControl::Applied {
            sequence,
            rejections: vec![],
        })
        .unwrap();
    serve(&mut session, &mut desired, &mut recorder);
    assert!(session.is_settled(&desired));
    assert_eq!(recorder.installed().count(), 1);
}
