//! Nothing but dependencies. Cargo builds a crate once for each set of features that it is asked for, and with it all that
//! use it; the example, the services and the tests ask for different ones. Named here, with the features of all of them, two
//! hundred crates are built once instead of two or three times. `setup/unify/twice.py` shows where they part again.
#![forbid(unsafe_code)]
