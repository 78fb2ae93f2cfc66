//! The packet path of Penstock.
