//! Namespaces, traffic sources and benchmarks.
