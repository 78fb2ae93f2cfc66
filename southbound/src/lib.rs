//! The contract of the control process and the dataplane.
