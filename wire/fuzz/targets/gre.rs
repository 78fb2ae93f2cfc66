//! GRE: what parses comes out as the same values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::gre::{MAX_HEADER_BYTES, Repr, fill_checksum, verify_checksum};
use wire::{Cursor, SliceCursor};

fuzz_target!(|data: &[u8]| {
    let mut cursor = SliceCursor::new(data);
    let Ok(repr) = Repr::parse(&mut cursor) else {
        return;
    };
    let mut out = [0; MAX_HEADER_BYTES];
    let length = repr.emit(&mut out);
    assert_eq!((length, length), (cursor.position(), repr.header_bytes()));
    let mut whole = [&out[..length], cursor.rest()].concat();
    if repr.has_checksum {
        fill_checksum(&mut whole).expect("room for it");
        assert_eq!(verify_checksum(&whole), Ok(()));
    }
    assert_eq!(Repr::parse(&mut SliceCursor::new(&whole)), Ok(repr));
});
