//! Apache Kafka in pipelines: [`ReadKafka`] reads the records of topics, [`WriteKafka`] writes records to them.
//!
//! ```no_run
//! use purlin::prelude::*;
//! use purlin_kafka::{KafkaMessage, ReadKafka, WriteKafka};
//!
//! let p = Pipeline::new();
//! let orders = p.apply(ReadKafka::new("localhost:9092").topic("orders").group("billing"));
//! let bills = orders.map("Bill", |order| {
//!     let text = String::from_utf8_lossy(order.value.as_deref().unwrap_or_default()).to_uppercase();
//!     KafkaMessage::new(text)
//! });
//! bills.apply(WriteKafka::new("localhost:9092").topic("bills"));
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
mod write;

pub use error::KafkaError;
pub use read::{ReadKafka, Start};
pub use record::{KafkaHeader, KafkaMessage, KafkaRecord, TimestampKind};
pub use write::WriteKafka;

/// The code in `docs/guide/kafka.md` is tested with that of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/kafka.md")]
mod guide {}
