//! Which implementation runs: detected once, or chosen by tests and benchmarks.

use std::sync::OnceLock;

/// An implementation of the transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// Libraries, one packet at a time, on any processor.
    Portable,
}

impl Engine {
    /// Every engine, the slowest first.
    pub const ALL: [Self; 1] = [Self::Portable];

    /// Whether this processor can run the engine.
    #[must_use]
    pub fn is_usable(self) -> bool {
        match self {
            Self::Portable => true,
        }
    }

    /// The best usable engine.
    #[must_use]
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Engine> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            Self::ALL
                .into_iter()
                .rev()
                .find(|engine| engine.is_usable())
                .unwrap_or(Self::Portable)
        })
    }

    /// The engine's name, as benchmarks and logs show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
        }
    }
}
