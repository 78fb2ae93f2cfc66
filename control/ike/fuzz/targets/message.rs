//! Any bytes as a message, and as the inside of a protected one: no panic; and what was read, written again, reads the
//! same.

#![no_main]

use ike::message::{HEADER_BYTES, emit_message, parse_message};
use ike::payload::eap::EapPacket;
use ike::payload::{Payload, emit_chain, parse_chain};
use libfuzzer_sys::fuzz_target;

/// Whether all that stood in these payloads was kept: unknown attributes and kinds of selectors are not.
fn is_whole(payloads: &[Payload]) -> bool {
    payloads.iter().all(|payload| match payload {
        Payload::Sa(sa) => {
            let mut transforms = sa.proposals.iter().flat_map(|proposal| &proposal.transforms);
            transforms.all(|transform| !transform.unknown_attribute)
        }
        Payload::TsI(ts) | Payload::TsR(ts) => !ts.selectors.is_empty(),
        _ => true,
    })
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok((header, chain)) = parse_message(bytes)
        && chain.encrypted.is_none()
        && is_whole(&chain.payloads)
    {
        let again = emit_message(&header, &chain.payloads);
        let (_, second) = parse_message(&again).expect("what we write we can read");
        assert_eq!(chain.payloads, second.payloads);
    }
    // A length field that lies keeps most inputs from the payloads: they get a true one.
    if bytes.len() >= HEADER_BYTES {
        let mut whole = bytes.to_vec();
        whole[17] = 0x20;
        ike::message::finish_length(&mut whole);
        let _ = parse_message(&whole);
    }
    if let Some((first, inner)) = bytes.split_first()
        && let Ok(chain) = parse_chain(*first, inner)
        && chain.encrypted.is_none()
        && is_whole(&chain.payloads)
    {
        let mut again = Vec::new();
        let first = emit_chain(&chain.payloads, &mut again);
        let second = parse_chain(first, &again).expect("what we write we can read");
        assert_eq!(chain.payloads, second.payloads);
    }
    let _ = EapPacket::from_bytes(bytes);
});
