//! Apache Kafka in pipelines: [`ReadKafka`] reads the records of topics.
//!
//! ```no_run
//! use purlin::prelude::*;
//! use purlin_kafka::ReadKafka;
//!
//! let p = Pipeline::new();
//! let orders = p.apply(ReadKafka::new("localhost:9092").topic("orders").group("billing"));
//! orders.map("Print", |order| println!("{order:?}"));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```
//!
//! The client is librdkafka, whose settings [`ReadKafka::property`] and [`WriteKafka::property`] take, by the names of
//! [its documentation](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md). Connections by TLS and the logins
//! SCRAM and OAUTHBEARER need the feature `tls` of this crate.

#![forbid(unsafe_code)]
// What a broker or a record says is answered with an error, never with a panic; and programs say what they have to say in
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

mod connection;
mod consumer;
mod error;
mod health;
mod read;
mod record;

pub use error::KafkaError;
pub use read::{ReadKafka, Start};
pub use record::{KafkaHeader, KafkaRecord, TimestampKind};
