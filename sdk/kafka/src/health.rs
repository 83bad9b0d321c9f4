//! What a client tells of its connections while it works.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use rdkafka::{TopicPartitionList, error::KafkaResult};
use tracing::{debug, error, info, warn};

use crate::error::reason;

/// Hears what librdkafka calls back.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The offset after the last record, by topic and partition.
    ends: HashMap<String, HashMap<i32, i64>>,
    /// The last error of a connection, and the last refusal of a login.
    heard: Option<String>,
    refused: Option<String>,
    down_since: Option<Instant>,
}

impl Health {
    /// The offset after the last record of a partition, as of a second ago or so.
    pub fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.lock().ends.get(topic)?.get(&partition).copied()
    }

    /// What was last heard of connections.
    pub fn heard(&self) -> Option<String> {
        let state = self.0.lock();
        state.refused.clone().or_else(|| state.heard.clone())
    }

    /// Why the login was refused, if it was.
    pub fn refused(&self) -> Option<String> {
        self.0.lock().refused.clone()
    }

    /// How long no broker has been reached.
    pub fn down_for(&self) -> Option<Duration> {
        self.0.lock().down_since.map(|since| since.elapsed())
    }

    /// A broker has answered.
    pub fn answered(&self) {
        let mut state = self.0.lock();
        state.down_since = None;
        state.refused = None;
    }
}

impl ClientContext for Health {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!("Kafka: {facility}: {text}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => warn!("Kafka: {facility}: {text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!("Kafka: {facility}: {text}"),
            RDKafkaLogLevel::Debug => debug!("Kafka: {facility}: {text}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut state = self.0.lock();
        for (topic, told) in statistics.topics {
            let ends = told
                .partitions
                .values()
                .filter(|partition| partition.hi_offset >= 0);
            let ends = ends.map(|partition| (partition.partition, partition.hi_offset));
            state.ends.entry(topic).or_default().extend(ends);
        }
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            state.down_since = None;
        }
    }

    fn error(&self, error: ClientError, text: &str) {
        let mut state = self.0.lock();
        match error.rdkafka_error_code() {
            // It is no error.
            Some(Code::PartitionEOF) => return,
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                state.refused = Some(text.to_owned())
            }
            Some(Code::AllBrokersDown) => {
                state.down_since.get_or_insert_with(Instant::now);
            }
            _ => state.heard = Some(text.to_owned()),
        }
        warn!("Kafka: {}: {text}", reason(&error));
    }
}

impl ConsumerContext for Health {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            warn!(
                "Kafka: offsets of the group were not committed: {}",
                reason(&error)
            );
        }
    }
}
