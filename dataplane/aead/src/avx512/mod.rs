//! Engines of vector instructions: AVX-512 with VAES and VPCLMULQDQ.
//!
//! The only unsafe code of this crate is in this folder: loads and stores through pointers made of the
//! jobs' slices, and calls of functions compiled for the processor features that
//! [`Engine::is_usable`](crate::Engine::is_usable) has found.
#![allow(unsafe_code)]

pub(crate) mod aes;
mod cbc;
pub(crate) mod chacha20;
pub(crate) mod chacha_batch;
mod ctr;
pub(crate) mod etm;
pub(crate) mod etm_batch;
pub(crate) mod gcm;
pub(crate) mod gcm_batch;
mod gcm_row;
pub(crate) mod ghash;
pub(crate) mod gmac;
mod multi_hash;
mod poly1305;
mod sha1;
mod sha256;
mod sha512;
mod transpose;

use std::sync::OnceLock;

/// Whether this processor has everything the engine uses.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("bmi2")
}

/// Whether carry-less multiplications are slow enough beside shuffles that Karatsuba's method pays:
/// on AMD's processors they run at a quarter of the shuffles' rate, on Intel's at the same.
pub(crate) fn prefers_karatsuba() -> bool {
    static PREFERS: OnceLock<bool> = OnceLock::new();
    *PREFERS.get_or_init(|| {
        let vendor = core::arch::x86_64::__cpuid(0);
        // "AuthenticAMD" in the registers' order.
        [vendor.ebx, vendor.edx, vendor.ecx] == [0x6874_7541, 0x6974_6e65, 0x444d_4163]
    })
}
