//! Incremental and whole checksums agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::checksum::{Sum, updated};

fuzz_target!(|input: ([u8; 2], u16, &[u8])| {
    let (new, word, data) = input;
    // A word that is not zero keeps the data from being all zero.
    let mut data = [&[0x45, 0][..], data].concat();
    let before = Sum::new().bytes(&data).checksum();
    let at = (usize::from(word) * 2).max(2);
    let Some(field) = data.get_mut(at..at + 2) else {
        return;
    };
    let old = u16::from_be_bytes([field[0], field[1]]);
    field.copy_from_slice(&new);
    assert_eq!(
        updated(before, old, u16::from_be_bytes(new)),
        Sum::new().bytes(&data).checksum()
    );
});
