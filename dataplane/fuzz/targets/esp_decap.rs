//! A whole gateway fed with anything: raw frames at either port, and ESP packets whose text is anything but whose ICV is
//! right, in tunnel and in transport mode, bare and in UDP. After each packet every frame is where it should be and every
//! packet is accounted for (the walk's `turn` checks the books).
//!
//! Input: one octet that chooses the way in, then the frame or the text.
#![no_main]

#[path = "../../tests/walk/mod.rs"]
mod walk;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use southbound::{Encryption, Mode, Transform};
use walk::forge;
use walk::gateway::{LAN, WAN};
use walk::packets::{Ip, udp};
use walk::pair::Pair;

/// Text of a length that every transform of the walks takes.
const TEXT_ALIGN_BYTES: usize = 4;
const MAX_BYTES: usize = 3000;

struct Gateways {
    tunnel: Pair,
    transport: Pair,
    sequence: u64,
}

thread_local! {
    static GATEWAYS: RefCell<Gateways> = RefCell::new({
        let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
        Gateways {
            tunnel: Pair::new(gcm, Mode::Tunnel, false, false, true),
            transport: Pair::new(gcm, Mode::Transport, false, true, true),
            sequence: 0,
        }
    });
}

fuzz_target!(|data: &[u8]| {
    let Some((&way, rest)) = data.split_first() else {
        return;
    };
    let rest = &rest[..rest.len().min(MAX_BYTES)];
    GATEWAYS.with_borrow_mut(|gateways| {
        gateways.sequence += 1;
        let text = &rest[..rest.len() / TEXT_ALIGN_BYTES * TEXT_ALIGN_BYTES];
        match way % 4 {
            0 if !rest.is_empty() => gateways.tunnel.two.deliver_frame(WAN, rest),
            1 if !rest.is_empty() => gateways.tunnel.two.deliver_frame(LAN, rest),
            2 if !text.is_empty() => {
                let packet = forge::packet(&gateways.tunnel.forth, gateways.sequence, text);
                gateways.tunnel.two.deliver(WAN, &packet);
            }
            3 if !text.is_empty() => {
                let mut carrier = Ip::new("192.0.2.1", "192.0.2.2", 17, vec![]);
                let esp = forge::esp(&gateways.transport.forth, gateways.sequence, text);
                carrier.payload = udp(&carrier, 4500, 4500, &esp);
                gateways.transport.two.deliver(WAN, &carrier.bytes());
            }
            _ => return,
        }
        for pair in [&mut gateways.tunnel, &mut gateways.transport] {
            pair.two.turn();
            pair.two.collect(LAN);
            pair.two.collect(WAN);
            pair.two.host_got();
            pair.two.events();
        }
    });
});
