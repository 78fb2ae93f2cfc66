//! TCP: the MSS option is found within the options or not at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::SliceCursor;
use wire::tcp::{HEADER_BYTES, Header, find_mss};

fuzz_target!(|data: &[u8]| {
    let Ok(header) = Header::parse(&mut SliceCursor::new(data)) else {
        return;
    };
    let options = &data[HEADER_BYTES..header.header_bytes()];
    if let Ok(Some(mss)) = find_mss(options) {
        assert_eq!(options[mss.value_at - 2..mss.value_at], [2, 4]);
        assert_eq!(options[mss.value_at..mss.value_at + 2], mss.bytes.to_be_bytes());
    }
});
