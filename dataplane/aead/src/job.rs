//! What a caller hands to the engine: a key, a packet, a sequence number; and what it gets back.

use crate::key::{OpenKey, SealKey};
use crate::material::Material;

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Not yet worked on.
    #[default]
    Pending,
    /// Sealed, or verified and decrypted.
    Done,
    /// The ICV did not match. The packet's text was wiped or is still ciphertext: no plaintext is there.
    AuthenticationFailed,
    /// The length is impossible for the transform. The packet was not touched.
    Malformed,
}

/// A packet to protect.
///
/// `packet` reaches from the ESP header to the end of the room for the ICV:
///
/// ```text
///  | SPI 4 | sequence 4 | IV | payload, padding, pad length, next header | ICV room |
/// ```
///
/// The caller has written SPI, the low half of the sequence number and the text, padded to the
/// algorithm's alignment; the engine writes the IV, encrypts the text and writes the ICV.
pub struct SealJob<'a> {
    /// The expanded key.
    pub key: &'a SealKey,
    /// ESP header to end of ICV room.
    pub packet: &'a mut [u8],
    /// The packet's 64-bit sequence number, never used twice with this key: AEAD and counter-mode IVs
    /// are made of it.
    pub sequence: u64,
    /// The result.
    pub verdict: Verdict,
}

impl<'a> SealJob<'a> {
    /// A job that waits.
    #[must_use]
    pub const fn new(key: &'a SealKey, packet: &'a mut [u8], sequence: u64) -> Self {
        Self {
            key,
            packet,
            sequence,
            verdict: Verdict::Pending,
        }
    }
}

/// A packet to verify and decrypt in place; its layout is that of [`SealJob`].
pub struct OpenJob<'a> {
    /// The expanded key.
    pub key: &'a OpenKey,
    /// ESP header to end of ICV.
    pub packet: &'a mut [u8],
    /// The packet's 64-bit sequence number as the receiver infers it (RFC 4303 appendix A): the high half
    /// is authenticated with extended sequence numbers, the low half is taken from the packet.
    pub sequence: u64,
    /// The result.
    pub verdict: Verdict,
}

impl<'a> OpenJob<'a> {
    /// A job that waits.
    #[must_use]
    pub const fn new(key: &'a OpenKey, packet: &'a mut [u8], sequence: u64) -> Self {
        Self {
            key,
            packet,
            sequence,
            verdict: Verdict::Pending,
        }
    }
}

/// What the engines need of either kind of job.
pub(crate) trait Job<'a> {
    /// Whether packets are protected or opened.
    const SEAL: bool;
    fn material(&self) -> &'a Material;
    fn packet(&mut self) -> &mut [u8];
    fn packet_bytes(&self) -> usize;
    fn sequence(&self) -> u64;
    fn verdict(&self) -> Verdict;
    fn set_verdict(&mut self, verdict: Verdict);
}

macro_rules! job {
    ($name:ident, $seal:literal) => {
        impl<'a> Job<'a> for $name<'a> {
            const SEAL: bool = $seal;

            #[inline]
            fn material(&self) -> &'a Material {
                &self.key.material
            }

            #[inline]
            fn packet(&mut self) -> &mut [u8] {
                self.packet
            }

            #[inline]
            fn packet_bytes(&self) -> usize {
                self.packet.len()
            }

            #[inline]
            fn sequence(&self) -> u64 {
                self.sequence
            }

            #[inline]
            fn verdict(&self) -> Verdict {
                self.verdict
            }

            #[inline]
            fn set_verdict(&mut self, verdict: Verdict) {
                self.verdict = verdict;
            }
        }
    };
}
job!(SealJob, true);
job!(OpenJob, false);
