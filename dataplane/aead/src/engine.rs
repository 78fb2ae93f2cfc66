//! Which implementation runs: detected once, or chosen by tests and benchmarks.

use std::sync::OnceLock;

use crate::self_test::self_test;

/// An implementation of the transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// Libraries, one packet at a time, on any processor.
    Portable,
    /// AES-GCM with AVX2, VAES and VPCLMULQDQ, one packet at a time; libraries for the rest.
    Avx2,
    /// AVX-512 with VAES and VPCLMULQDQ: packets interleaved.
    Avx512,
}

impl Engine {
    /// Every engine, the slowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Whether this processor can run the engine.
    #[must_use]
    pub fn is_usable(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => crate::avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => crate::avx512::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The best usable engine that passes its [`self_test`]. Found once.
    #[must_use]
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Engine> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            Self::ALL
                .into_iter()
                .rev()
                .find(|engine| engine.is_usable() && self_test(*engine).is_ok())
                .unwrap_or(Self::Portable)
        })
    }

    /// The engine's name, as benchmarks and logs show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}
