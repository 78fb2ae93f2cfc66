//! The control process of Penstock.
