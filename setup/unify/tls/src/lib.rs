//! The features of `purlin-unify` that programs which speak TLS add to it. It is a crate of its own: with a feature of that crate, all that
//! stands on it would be built once with and once without.

#![forbid(unsafe_code)]
