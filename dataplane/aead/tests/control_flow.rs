//! What runs does not depend on secrets: the machine's own single-step trap records every instruction
//! address while packets are sealed and opened, and two runs that differ in keys, texts or in which byte of an
//! ICV is wrong must have taken the same path.
//!
//! This is the control-flow half of a "ctgrind" run (valgrind knows no AVX-512). The data half holds by
//! construction: the engines index no table by a secret.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code, clippy::unwrap_used)]

use esp_aead::{
    AesKey, Algorithm, Engine, Hmac, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal,
};

/// Number and digest of the instruction addresses that `work` executes.
fn path_of(work: impl FnOnce()) -> (u64, u64) {
    // SAFETY: the child runs `work` alone, touches no lock another thread could hold (nothing allocates or
    // prints), and leaves by `_exit`; the parent waits for it. Registers are plain integers.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork");
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            work();
            libc::raise(libc::SIGSTOP);
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert!(libc::WIFSTOPPED(status), "the child can be traced");
        let (mut steps, mut digest) = (0u64, 0xcbf2_9ce4_8422_2325u64);
        loop {
            assert_eq!(libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0, 0), 0, "step");
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert!(libc::WIFSTOPPED(status), "the child left its path: {status:#x}");
            if libc::WSTOPSIG(status) == libc::SIGSTOP {
                break;
            }
            let mut registers: libc::user_regs_struct = std::mem::zeroed();
            libc::ptrace(libc::PTRACE_GETREGS, child, 0, &mut registers);
            digest = (digest ^ registers.rip).wrapping_mul(0x100_0000_01b3);
            steps += 1;
        }
        libc::ptrace(libc::PTRACE_KILL, child, 0, 0);
        libc::waitpid(child, &mut status, 0);
        (steps, digest)
    }
}

/// As many packets as interleave, and one; two lengths.
const LENGTHS: [usize; 5] = [64, 64, 64, 208, 208];

fn packets(algorithm: Algorithm, secret: u8) -> Vec<Vec<u8>> {
    LENGTHS
        .iter()
        .map(|length| {
            let mut bytes = vec![0; algorithm.overhead_bytes() + length];
            let text = 8 + algorithm.iv_bytes();
            for (i, byte) in bytes[text..text + length].iter_mut().enumerate() {
                *byte = (i as u8).wrapping_mul(secret).wrapping_add(secret);
            }
            bytes
        })
        .collect()
}

fn seal_all(key: &SealKey, packets: &mut [Vec<u8>]) -> (u64, u64) {
    let mut jobs: Vec<_> = packets.iter_mut().map(|p| SealJob::new(key, p, 77)).collect();
    path_of(|| seal(&mut jobs))
}

fn open_all(key: &OpenKey, packets: &mut [Vec<u8>]) -> (u64, u64) {
    let mut jobs: Vec<_> = packets.iter_mut().map(|p| OpenJob::new(key, p, 77)).collect();
    path_of(|| open(&mut jobs))
}

/// The vector engines; what libraries promise holds where they work.
fn cases() -> Vec<(Engine, Algorithm)> {
    let gcm = [
        Algorithm::AesGcm16(AesKey::Bits128),
        Algorithm::AesGcm16(AesKey::Bits256),
    ];
    let others = [
        Algorithm::AesGmac(AesKey::Bits128),
        Algorithm::ChaCha20Poly1305,
        Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha1_96),
        Algorithm::AesCtr(AesKey::Bits256, Hmac::Sha256_128),
        Algorithm::Null(Hmac::Sha512_256),
    ];
    let mut cases = Vec::new();
    for engine in [Engine::Avx2, Engine::Avx512] {
        if engine.is_usable() {
            cases.extend(gcm.map(|algorithm| (engine, algorithm)));
        }
    }
    if Engine::Avx512.is_usable() {
        cases.extend(others.map(|algorithm| (Engine::Avx512, algorithm)));
    }
    cases
}

#[test]
fn paths_do_not_depend_on_keys_texts_or_where_an_icv_is_wrong() {
    // One processor for tracer and traced: each step is a switch between them.
    // SAFETY: the set is plain bits, and only this process is bound.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut one);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one);
    }
    for (engine, algorithm) in cases() {
        let transform = Transform::new(algorithm, true);
        let runs = [0x5a, 0xe1].map(|secret: u8| {
            let keymat: Vec<u8> = (0..algorithm.key_bytes())
                .map(|i| (i as u8).wrapping_mul(secret).wrapping_add(secret))
                .collect();
            let seal_key = SealKey::with_engine(engine, transform, &keymat).unwrap();
            let open_key = OpenKey::with_engine(engine, transform, &keymat).unwrap();
            let mut sealed = packets(algorithm, secret);
            // The parent seals as well: the child's work is lost with it, and what is set up once is set up.
            let mut jobs: Vec<_> = sealed
                .iter_mut()
                .map(|p| SealJob::new(&seal_key, p, 77))
                .collect();
            seal(&mut jobs);
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
            drop(jobs);
            let sealing = seal_all(&seal_key, &mut packets(algorithm, secret));
            let opening = open_all(&open_key, &mut sealed.clone());
            let wrong = [0, algorithm.icv_bytes() - 1].map(|at| {
                let mut forged = sealed.clone();
                for packet in &mut forged {
                    let icv = packet.len() - algorithm.icv_bytes();
                    packet[icv + at] ^= secret;
                }
                open_all(&open_key, &mut forged)
            });
            assert!(
                wrong.iter().all(|path| *path == wrong[0]),
                "{algorithm:?}: the wrong byte shows"
            );
            assert!(sealing.0 > 500, "{algorithm:?}: {} steps", sealing.0);
            (sealing, opening, wrong[0])
        });
        assert_eq!(runs[0], runs[1], "{engine:?} {algorithm:?}");
    }
}
