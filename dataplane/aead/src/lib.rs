//! ESP transforms in batches.
