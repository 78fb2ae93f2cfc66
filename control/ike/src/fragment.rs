//! Protected messages on the wire: one SK payload, or several SKF payloads and their reassembly
//! (RFC 7296 section 3.14, RFC 7383).

use std::collections::BTreeMap;

use crate::crypto::cipher::Protector;
use crate::crypto::random::Random;
use crate::error::{Error, Result};
use crate::message::{HEADER_BYTES, Header, set_length};
use crate::payload::{Payload, begin_payload, emit_chain, end_payload, number};
use crate::window::Datagrams;

/// A reassembled message never has more bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Nor more fragments.
pub(crate) const MAX_FRAGMENTS: u16 = 128;

/// Protects payloads under a header: one datagram, or fragments where the peer can and the limit asks.
pub(crate) fn protect(
    protector: &mut Protector,
    header: &Header,
    payloads: &[Payload],
    fragment_limit_bytes: Option<usize>,
    random: &mut dyn Random,
) -> Result<Datagrams> {
    let mut inner = Vec::new();
    let first = emit_chain(payloads, &mut inner);
    let whole = HEADER_BYTES + 4 + protector.sealed_bytes(inner.len());
    let Some(limit) = fragment_limit_bytes.filter(|limit| whole > *limit) else {
        if whole > usize::from(u16::MAX) {
            return Err(Error::Crypto("message is too long"));
        }
        return Ok(vec![seal_one(protector, header, first, None, &inner, random)?]);
    };
    // The largest part whose sealed form fits; 36 bytes are the headers of message and SKF payload.
    let room = limit.saturating_sub(HEADER_BYTES + 8).max(64);
    let mut part_bytes = room;
    while part_bytes > 16 && protector.sealed_bytes(part_bytes) > room {
        part_bytes -= 1;
    }
    let parts: Vec<_> = inner.chunks(part_bytes).collect();
    let total = u16::try_from(parts.len())
        .ok()
        .filter(|total| *total <= MAX_FRAGMENTS);
    let total = total.ok_or(Error::Crypto("message is too long"))?;
    let mut out = Vec::with_capacity(parts.len());
    for (index, part) in (1..=total).zip(parts) {
        // RFC 7383 section 2.5: only the first fragment names the first inner payload.
        let next = if index == 1 { first } else { number::NONE };
        out.push(seal_one(
            protector,
            header,
            next,
            Some((index, total)),
            part,
            random,
        )?);
    }
    Ok(out)
}

pub(crate) fn seal_one(
    protector: &mut Protector,
    header: &Header,
    first_inner: u8,
    fragment: Option<(u16, u16)>,
    plaintext: &[u8],
    random: &mut dyn Random,
) -> Result<Vec<u8>> {
    let next_payload = if fragment.is_some() {
        number::SKF
    } else {
        number::SK
    };
    let mut message = Vec::with_capacity(HEADER_BYTES + 64 + plaintext.len());
    Header {
        next_payload,
        ..*header
    }
    .emit(&mut message);
    let length_at = begin_payload(first_inner, &mut message);
    if let Some((index, total)) = fragment {
        message.extend_from_slice(&index.to_be_bytes());
        message.extend_from_slice(&total.to_be_bytes());
    }
    // Lengths are authenticated, so they are set for the sealed message before it is sealed.
    let head = message.len();
    message.resize(head + protector.sealed_bytes(plaintext.len()), 0);
    end_payload(length_at, &mut message);
    let length = message.len();
    set_length(&mut message, length);
    message.truncate(head);
    protector.seal(&mut message, plaintext, random)?;
    Ok(message)
}

/// The octets of an IKE_INTERMEDIATE message that AUTH covers: the header and the SK header as if the payloads inside
/// were in clear, then those payloads (RFC 9242 section 3.3.2).
pub(crate) fn intermediate_octets(header: &Header, first_inner: u8, inner: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(HEADER_BYTES + 4 + inner.len());
    Header {
        next_payload: number::SK,
        ..*header
    }
    .emit(&mut octets);
    let length_at = begin_payload(first_inner, &mut octets);
    octets.extend_from_slice(inner);
    end_payload(length_at, &mut octets);
    let length = octets.len();
    set_length(&mut octets, length);
    octets
}

/// The fragments of one message, all of them authenticated.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    message_id: u32,
    total: u16,
    first_inner: u8,
    parts: BTreeMap<u16, Vec<u8>>,
    bytes: usize,
}

impl Reassembly {
    /// Bytes held, for the endpoint's budget.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets an unfinished message.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds a fragment; yields the first payload type and the payloads once all are there.
    ///
    /// Another message ID, or a larger total (the sender chose smaller fragments), starts anew; a smaller total and
    /// duplicates are ignored (RFC 7383 section 2.6).
    pub(crate) fn add(
        &mut self,
        message_id: u32,
        (index, total): (u16, u16),
        first_inner: u8,
        part: Vec<u8>,
        budget_bytes: usize,
    ) -> Result<Option<(u8, Vec<u8>)>> {
        if total > MAX_FRAGMENTS {
            return Err(Error::Malformed("total fragments"));
        }
        if message_id != self.message_id || total > self.total {
            self.clear();
            self.message_id = message_id;
            self.total = total;
        } else if total < self.total || self.parts.contains_key(&index) {
            return Ok(None);
        }
        let held = self
            .bytes
            .checked_add(part.len())
            .filter(|held| *held <= MAX_MESSAGE_BYTES);
        let Some(held) = held.filter(|_| part.len() <= budget_bytes) else {
            self.clear();
            return Err(Error::Malformed("fragments are too long"));
        };
        self.bytes = held;
        if index == 1 {
            self.first_inner = first_inner;
        }
        self.parts.insert(index, part);
        if self.parts.len() < usize::from(self.total) {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some((
            whole.first_inner,
            whole.parts.into_values().collect::<Vec<_>>().concat(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::cipher::IkeCipher;
    use crate::crypto::random::SystemRandom;
    use crate::message::{ExchangeType, parse_message};
    use southbound::KeyMaterial;

    fn header() -> Header {
        Header {
            initiator_spi: 1,
            responder_spi: 2,
            next_payload: 0,
            exchange: ExchangeType::IKE_AUTH,
            from_initiator: true,
            is_response: false,
            message_id: 1,
        }
    }

    #[test]
    fn fragments_reassemble_in_any_order() {
        let key = KeyMaterial::new(vec![3; 20]);
        let mut protector =
            Protector::new(IkeCipher::AesGcm16(128), None, &key, &KeyMaterial::new(vec![])).unwrap();
        let payloads = [Payload::VendorId((0..=255).cycle().take(3000).collect())];
        let sent = protect(
            &mut protector,
            &header(),
            &payloads,
            Some(500),
            &mut SystemRandom::new(),
        )
        .unwrap();
        assert!(sent.len() > 6 && sent.iter().all(|datagram| datagram.len() <= 500));
        let mut reassembly = Reassembly::default();
        let mut whole = None;
        for datagram in sent.iter().rev().chain(sent.iter().rev()) {
            let (header, chain) = parse_message(datagram).unwrap();
            let part = chain.encrypted.unwrap();
            let plain = protector
                .open(datagram, HEADER_BYTES + part.body_offset_bytes)
                .unwrap();
            let done = reassembly.add(
                header.message_id,
                part.fragment.unwrap(),
                part.first_inner,
                plain,
                9999,
            );
            whole = whole.or(done.unwrap());
            if whole.is_some() {
                break;
            }
        }
        let (first, inner) = whole.unwrap();
        assert_eq!(
            crate::payload::parse_chain(first, &inner).unwrap().payloads,
            payloads
        );
    }

    #[test]
    fn fault_13_totals_may_only_grow() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(1, (1, 3), 35, vec![1], 99), Ok(None));
        assert_eq!(
            reassembly.add(1, (2, 2), 35, vec![2], 99),
            Ok(None),
            "a smaller total is ignored"
        );
        assert_eq!(reassembly.add(1, (1, 2), 35, vec![2], 99), Ok(None));
        assert_eq!(reassembly.add(1, (2, 3), 0, vec![2], 99), Ok(None));
        assert_eq!(
            reassembly.add(1, (3, 3), 0, vec![3], 99),
            Ok(Some((35, vec![1, 2, 3])))
        );
        assert_eq!(reassembly.held_bytes(), 0);
    }

    #[test]
    fn fault_14_and_16_sums_and_budgets() {
        let mut reassembly = Reassembly::default();
        assert!(reassembly.add(1, (1, MAX_FRAGMENTS + 1), 0, vec![], 99).is_err());
        for index in 1..=2 {
            assert!(reassembly.add(1, (index, 5), 0, vec![0; 30_000], 1 << 20).is_ok());
        }
        assert!(reassembly.add(1, (3, 5), 0, vec![0; 30_000], 1 << 20).is_err());
        assert_eq!(reassembly.held_bytes(), 0);
        assert!(
            reassembly.add(1, (1, 2), 0, vec![0; 10], 9).is_err(),
            "the endpoint's budget"
        );
    }

    #[test]
    fn fault_15_a_new_message_clears_the_old() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(1, (1, 2), 35, vec![9; 100], 999), Ok(None));
        assert_eq!(reassembly.add(2, (2, 2), 0, vec![2], 999), Ok(None));
        assert_eq!(reassembly.held_bytes(), 1);
        assert_eq!(
            reassembly.add(2, (1, 2), 40, vec![1], 999),
            Ok(Some((40, vec![1, 2])))
        );
    }
}
