//! `penstock-dataplane`: wiring only.
fn main() {}
