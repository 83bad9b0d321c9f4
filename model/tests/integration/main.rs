//! Encodings: there and back, Beam's examples, and what is no encoding. One program, as each is linked for itself.

mod round_trip;
mod standard_coders;
mod structure;
