//! ESP: a header comes out the same, and a plaintext splits into parts that make it up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::SliceCursor;
use wire::esp::{HEADER_BYTES, Header, TRAILER_BYTES, Trailer, verify_padding};

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::parse(&mut SliceCursor::new(data)) {
        let mut out = [0; HEADER_BYTES];
        header.repr().emit(&mut out);
        assert_eq!(out, data[..HEADER_BYTES]);
    }
    if let Ok((payload, padding, trailer)) = Trailer::split(data) {
        assert_eq!(payload.len() + padding.len() + TRAILER_BYTES, data.len());
        assert_eq!(padding.len(), usize::from(trailer.pad_bytes));
        if verify_padding(padding).is_ok() {
            assert_eq!(padding.last().copied().unwrap_or(0), trailer.pad_bytes);
        }
    }
});
