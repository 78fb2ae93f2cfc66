//! `penstock`: the command line.
fn main() {}
