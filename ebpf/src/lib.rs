//! The steering decision of the XDP program, as a pure function, and the layout of its maps.
#![no_std]
