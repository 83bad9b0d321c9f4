//! Producers, and what comes of the records that are given to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;

use crate::connection::Connection;
use crate::error::{KafkaError, described, reason};
use crate::health::Health;
use crate::record::{KafkaMessage, bytes};

/// What the transform sets, and what to use instead.
pub(crate) const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "give the addresses to WriteKafka::new"),
    ("transactional.id", "use WriteKafka::exactly_once"),
];

/// Hears of connections and deliveries.
#[derive(Debug, Default)]
pub(crate) struct Reports(Health);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.log(level, facility, text);
    }
    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }
    fn error(&self, error: ClientError, text: &str) {
        self.0.error(error, text);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, of: Arc<Deliveries>) {
        let failure = result.as_ref().err().map(|(error, message)| Failure {
            error: error.clone(),
            topic: message.topic().to_owned(),
            partition: message.partition(),
            bytes: message.key_len() + message.payload_len(),
        });
        if failure.is_none() {
            self.0.answered();
        }
        of.one_done(failure);
    }
}

/// Why a record was not written.
#[derive(Debug)]
pub(crate) struct Failure {
    error: ClientError,
    topic: String,
    partition: i32,
    bytes: usize,
}

/// The records of a bundle that are under way.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    state: Mutex<Counts>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    under_way: usize,
    failure: Option<Failure>,
}

impl Deliveries {
    fn one_more(&self) {
        self.state.lock().under_way += 1;
    }

    fn one_done(&self, failure: Option<Failure>) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        if state.failure.is_none() {
            state.failure = failure;
        }
        if state.under_way == 0 {
            self.done.notify_all();
        }
    }

    /// Waits until each record was written or has failed, which the client's own time limit sees to. The first failure.
    fn wait(&self) -> Option<Failure> {
        let mut state = self.state.lock();
        while state.under_way > 0 {
            self.done.wait(&mut state);
        }
        state.failure.take()
    }
}

/// A client that writes.
pub(crate) struct Producer {
    pub inner: ThreadedProducer<Reports>,
    connection: Connection,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// With these settings besides those of the connection.
    pub fn new(connection: &Connection, more: &[(&str, &str)]) -> Result<Producer, KafkaError> {
        let ours = [
            // Tries again double nothing and change no order.
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "120000"),
        ];
        let config = connection.config(&[&ours, more].concat());
        let inner = config.create_with_context(Reports::default());
        Ok(Producer {
            inner: inner.map_err(|error| connection.error("making a producer", &error, None))?,
            connection: connection.clone(),
        })
    }

    /// Whether there is a topic. A broker may make it when it is asked, which takes a moment.
    pub fn find(&self, topic: &str) -> Result<(), KafkaError> {
        let failed = |error: ClientError| {
            self.error(&Failure {
                error,
                topic: topic.to_owned(),
                partition: -1,
                bytes: 0,
            })
        };
        let (client, started) = (self.inner.client(), Instant::now());
        loop {
            let metadata = client.fetch_metadata(Some(topic), self.connection.timeout);
            let metadata = metadata.map_err(failed)?;
            let refused = metadata
                .topics()
                .first()
                .and_then(|topic| topic.error().map(Code::from));
            match refused {
                None => return Ok(()),
                Some(_) if started.elapsed() < Duration::from_secs(3) => {
                    std::thread::sleep(Duration::from_millis(200))
                }
                Some(code) => return Err(failed(ClientError::MessageProduction(code))),
            }
        }
    }

    fn health(&self) -> &Health {
        &self.inner.client().context().0
    }

    /// Takes a record to write it, and tells `of` when that is done. Waits while too many are under way.
    pub fn send(&self, message: &KafkaMessage, topic: &str, of: &Arc<Deliveries>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8], Arc<Deliveries>>::with_opaque_to(topic, Arc::clone(of));
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        record.partition = message.partition;
        record.timestamp = message.timestamp.map(|timestamp| timestamp.millis());
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers = Some(message.headers.iter().fold(headers, |headers, header| {
                headers.insert(Header {
                    key: &header.key,
                    value: header.value.as_ref(),
                })
            }));
        }
        let started = Instant::now();
        of.one_more();
        loop {
            let (error, back) = match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let full = error.rdkafka_error_code() == Some(Code::QueueFull);
            if !full || started.elapsed() > self.connection.timeout {
                of.one_done(None);
                return Err(self.error(&Failure {
                    error,
                    topic: topic.to_owned(),
                    partition: message.partition.unwrap_or(-1),
                    bytes: bytes(message.key.as_ref(), message.value.as_ref()),
                }));
            }
            record = back;
            // Its thread makes room.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the records of a bundle are written.
    pub fn finish(&self, deliveries: &Deliveries) -> Result<(), KafkaError> {
        deliveries
            .wait()
            .map_or(Ok(()), |failure| Err(self.error(&failure)))
    }

    fn error(&self, failure: &Failure) -> KafkaError {
        let (topic, brokers) = (failure.topic.clone(), self.connection.brokers.clone());
        if let Some(reason) = self.health().refused() {
            return KafkaError::Login { brokers, reason };
        }
        match failure.error.rdkafka_error_code() {
            Some(code @ (Code::MessageSizeTooLarge | Code::MessageBatchTooLarge)) => KafkaError::TooLarge {
                topic,
                bytes: failure.bytes,
                brokers,
                reason: described(code),
            },
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => KafkaError::NoTopic {
                topic,
                brokers,
                others: Vec::new(),
            },
            Some(code) if crate::error::passes(code) || code == Code::MessageTimedOut => {
                KafkaError::Unreachable {
                    brokers,
                    action: format!("writing to topic \"{topic}\""),
                    waited: self.health().down_for().unwrap_or(self.connection.timeout),
                    reason: self.health().heard().unwrap_or_else(|| described(code)),
                }
            }
            Some(Code::TopicAuthorizationFailed) => KafkaError::NotAllowed {
                brokers,
                action: format!("write to topic \"{topic}\""),
                reason: reason(&failure.error),
            },
            _ => KafkaError::NotWritten {
                place: if failure.partition < 0 {
                    format!("topic \"{topic}\"")
                } else {
                    format!("{topic}-{}", failure.partition)
                },
                brokers,
                reason: reason(&failure.error),
            },
        }
    }

    /// The error of a step of a transaction.
    pub fn transaction_error(&self, step: &str, error: &ClientError) -> KafkaError {
        let heard = self.health().heard();
        self.connection
            .error(format!("{step} a transaction"), error, heard)
    }
}
