//! The frames of an FPM stream.
//!
//! ```text
//!  0        8        16                32
//!  +--------+--------+-----------------+----------------------------------+
//!  | version|  type  | length in bytes | one or more netlink messages ... |
//!  |   1    | 1 = nl | with these four |                                  |
//!  +--------+--------+-----------------+----------------------------------+
//! ```
//!
//! The length is in network order; what follows is in the host's, since both ends are on one machine.

use thiserror::Error;

/// The header.
const HEADER_BYTES: usize = 4;

const VERSION: u8 = 1;
const TYPE_NETLINK: u8 = 1;

/// Longest frame in bytes: what its length can say.
pub const MAX_FRAME_BYTES: usize = u16::MAX as usize;

/// The stream is no FPM stream, or no longer: where the next frame begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// Another version than 1.
    #[error("FPM version {0}: expected {VERSION}")]
    Version(u8),
    /// A length that does not even cover the header.
    #[error("an FPM frame of {0} bytes: expected at least {HEADER_BYTES}")]
    Length(u16),
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Netlink messages.
    Netlink(&'a [u8]),
    /// Another encoding, which is passed over.
    Other(u8),
}

/// Puts frames together from what a stream brings, in whatever pieces.
///
/// [`Self::feed`] takes a piece; [`Self::next`] gives frames until there is none left, and only then may be
/// fed again, so that no more than a frame and a piece are ever held.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Takes a piece of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// Where the stream cannot be read any further.
    #[expect(clippy::should_implement_trait, reason = "frames borrow from the decoder")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, StreamError> {
        let held = self.buffer.get(self.start..).unwrap_or_default();
        let Some(&[version, kind, high, low]) = held.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(StreamError::Version(version));
        }
        let length = u16::from_be_bytes([high, low]);
        if usize::from(length) < HEADER_BYTES {
            return Err(StreamError::Length(length));
        }
        let Some(body) = held.get(HEADER_BYTES..usize::from(length)) else {
            return Ok(None);
        };
        self.start += usize::from(length);
        Ok(Some(match kind {
            TYPE_NETLINK => Frame::Netlink(body),
            other => Frame::Other(other),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len() + HEADER_BYTES).unwrap().to_be_bytes();
        [&[VERSION, kind], length.as_slice(), body].concat()
    }

    #[test]
    fn other_encodings_are_passed_over() {
        let mut decoder = Decoder::default();
        decoder.feed(&[frame(2, b"protobuf"), frame(1, b"netlink")].concat());
        assert_eq!(decoder.next(), Ok(Some(Frame::Other(2))));
        assert_eq!(decoder.next(), Ok(Some(Frame::Netlink(b"netlink"))));
        assert_eq!(decoder.next(), Ok(None));
    }

    #[test]
    fn a_lying_header_ends_the_stream() {
        let mut decoder = Decoder::default();
        decoder.feed(&[1, 1, 0, 3, 0, 0]);
        assert_eq!(decoder.next(), Err(StreamError::Length(3)));
        let mut decoder = Decoder::default();
        decoder.feed(b"GET / HTTP/1.1\r\n");
        assert_eq!(decoder.next(), Err(StreamError::Version(b'G')));
    }

    proptest! {
        #[test]
        fn frames_are_the_same_in_whatever_pieces_they_come(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in proptest::collection::vec(1usize..200, 1..50),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(1, body)).collect();
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                decoder.feed(piece);
                while let Some(Frame::Netlink(body)) = decoder.next().unwrap() {
                    found.push(body.to_vec());
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, bodies);
            prop_assert!(decoder.buffer.len() <= MAX_FRAME_BYTES + 200);
        }

        #[test]
        fn any_bytes_end_in_a_frame_an_error_or_a_wait(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }
}
