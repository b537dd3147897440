//! Criterion benchmarks of every component
