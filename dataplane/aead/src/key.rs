//! Expanded keys.
//!
//! A key is one object of [`SealKey::BYTES`] bytes, aligned to cache lines, whatever the transform: round
//! keys, powers of the hash key and HMAC states lie in it without indirection, so that a packet of a cold
//! SA costs few cache misses and a million SAs fit in memory. On processors without the vector engines the
//! material is the library's and lies behind a pointer.

use core::fmt;

use crate::algorithm::{Algorithm, Transform};
use crate::engine::Engine;
use crate::material::Material;

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key material is not as long as [`Algorithm::key_bytes`].
    #[error("key material is {got_bytes} bytes, the transform needs {needed_bytes}")]
    Length {
        /// What the transform needs.
        needed_bytes: usize,
        /// What was given.
        got_bytes: usize,
    },
    /// The system gave no randomness for the CBC IV mask.
    #[error("no randomness for the IV mask")]
    Randomness,
    /// The chosen engine needs processor features this machine does not have.
    #[error("the engine is not usable on this processor")]
    Engine,
}

macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident, $direction:ident) => {
        $(#[$doc])*
        ///
        /// The material is zeroed when the key is dropped, and never printed.
        #[repr(C, align(64))]
        pub struct $name {
            pub(crate) material: Material,
        }

        impl $name {
            /// The size of a key in memory.
            pub const BYTES: usize = size_of::<Self>();

            /// Expands key material in the order of RFC 7296 §2.17 (cipher key, salt, integrity key) for
            /// the best engine of this machine.
            ///
            /// # Errors
            /// [`KeyError`] where the length is wrong or the system has no randomness.
            pub fn new(transform: Transform, keymat: &[u8]) -> Result<Self, KeyError> {
                Self::with_engine(Engine::detected(), transform, keymat)
            }

            /// The same for a chosen engine, for tests and benchmarks.
            ///
            /// # Errors
            /// [`KeyError`], also where the processor cannot run `engine`.
            pub fn with_engine(engine: Engine, transform: Transform, keymat: &[u8]) -> Result<Self, KeyError> {
                let needed_bytes = transform.algorithm.key_bytes();
                if keymat.len() != needed_bytes {
                    return Err(KeyError::Length { needed_bytes, got_bytes: keymat.len() });
                }
                if !engine.is_usable() {
                    return Err(KeyError::Engine);
                }
                Material::expand(engine, transform, keymat, Direction::$direction).map(|material| Self { material })
            }

            /// The transform this key is for.
            #[must_use]
            pub fn transform(&self) -> Transform {
                self.material.transform()
            }

            /// The algorithm this key is for.
            #[must_use]
            pub fn algorithm(&self) -> Algorithm {
                self.material.transform().algorithm
            }

            /// Bytes of memory this key takes, boxed library contexts included as far as they are known.
            #[must_use]
            pub fn memory_bytes(&self) -> usize {
                Self::BYTES + self.material.boxed_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("transform", &self.transform()).finish_non_exhaustive()
            }
        }
    };
}

/// Which way a key is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Seal,
    Open,
}

key_type! {
    /// An expanded key that protects packets.
    SealKey, Seal
}
key_type! {
    /// An expanded key that verifies and decrypts packets.
    OpenKey, Open
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(SealKey::BYTES == 384 && OpenKey::BYTES == 384);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{AesKey, Hmac};

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        for algorithm in Algorithm::ALL {
            let needed_bytes = algorithm.key_bytes();
            let transform = Transform::new(algorithm, true);
            for got_bytes in [0, needed_bytes - 1, needed_bytes + 1] {
                let error = SealKey::new(transform, &vec![1; got_bytes]).unwrap_err();
                assert_eq!(
                    error,
                    KeyError::Length {
                        needed_bytes,
                        got_bytes
                    }
                );
            }
        }
    }

    #[test]
    fn debug_names_the_transform_and_nothing_secret() {
        let transform = Transform::new(Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha1_96), false);
        let key = OpenKey::new(transform, &[0xa7; 36]).unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("OpenKey {{ transform: {transform:?}, .. }}")
        );
    }

    #[test]
    fn keys_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<SealKey>();
        crosses::<OpenKey>();
    }
}
