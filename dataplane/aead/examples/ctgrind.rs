//! Expands keys and seals packets while valgrind's memcheck takes key material and texts for undefined: it then
//! reports every branch and every address that depends on them. Run by `make ctgrind`.
//!
//! Valgrind knows neither AVX-512 nor VAES, so this checks what runs where they are missing: the portable engine with the
//! libraries under it. The path of the vector engines is what `tests/control_flow.rs` checks. Opening is left out: there
//! the verdict, which is public, is a branch that depends on the packet.
//!
//! With the argument `--leak` it branches on a key byte, to show that the check would see it.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use esp_aead::{Algorithm, Engine, SealJob, SealKey, Transform, Verdict, seal};

/// A request to the valgrind that runs this process; 0 outside of it (valgrind.h, `VALGRIND_DO_CLIENT_REQUEST`).
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn request(code: u64, address: *const u8, bytes: usize) -> u64 {
    let arguments = [code, address as u64, bytes as u64, 0, 0, 0];
    let mut result = 0u64;
    // SAFETY: rotations by 64 in all and an exchange of a register with itself change nothing; valgrind reads the
    // arguments and answers in rdx.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") result,
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64, _: *const u8, _: usize) -> u64 {
    0
}

/// `VG_USERREQ__RUNNING_ON_VALGRIND`.
const RUNNING_ON_VALGRIND: u64 = 0x1001;
/// `VG_USERREQ__MAKE_MEM_UNDEFINED` and `VG_USERREQ__MAKE_MEM_DEFINED` of memcheck.
const MAKE_UNDEFINED: u64 = ((b'M' as u64) << 24 | (b'C' as u64) << 16) + 1;
const MAKE_DEFINED: u64 = MAKE_UNDEFINED + 1;

fn make_secret(bytes: &[u8]) {
    request(MAKE_UNDEFINED, bytes.as_ptr(), bytes.len());
}

fn make_public(bytes: &[u8]) {
    request(MAKE_DEFINED, bytes.as_ptr(), bytes.len());
}

/// As many packets as engines take together, and one; whole blocks and rests.
const LENGTHS: [usize; 5] = [16, 64, 208, 1424, 1424];

fn seal_secrets(algorithm: Algorithm) {
    let keymat: Vec<u8> = (0..algorithm.key_bytes()).map(|i| (i * 73 + 5) as u8).collect();
    make_secret(&keymat);
    let key = SealKey::with_engine(Engine::Portable, Transform::new(algorithm, true), &keymat).unwrap();
    let mut packets: Vec<Vec<u8>> = LENGTHS
        .iter()
        .map(|length| vec![0x5a; algorithm.overhead_bytes() + length])
        .collect();
    for packet in &packets {
        let end = packet.len() - algorithm.icv_bytes();
        make_secret(&packet[8 + algorithm.iv_bytes()..end]);
    }
    let mut jobs: Vec<_> = packets.iter_mut().map(|p| SealJob::new(&key, p, 77)).collect();
    seal(&mut jobs);
    assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
    drop(jobs);
    packets.iter().for_each(|packet| make_public(packet));
}

fn main() -> ExitCode {
    if request(RUNNING_ON_VALGRIND, core::ptr::null(), 0) == 0 {
        eprintln!("ctgrind: this says nothing but under valgrind; run make ctgrind");
        return ExitCode::from(2);
    }
    if std::env::args().any(|argument| argument == "--leak") {
        let key = std::hint::black_box(vec![1u8; 16]);
        make_secret(&key);
        if std::hint::black_box(key[3]) == 2 {
            println!("never");
        }
        return ExitCode::SUCCESS;
    }
    for algorithm in Algorithm::ALL {
        seal_secrets(algorithm);
    }
    println!("ctgrind: {} transforms sealed", Algorithm::ALL.len());
    ExitCode::SUCCESS
}
