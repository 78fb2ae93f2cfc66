//! The tables through the contract: SAs and policies, their rules, their ends.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod table_rig;

use table_rig::*;

#[test]
fn fault_51_installing_the_same_key_again_goes_on_where_it_was() {
    let mut writer = with_tunnel();
    let (outbound, inbound) = (
        sa(SaDirection::Outbound, 0x2000, 1),
        sa(SaDirection::Inbound, 0x1000, 2),
    );
    let select = Update::SelectOutbound {
        tunnel: TunnelId(1),
        sa: outbound.reference(),
    };
    apply(
        &mut writer,
        [
            Update::InstallSa(outbound.clone()),
            Update::InstallSa(inbound.clone()),
            select.clone(),
        ],
    );
    let index = writer.tunnel_index(TunnelId(1)).unwrap();
    see(&writer, |view| {
        let sa = view.outbound(view.tunnel(index).unwrap()).unwrap();
        assert_eq!(sa.reserve(64).last(), Some(64));
        assert_eq!(sa.account(64, 6400, 0, view.guard()), None);
        view.inbound(0x1000).unwrap().replay().commit(9).unwrap();
    });
    // A restarted control process says it all again, and the peer is now behind a NAT.
    let mut moved = outbound.clone();
    moved.udp = Some(UdpEncapsulation {
        local_port: 4500,
        remote_port: 1024,
        checksum: false,
    });
    apply(
        &mut writer,
        [Update::InstallSa(moved), Update::InstallSa(inbound), select],
    );
    see(&writer, |view| {
        let sa = view.outbound(view.tunnel(index).unwrap()).unwrap();
        assert_eq!(sa.reserve(1).next(), Some(65), "not 1: that nonce was used");
        assert_eq!(sa.usage().packets(), 64);
        let template = &sa.terms(view.guard()).template;
        assert_eq!((template.ip_bytes(), template.udp_bytes()), (20, 8));
        assert_eq!(template.bytes()[20..24], [0x11, 0x94, 0x04, 0x00]);
        assert_eq!(template.bytes()[28..], [0, 0, 0x20, 0]);
        assert!(view.inbound(0x1000).unwrap().replay().check(9).is_err());
    });
}

#[test]
fn an_sa_whose_peer_moved_goes_on_with_its_numbers() {
    let mut writer = with_tunnel();
    let outbound = sa(SaDirection::Outbound, 0x2000, 1);
    let index = writer.tunnel_index(TunnelId(1)).unwrap();
    let select = |spec: &SaSpec| Update::SelectOutbound {
        tunnel: TunnelId(1),
        sa: spec.reference(),
    };
    apply(
        &mut writer,
        [Update::InstallSa(outbound.clone()), select(&outbound)],
    );
    see(&writer, |view| {
        let sa = view.outbound(view.tunnel(index).unwrap()).unwrap();
        assert_eq!(sa.reserve(64).last(), Some(64));
    });
    let moved = SaSpec {
        remote: address("198.51.100.77"),
        ..outbound.clone()
    };
    apply(&mut writer, [Update::InstallSa(moved.clone())]);
    see(&writer, |view| {
        let sa = view.outbound(view.tunnel(index).unwrap()).unwrap();
        assert_eq!(
            sa.reserve(1).next(),
            Some(65),
            "still chosen, and not from 1 again"
        );
    });
    apply(
        &mut writer,
        [select(&moved), Update::RemoveSa(outbound.reference())],
    );
    assert_eq!(writer.sa_status().len(), 1);
    see(&writer, |view| {
        assert!(view.outbound(view.tunnel(index).unwrap()).is_some());
    });
}

#[test]
fn an_sa_that_is_kept_survives_the_sweep() {
    let [kept, gone] = [0x1000, 0x1001].map(|spi| sa(SaDirection::Inbound, spi, spi as u8));
    let mut writer = with_tunnel();
    apply(
        &mut writer,
        [Update::InstallSa(kept.clone()), Update::InstallSa(gone.clone())],
    );
    writer
        .apply(2, Update::PutTunnel(tunnel(1, "198.51.100.1")))
        .unwrap();
    writer.apply(2, Update::KeepSa(kept.reference())).unwrap();
    assert_eq!(
        writer.apply(2, Update::KeepSa(sa(SaDirection::Inbound, 0x1002, 9).reference())),
        Err(Rejection::UnknownSa(
            sa(SaDirection::Inbound, 0x1002, 9).reference()
        ))
    );
    writer.sweep(2);
    see(&writer, |view| {
        assert!(view.inbound(0x1000).is_some());
        assert!(view.inbound(0x1001).is_none());
    });
}

#[test]
fn fault_51_a_key_that_was_used_never_starts_again() {
    let mut writer = with_tunnel();
    let first = sa(SaDirection::Outbound, 0x2000, 1);
    apply(
        &mut writer,
        [
            Update::InstallSa(first.clone()),
            Update::RemoveSa(first.reference()),
        ],
    );
    assert!(matches!(
        writer.apply(1, Update::InstallSa(first.clone())),
        Err(Rejection::Inconsistent(_))
    ));
    let elsewhere = SaSpec { spi: 0x3000, ..first };
    assert!(matches!(
        writer.apply(1, Update::InstallSa(elsewhere)),
        Err(Rejection::Inconsistent(_))
    ));
    // Nor while the other lives.
    apply(
        &mut writer,
        [Update::InstallSa(sa(SaDirection::Outbound, 0x2001, 2))],
    );
    assert!(
        writer
            .apply(1, Update::InstallSa(sa(SaDirection::Outbound, 0x2002, 2)))
            .is_err()
    );
    // The other way it is another key's business, and so is CBC, whose IVs are not counters.
    apply(
        &mut writer,
        [Update::InstallSa(sa(SaDirection::Inbound, 0x1000, 2))],
    );
    let mut cbc = sa(SaDirection::Outbound, 0x2003, 2);
    cbc.transform = "aes128-sha256".parse().unwrap();
    cbc.key = KeyMaterial::new(vec![3; 48]);
    apply(
        &mut writer,
        [
            Update::InstallSa(cbc.clone()),
            Update::RemoveSa(cbc.reference()),
            Update::InstallSa(cbc),
        ],
    );
}

#[test]
fn fault_79_a_refused_sa_leaves_no_trace() {
    let mut writer = with_tunnel();
    let good = sa(SaDirection::Inbound, 0x1000, 1);
    apply(&mut writer, [Update::InstallSa(good.clone())]);
    let refused = [
        (
            SaSpec {
                spi: 255,
                ..good.clone()
            },
            Rejection::ReservedSpi(255),
        ),
        (
            SaSpec {
                key: KeyMaterial::new(vec![9; 20]),
                ..good.clone()
            },
            Rejection::SpiInUse(good.reference()),
        ),
        (
            SaSpec {
                spi: 0x1001,
                key: KeyMaterial::new(vec![9; 21]),
                ..good.clone()
            },
            Rejection::KeyLength {
                given_bytes: 21,
                expected_bytes: 20,
            },
        ),
        (
            SaSpec {
                spi: 0x1002,
                tunnel: TunnelId(5),
                ..good.clone()
            },
            Rejection::UnknownTunnel(TunnelId(5)),
        ),
    ];
    for (spec, rejection) in refused {
        assert_eq!(writer.apply(1, Update::InstallSa(spec)), Err(rejection));
    }
    let mixed = SaSpec {
        spi: 0x1003,
        remote: address("2001:db8::2"),
        ..good.clone()
    };
    assert!(matches!(
        writer.apply(1, Update::InstallSa(mixed)),
        Err(Rejection::Inconsistent(_))
    ));
    see(&writer, |view| {
        assert!(view.inbound(0x1000).is_some());
        for spi in [255, 0x1001, 0x1002, 0x1003] {
            assert!(view.inbound(spi).is_none(), "{spi:#x}");
        }
    });
    assert_eq!(writer.sa_status().len(), 1);
    assert_eq!(
        writer.apply(
            1,
            Update::SelectOutbound {
                tunnel: TunnelId(1),
                sa: good.reference(),
            }
        ),
        Err(Rejection::UnknownSa(good.reference())),
        "an inbound SA"
    );
}

#[test]
fn fault_52_the_selected_sa_goes_and_the_tunnel_has_none() {
    let mut writer = with_tunnel();
    let outbound = sa(SaDirection::Outbound, 0x2000, 1);
    let index = writer.tunnel_index(TunnelId(1)).unwrap();
    apply(
        &mut writer,
        [
            Update::InstallSa(outbound.clone()),
            Update::SelectOutbound {
                tunnel: TunnelId(1),
                sa: outbound.reference(),
            },
        ],
    );
    let mut reader = writer.tables().reader();
    let view = reader.pin();
    let held = view.outbound(view.tunnel(index).unwrap()).unwrap();
    apply(&mut writer, [Update::RemoveSa(outbound.reference())]);
    writer.settle();
    // This batch still has it, the next finds none.
    assert_eq!(held.spi(), 0x2000);
    assert_eq!(held.reserve(1).next(), Some(1));
    let view = reader.pin();
    let tunnel = view.tunnel(index).unwrap();
    assert!(view.outbound(tunnel).is_none());
    assert!(tunnel.should_acquire(1000), "asked for at once");
    assert!(!tunnel.should_acquire(1001), "and then not with every packet");
    assert!(tunnel.should_acquire(60_000));
}

#[test]
fn fault_77_time_ends_an_sa_without_a_control_process() {
    let mut writer = with_tunnel();
    let limit = |seconds| LifetimeLimit {
        seconds: Some(seconds),
        ..LifetimeLimit::default()
    };
    let mut spec = sa(SaDirection::Inbound, 0x1000, 1);
    spec.lifetime = Lifetime {
        soft: limit(50),
        hard: limit(60),
    };
    let mut events = Vec::new();
    writer.tick(100, &mut events);
    apply(&mut writer, [Update::InstallSa(spec.clone())]);
    writer.tick(149, &mut events);
    assert_eq!(events, []);
    let reached = |kind| Event::LifetimeReached {
        sa: spec.reference(),
        kind,
    };
    writer.tick(150, &mut events);
    assert_eq!(events, [reached(LifetimeKind::Soft)]);
    events.clear();
    assert!(see(&writer, |view| !view.inbound(0x1000).unwrap().is_expired()));
    writer.tick(160, &mut events);
    assert_eq!(events, [reached(LifetimeKind::Hard)]);
    assert!(see(&writer, |view| view.inbound(0x1000).unwrap().is_expired()));
}

#[test]
fn the_first_rule_decides_both_ways() {
    let mut writer = with_tunnel();
    apply(
        &mut writer,
        [
            policy(
                1,
                10,
                "10.1.0.0/16",
                "10.2.0.0/16",
                PolicyAction::Protect(TunnelId(1)),
            ),
            policy(2, 5, "10.1.0.0/24", "10.2.0.0/24", PolicyAction::Bypass),
            policy(3, 99, "0.0.0.0/0", "0.0.0.0/0", PolicyAction::Discard),
        ],
    );
    let index = writer.tunnel_index(TunnelId(1)).unwrap();
    see(&writer, |view| {
        let out = |source, destination| view.policy_out(VrfIndex::MAIN, &flow(source, destination));
        let inward = |source, destination| view.policy_in(VrfIndex::MAIN, &flow(source, destination));
        assert_eq!(out("10.1.1.1", "10.2.0.1"), Decision::Protect(index));
        assert_eq!(out("10.1.0.1", "10.2.0.1"), Decision::Bypass);
        assert_eq!(
            out("10.2.0.1", "10.1.0.1"),
            Decision::Discard,
            "not the way round"
        );
        assert_eq!(inward("10.2.0.1", "10.1.1.1"), Decision::Protect(index));
        assert_eq!(inward("10.1.1.1", "10.2.0.1"), Decision::Discard);
        assert_eq!(
            out("2001:db8::1", "2001:db8::2"),
            Decision::NoMatch,
            "no rule of IPv6"
        );
    });
    apply(
        &mut writer,
        [
            Update::RemovePolicy(PolicyId(2)),
            Update::RemovePolicy(PolicyId(3)),
        ],
    );
    see(&writer, |view| {
        assert_eq!(
            view.policy_out(VrfIndex::MAIN, &flow("10.1.0.1", "10.2.0.1")),
            Decision::Protect(index)
        );
        assert_eq!(
            view.policy_out(VrfIndex::MAIN, &flow("10.3.0.1", "10.2.0.1")),
            Decision::NoMatch
        );
    });
    assert_eq!(
        writer.apply(
            1,
            policy(4, 1, "::/0", "::/0", PolicyAction::Protect(TunnelId(9)))
        ),
        Err(Rejection::UnknownTunnel(TunnelId(9)))
    );
    assert_eq!(writer.policy_status().len(), 1);
}
