//! What can go wrong with Kafka.

use std::time::Duration;

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};

/// Why something could not be read from Kafka or written to it. Each says where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// No broker answers.
    #[error("Kafka at {brokers} does not answer: {action}, for {} s: {reason}; is the address right, and does the broker run?", .waited.as_secs())]
    Unreachable {
        /// The addresses that were given.
        brokers: String,
        /// What was tried.
        action: String,
        /// For how long.
        waited: Duration,
        /// What the client last heard.
        reason: String,
    },
    /// The broker wants another login.
    #[error(
        "Kafka at {brokers} refused the login: {reason}; see the properties \"security.protocol\", \"sasl.mechanism\", \"sasl.username\" and \"sasl.password\""
    )]
    Login {
        /// The addresses that were given.
        brokers: String,
        /// What the broker said.
        reason: String,
    },
    /// There is no such topic.
    #[error("there is no topic \"{topic}\" at {brokers}{}", nearest(.others))]
    NoTopic {
        /// The topic.
        topic: String,
        /// The addresses that were given.
        brokers: String,
        /// Topics whose names are most like it, the best first.
        others: Vec<String>,
    },
    /// There is no such partition.
    #[error("topic \"{topic}\" at {brokers} has no partition {partition}; it has {count}, from 0 on")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How many there are.
        count: usize,
        /// The addresses that were given.
        brokers: String,
    },
    /// No topic matches the pattern.
    #[error(
        "no topic at {brokers} matches the pattern \"{pattern}\"; topics that come later are found with discover_every"
    )]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// The addresses that were given.
        brokers: String,
    },
    /// The user may not do this.
    #[error("Kafka at {brokers} does not allow this user to {action}: {reason}")]
    NotAllowed {
        /// The addresses that were given.
        brokers: String,
        /// What was tried.
        action: String,
        /// What the broker said.
        reason: String,
    },
    /// Records were deleted before they were read.
    #[error(
        "offset {offset} of {topic}-{partition} at {brokers} is not there: it keeps those from {first} to before {end}; records \
         were deleted before they were read, or the topic was made anew; Start::Earliest reads what is there"
    )]
    OffsetGone {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was to be read.
        offset: i64,
        /// The first offset that is kept.
        first: i64,
        /// The offset after the last.
        end: i64,
        /// The addresses that were given.
        brokers: String,
    },
    /// A record is larger than what is taken.
    #[error(
        "a record of {bytes} bytes is too large for topic \"{topic}\" at {brokers}: {reason}; see the property \"message.max.bytes\" here, \
         and \"max.message.bytes\" of the topic"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// How long key and value are.
        bytes: usize,
        /// The addresses that were given.
        brokers: String,
        /// Who says so.
        reason: String,
    },
    /// A record was not taken.
    #[error("a record was not written to {place} at {brokers}: {reason}")]
    NotWritten {
        /// The topic, and the partition where it is known.
        place: String,
        /// The addresses that were given.
        brokers: String,
        /// Why.
        reason: String,
    },
    /// The time of an element cannot be told.
    #[error("{topic}-{partition} at {brokers}, offset {offset}: its event time cannot be told: {reason}")]
    EventTime {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The place of the record.
        offset: i64,
        /// The addresses that were given.
        brokers: String,
        /// What the function said.
        reason: String,
    },
    /// A property is not known, or its value is refused.
    #[error("property \"{name}\" = \"{value}\": {reason}")]
    Property {
        /// The property.
        name: String,
        /// Its value.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// Something else.
    #[error("Kafka at {brokers}: {action}: {reason}")]
    Other {
        /// The addresses that were given.
        brokers: String,
        /// What was tried.
        action: String,
        /// What the client says.
        reason: String,
    },
}

fn nearest(others: &[String]) -> String {
    match others {
        [] => String::new(),
        [one] => format!("; there is \"{one}\""),
        many => {
            let names: Vec<String> = many.iter().map(|name| format!("\"{name}\"")).collect();
            format!("; there are {}", names.join(", "))
        }
    }
}

/// What the client's error says, without its frame.
pub(crate) fn reason(error: &ClientError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => described(code),
        None => error.to_string(),
    }
}

/// What a code means, in the client's words.
pub(crate) fn described(code: Code) -> String {
    // `Name (Broker: What it means)`
    let text = code.to_string();
    let meaning = text
        .split_once(" (")
        .and_then(|(_, meaning)| meaning.strip_suffix(')'));
    meaning.map_or(text.clone(), str::to_owned)
}

/// Whether it passes by itself: the client tries again.
pub(crate) fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::ReplicaNotAvailable
            | Code::KafkaStorageError
            | Code::PreferredLeaderNotAvailable
            | Code::OffsetNotAvailable
    )
}
