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
mod gcm;
pub(crate) mod gcm_batch;
pub(crate) mod gcm_key;
mod gcm_row;
pub(crate) mod ghash;
pub(crate) mod gmac;
pub(crate) mod multi_hash;
mod poly1305;
mod sha1;
mod sha256;
mod sha512;
mod transpose;

use core::arch::asm;
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

/// Zeroes the vector registers, which hold round keys and texts when a batch is done.
#[target_feature(enable = "avx512f")]
pub(crate) fn clear_registers() {
    // SAFETY: changes nothing but the registers it names.
    unsafe {
        asm!(
            "vzeroall",
            "vpxorq zmm16, zmm16, zmm16",
            "vpxorq zmm17, zmm17, zmm17",
            "vpxorq zmm18, zmm18, zmm18",
            "vpxorq zmm19, zmm19, zmm19",
            "vpxorq zmm20, zmm20, zmm20",
            "vpxorq zmm21, zmm21, zmm21",
            "vpxorq zmm22, zmm22, zmm22",
            "vpxorq zmm23, zmm23, zmm23",
            "vpxorq zmm24, zmm24, zmm24",
            "vpxorq zmm25, zmm25, zmm25",
            "vpxorq zmm26, zmm26, zmm26",
            "vpxorq zmm27, zmm27, zmm27",
            "vpxorq zmm28, zmm28, zmm28",
            "vpxorq zmm29, zmm29, zmm29",
            "vpxorq zmm30, zmm30, zmm30",
            "vpxorq zmm31, zmm31, zmm31",
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
            out("xmm16") _,
            out("xmm17") _,
            out("xmm18") _,
            out("xmm19") _,
            out("xmm20") _,
            out("xmm21") _,
            out("xmm22") _,
            out("xmm23") _,
            out("xmm24") _,
            out("xmm25") _,
            out("xmm26") _,
            out("xmm27") _,
            out("xmm28") _,
            out("xmm29") _,
            out("xmm30") _,
            out("xmm31") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}
