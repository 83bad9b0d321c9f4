#!/usr/bin/env bash
# The compiler of the tests (tests/cargo.toml), with clippy's lints where clippy is installed: what is compiled is linted at once, and
# the gate's step `clippy` has only to read what was said.
if driver=$(command -v clippy-driver); then
    exec "$driver" "$@"
fi
exec "$@"
