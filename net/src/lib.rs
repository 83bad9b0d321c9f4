//! How every server of Purlin listens and serves: one set of limits, so that no client can end a server or fill its memory. And how
//! every client of gRPC connects: [`endpoint`]. And how the program of a worker is told where to connect: [`Contract`].
//!
//! ```text
//! listen ──▶ Acceptor ──▶ Connection       waits where file descriptors are short; ends what says nothing
//!                             │
//!                         grpc_server      streams and bytes of a connection
//!                             │
//!            check_hosts, limit_messages   HTTP/1 for named hosts; each message by its method's limit, whole before it is
//!                             │            decoded, and counted with all that are incomplete or unread
//!                         the services
//! ```
#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod accept;
mod budget;
mod client;
mod connection;
mod contract;
mod frames;
mod hosts;
mod messages;
mod server;
mod size;
mod token;

pub use accept::{Acceptor, BindError, listen};
pub use client::{AddressError, Purpose, endpoint, root_cause};
pub use connection::{Connection, ConnectionInfo, Silence};
pub use contract::{Contract, READS_WORKER_ID, WORKER_ID, reads_worker_id, whole_worker_id};
pub use hosts::{HostNames, check_hosts, machine_name};
pub use messages::{Limit, Limits, Rule, limit_messages};
pub use server::{MAX_CONNECTIONS, Side, grpc_server};
pub use size::{SizeError, bytes_of};
pub use token::{with_token, without_token};

/// The largest gRPC message sent or taken: a little under 2 GiB, which other gRPC libraries cannot pass.
pub const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
