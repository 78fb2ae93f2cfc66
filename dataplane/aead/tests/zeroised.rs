//! Key material is erased when a key is dropped.

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
