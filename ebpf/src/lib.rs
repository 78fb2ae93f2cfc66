//! The steering decision of the XDP program, as a pure function, and the layout of its maps.
//!
//! The kernel and user space run the same [`classify`](classify::classify): the program of `main.rs` with a
//! cursor over the frame's pointers and the maps behind [`Steering`](classify::Steering), the tests and the
//! fuzz target with a slice and a table of their own. The compiled program is committed as
//! `penstock-xdp.o` beside this crate; `make ebpf` rebuilds it.
#![no_std]

pub mod classify;
pub mod maps;
pub mod verdict;
