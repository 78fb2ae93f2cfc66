//! Where SPIs, nonces, initialisation vectors, jitter and private keys come from.

use aws_lc_rs::rand::SecureRandom;

/// A source of random bytes, handed in by the driver so that a test replays exactly.
///
/// ECP and ML-KEM keys are drawn from the crypto library's own generator, as are signature nonces; everything that
/// decides what an endpoint does comes from here.
pub trait Random {
    /// Fills the buffer.
    fn fill(&mut self, buffer: &mut [u8]);
}

/// The operating system's generator through the crypto library; the one for production.
#[derive(Debug, Default)]
pub struct SystemRandom(aws_lc_rs::rand::SystemRandom);

impl SystemRandom {
    /// The generator.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Random for SystemRandom {
    fn fill(&mut self, buffer: &mut [u8]) {
        // The generator aborts the process itself where the kernel has no entropy; a failure here means its
        // self-test failed, and going on with zeroes would give keys away.
        #[expect(clippy::expect_used, reason = "no key may be made without randomness")]
        self.0.fill(buffer).expect("the random generator works");
    }
}

/// Draws shaped values from a [`Random`].
pub(crate) trait Draw {
    fn bytes<const N: usize>(&mut self) -> [u8; N];
    /// A value below `bound` (0 for bound 0), with negligible bias.
    fn below(&mut self, bound: u64) -> u64;
}

impl<R: Random + ?Sized> Draw for R {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(u64::from_be_bytes(self.bytes())) * u128::from(bound);
        (wide >> 64) as u64
    }
}
