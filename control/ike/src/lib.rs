//! IKEv2, sans-io.
