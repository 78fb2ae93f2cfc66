//! The engine of processors with VAES and VPCLMULQDQ but without AVX-512: AES-GCM in vectors of two blocks,
//! a packet at a time. Other transforms are the libraries'.
//!
//! Unsafe code here is what it is in [`avx512`](crate::avx512): loads and stores through pointers made of the
//! jobs' slices, and calls of functions compiled for features that
//! [`Engine::is_usable`](crate::Engine::is_usable) has found.
#![allow(unsafe_code)]

mod gcm;
pub(crate) mod gcm_batch;

/// Whether this processor has everything the engine uses.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}
