//! `penstock-control`: wiring only.
fn main() {}
