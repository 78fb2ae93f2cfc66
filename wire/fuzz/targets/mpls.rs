//! MPLS: a stack that parses comes out the same and ends at its only bottom.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::SliceCursor;
use wire::mpls::{MAX_DEPTH, Stack};

fuzz_target!(|data: &[u8]| {
    let Ok(stack) = Stack::parse(&mut SliceCursor::new(data)) else {
        return;
    };
    let again: Vec<u8> = stack
        .entries()
        .iter()
        .flat_map(|entry| entry.to_bytes())
        .collect();
    assert_eq!(again, data[..stack.stack_bytes()]);
    let bottom = stack.entries().iter().position(|entry| entry.bottom);
    assert_eq!(bottom, Some(stack.entries().len() - 1));
    assert!(stack.entries().len() <= MAX_DEPTH);
    let _ = stack.entropy_label();
});
