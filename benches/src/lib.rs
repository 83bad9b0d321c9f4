//! Benchmarks of Purlin against its peers.
