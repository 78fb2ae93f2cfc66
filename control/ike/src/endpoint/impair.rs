//! A peer that misbehaves under the protection of its own IKE SA: for tests and fuzzing.

use crate::event::SaId;
use crate::fragment::seal_one;
use crate::message::{ExchangeType, Header};

use super::Endpoint;

/// A message to protect, true or not.
#[derive(Debug, Clone, Copy)]
pub struct Impaired<'a> {
    /// The exchange type.
    pub exchange: u8,
    /// It claims to answer.
    pub is_response: bool,
    /// The message ID; `None` for that of the next request.
    pub message_id: Option<u32>,
    /// Fragment number and total (RFC 7383).
    pub fragment: Option<(u16, u16)>,
    /// Type of the first payload inside.
    pub first: u8,
    /// The payloads inside, in whatever form.
    pub inner: &'a [u8],
}

impl Endpoint {
    /// The datagram that the peer of this IKE SA would take for ours, without the marker of the NAT traversal port.
    /// Nothing about the SA changes, but that the next request follows on.
    pub fn impaired_message(&mut self, sa: SaId, message: Impaired<'_>) -> Option<Vec<u8>> {
        let sa = self.sas.get_mut(&sa)?;
        let message_id = message.message_id.unwrap_or(sa.outbox.next_id());
        let header = Header {
            is_response: message.is_response,
            ..sa.header(ExchangeType(message.exchange), message_id, message.is_response)
        };
        if message.message_id.is_none() && message.fragment.is_none_or(|(index, total)| index == total) {
            sa.outbox.skip();
        }
        let keyed = sa.keyed.as_mut()?;
        let random = self.random.as_mut();
        seal_one(
            &mut keyed.send,
            &header,
            message.first,
            message.fragment,
            message.inner,
            random,
        )
        .ok()
    }
}
