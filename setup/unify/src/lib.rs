//! Nothing but dependencies. Cargo builds a crate once for each set of features that it is asked for, and with it all that
//! use it; the example and the services ask for different ones. Named here, with the features of both, a hundred crates are
//! built once instead of twice. `cargo tree -e normal,build -f '{p} {f}'` of the two shows where they part again.
#![forbid(unsafe_code)]
