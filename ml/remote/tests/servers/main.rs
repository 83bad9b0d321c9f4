//! Handlers beside servers on real sockets, which make all the faults that servers make.

mod faults;
mod grpc;
mod kserve;
mod others;
mod properties;
mod stand_in;

use std::time::Duration;

use purlin::prelude::*;
use purlin_remote::{Retries, Server};

/// A server that is asked without pauses that a test would have to wait for.
fn server(url: &str) -> Server {
    let retries = Retries {
        tries: 6,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        never_on: Vec::new(),
    };
    Server::at(url)
        .retries(retries)
        .throttling(None)
        .circuit_breaker(None)
}

/// A pipeline that has to fail: how it does.
fn failure(p: TestPipeline) -> String {
    p.try_run()
        .err()
        .map_or_else(String::new, |error| error.to_string())
}
