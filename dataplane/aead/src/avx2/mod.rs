//! The engine of processors with VAES and VPCLMULQDQ but without AVX-512: AES-GCM in vectors of two blocks,
//! a packet at a time. Other transforms are the libraries'.
//!
//! Unsafe code here is what it is in [`avx512`](crate::avx512): loads and stores through pointers made of the
//! jobs' slices, and calls of functions compiled for features that
//! [`Engine::is_usable`](crate::Engine::is_usable) has found.
#![allow(unsafe_code)]

mod gcm;
pub(crate) mod gcm_batch;

use core::arch::asm;

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

/// Zeroes the vector registers, which hold round keys and texts when a batch is done.
#[target_feature(enable = "avx2")]
pub(crate) fn clear_registers() {
    // SAFETY: changes nothing but the registers it names.
    unsafe {
        asm!(
            "vzeroall",
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            out("xmm4") _,
            out("xmm5") _,
            out("xmm6") _,
            out("xmm7") _,
            out("xmm8") _,
            out("xmm9") _,
            out("xmm10") _,
            out("xmm11") _,
            out("xmm12") _,
            out("xmm13") _,
            out("xmm14") _,
            out("xmm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}
