//! What an expanded key holds, by engine.

use crate::algorithm::Transform;
use crate::engine::Engine;
use crate::key::{Direction, KeyError};
use crate::portable::PortableKey;

/// Expanded key material. The vector engines' material lies inline on purpose: a packet of a cold SA then
/// costs no dependent cache miss.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Material {
    /// A library's contexts.
    Portable(Box<PortableKey>),
    /// Room for the vector engines.
    #[allow(dead_code)]
    Reserved([u128; 23]),
}

impl Material {
    pub(crate) fn expand(
        engine: Engine,
        transform: Transform,
        keymat: &[u8],
        direction: Direction,
    ) -> Result<Self, KeyError> {
        match engine {
            Engine::Portable => {
                PortableKey::expand(transform, keymat, direction).map(|key| Self::Portable(Box::new(key)))
            }
        }
    }

    pub(crate) fn transform(&self) -> Transform {
        match self {
            Self::Portable(key) => key.transform,
            Self::Reserved(_) => unreachable!(),
        }
    }

    pub(crate) fn boxed_bytes(&self) -> usize {
        match self {
            Self::Portable(_) => size_of::<PortableKey>(),
            Self::Reserved(_) => 0,
        }
    }
}
