//! Ethernet: what parses comes out the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ethernet::{Header, Repr};
use wire::{Cursor, SliceCursor};

fuzz_target!(|data: &[u8]| {
    let mut cursor = SliceCursor::new(data);
    let Ok(header) = Header::parse(&mut cursor) else {
        return;
    };
    let mut out = [0; Repr::MAX_BYTES];
    let length = header.repr().emit(&mut out);
    assert_eq!(length, header.header_bytes());
    assert_eq!(out[..length], data[..cursor.position()]);
});
