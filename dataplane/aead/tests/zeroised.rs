//! Key material is erased when a key is dropped, and the vector registers when a batch is done.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::mem::MaybeUninit;

use esp_aead::{Algorithm, Engine, OpenKey, SealKey, Transform};

/// The bytes of a value before and after it was dropped in place.
fn before_and_after<T>(value: T) -> (Vec<u8>, Vec<u8>) {
    let mut place = Box::new(MaybeUninit::new(value));
    let bytes = place.as_ptr().cast::<u8>();
    // SAFETY: the allocation stays; a key has no padding that the test's verdict rests on, and bytes of
    // padding are read as whatever the allocation holds.
    let read = || unsafe {
        (0..size_of::<T>())
            .map(|i| bytes.add(i).read_volatile())
            .collect::<Vec<u8>>()
    };
    let before = read();
    // SAFETY: the value is initialised and not used again.
    unsafe { place.assume_init_drop() };
    (before, read())
}

fn check<T>(name: &str, transform: Transform, keymat: &[u8], value: T) {
    let (before, after) = before_and_after(value);
    assert!(
        before[16..].iter().filter(|b| **b != 0).count() > 16,
        "{name} {transform:?} held nothing"
    );
    assert!(
        after[16..].iter().all(|b| *b == 0),
        "{name} {transform:?} leaves {after:?}"
    );
    // The first bytes say which transform it was, beside the salt.
    let salt_bytes = transform.algorithm.salt_bytes();
    if salt_bytes > 0 {
        let salt = &keymat[transform.algorithm.cipher_key_bytes()..][..salt_bytes];
        assert!(
            before[..16].windows(4).any(|w| w == salt),
            "{name} {transform:?} has no salt"
        );
        assert!(
            !after[..16].windows(4).any(|w| w == salt),
            "{name} {transform:?} leaves its salt"
        );
    }
}

#[test]
fn fault_53_dropped_keys_leave_nothing() {
    if Engine::detected() == Engine::Portable {
        // The library-backed engine's material lies behind a pointer, and the libraries erase it.
        return;
    }
    for algorithm in Algorithm::ALL {
        let transform = Transform::new(algorithm, true);
        let keymat: Vec<u8> = (0..algorithm.key_bytes())
            .map(|i| (i * 37 + 101) as u8 | 1)
            .collect();
        check(
            "SealKey",
            transform,
            &keymat,
            SealKey::new(transform, &keymat).unwrap(),
        );
        check(
            "OpenKey",
            transform,
            &keymat,
            OpenKey::new(transform, &keymat).unwrap(),
        );
    }
}

/// What the vector registers hold.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline(never)]
fn registers(into: &mut [[u8; 64]; 32]) {
    // SAFETY: writes the registers to memory that is theirs.
    unsafe {
        core::arch::asm!(
            "vmovdqu64 [{at} + 0], zmm0",
            "vmovdqu64 [{at} + 64], zmm1",
            "vmovdqu64 [{at} + 128], zmm2",
            "vmovdqu64 [{at} + 192], zmm3",
            "vmovdqu64 [{at} + 256], zmm4",
            "vmovdqu64 [{at} + 320], zmm5",
            "vmovdqu64 [{at} + 384], zmm6",
            "vmovdqu64 [{at} + 448], zmm7",
            "vmovdqu64 [{at} + 512], zmm8",
            "vmovdqu64 [{at} + 576], zmm9",
            "vmovdqu64 [{at} + 640], zmm10",
            "vmovdqu64 [{at} + 704], zmm11",
            "vmovdqu64 [{at} + 768], zmm12",
            "vmovdqu64 [{at} + 832], zmm13",
            "vmovdqu64 [{at} + 896], zmm14",
            "vmovdqu64 [{at} + 960], zmm15",
            "vmovdqu64 [{at} + 1024], zmm16",
            "vmovdqu64 [{at} + 1088], zmm17",
            "vmovdqu64 [{at} + 1152], zmm18",
            "vmovdqu64 [{at} + 1216], zmm19",
            "vmovdqu64 [{at} + 1280], zmm20",
            "vmovdqu64 [{at} + 1344], zmm21",
            "vmovdqu64 [{at} + 1408], zmm22",
            "vmovdqu64 [{at} + 1472], zmm23",
            "vmovdqu64 [{at} + 1536], zmm24",
            "vmovdqu64 [{at} + 1600], zmm25",
            "vmovdqu64 [{at} + 1664], zmm26",
            "vmovdqu64 [{at} + 1728], zmm27",
            "vmovdqu64 [{at} + 1792], zmm28",
            "vmovdqu64 [{at} + 1856], zmm29",
            "vmovdqu64 [{at} + 1920], zmm30",
            "vmovdqu64 [{at} + 1984], zmm31",
            at = in(reg) into.as_mut_ptr(),
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_batch_leaves_nothing_in_the_vector_registers() {
    use esp_aead::{OpenJob, SealJob, Verdict, open, seal};

    for engine in [Engine::Avx2, Engine::Avx512] {
        // The registers are read with an instruction of AVX-512.
        if !(engine.is_usable() && Engine::Avx512.is_usable()) {
            continue;
        }
        for algorithm in Algorithm::ALL {
            if engine == Engine::Avx2 && !matches!(algorithm, Algorithm::AesGcm16(_)) {
                continue;
            }
            let transform = Transform::new(algorithm, true);
            let keymat: Vec<u8> = (0..algorithm.key_bytes())
                .map(|i| (i * 37 + 101) as u8 | 1)
                .collect();
            let seal_key = SealKey::with_engine(engine, transform, &keymat).unwrap();
            let open_key = OpenKey::with_engine(engine, transform, &keymat).unwrap();
            let mut packets = vec![vec![0xa5; algorithm.overhead_bytes() + 1424]; 20];
            let mut after = [[0xff; 64]; 32];
            let mut jobs: Vec<_> = packets
                .iter_mut()
                .map(|p| SealJob::new(&seal_key, p, 5))
                .collect();
            seal(&mut jobs);
            // SAFETY: the processor has AVX-512.
            unsafe { registers(&mut after) };
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
            drop(jobs);
            // Moves between the call and here go through the first registers, 32 bytes at most. The AVX2 engine
            // has the first sixteen registers alone.
            let left = |after: &[[u8; 64]; 32]| {
                let (first, last) = after.split_at(16);
                first
                    .iter()
                    .any(|register| register[32..].iter().any(|b| *b != 0))
                    || first
                        .iter()
                        .any(|r| r.windows(8).any(|w| keymat.windows(8).any(|k| k == w)))
                    || engine == Engine::Avx512 && last.iter().flatten().any(|b| *b != 0)
            };
            assert!(!left(&after), "seal, {engine:?} {algorithm:?}");
            let mut jobs: Vec<_> = packets
                .iter_mut()
                .map(|p| OpenJob::new(&open_key, p, 5))
                .collect();
            open(&mut jobs);
            // SAFETY: the processor has AVX-512.
            unsafe { registers(&mut after) };
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
            assert!(!left(&after), "open, {engine:?} {algorithm:?}");
        }
    }
}
