//! Records that were read, and messages to be written.

use purlin::prelude::*;
use purlin::sources::now;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp as Stamp};

/// A header of a record: a name and a value. Names can come several times.
#[derive(Clone, Debug, PartialEq, Eq, Schema)]
pub struct KafkaHeader {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Whose clock the timestamp of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Schema)]
pub enum TimestampKind {
    /// The producer's, when it made the record.
    CreateTime,
    /// The broker's, when it took the record.
    LogAppendTime,
    /// This machine's, when it read the record: the record has none.
    ReadTime,
}

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Schema)]
pub struct KafkaRecord {
    /// The topic.
    pub topic: String,
    /// The partition of the topic, from 0.
    pub partition: i32,
    /// The place in the partition.
    pub offset: i64,
    /// When the record was made, in milliseconds; see `timestamp_kind`.
    pub timestamp: Timestamp,
    /// Whose clock the timestamp is.
    pub timestamp_kind: TimestampKind,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none deletes what has the key in a topic that is compacted.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<KafkaHeader>,
}

/// Bytes of key and value.
pub(crate) fn bytes(key: Option<&Vec<u8>>, value: Option<&Vec<u8>>) -> usize {
    key.map_or(0, Vec::len) + value.map_or(0, Vec::len)
}

impl KafkaRecord {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> KafkaRecord {
        let (timestamp, timestamp_kind) = match message.timestamp() {
            Stamp::CreateTime(millis) => (Timestamp::from_millis(millis), TimestampKind::CreateTime),
            Stamp::LogAppendTime(millis) => (Timestamp::from_millis(millis), TimestampKind::LogAppendTime),
            Stamp::NotAvailable => (now(), TimestampKind::ReadTime),
        };
        let headers = message.headers().map(|headers| {
            let owned = headers.iter().map(|header| KafkaHeader {
                key: header.key.to_owned(),
                value: header.value.map(<[u8]>::to_vec),
            });
            owned.collect()
        });
        KafkaRecord {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp,
            timestamp_kind,
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }

    /// The value of the last header of this name.
    pub fn header(&self, key: &str) -> Option<&[u8]> {
        let found = self.headers.iter().rev().find(|header| header.key == key);
        found.and_then(|header| header.value.as_deref())
    }
}

/// A record that is to be written.
///
/// ```
/// use purlin_kafka::KafkaMessage;
///
/// let message = KafkaMessage::new("12.50").with_key("order 7").with_header("currency", "EUR");
/// assert_eq!(message.value.as_deref(), Some(&b"12.50"[..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Schema)]
pub struct KafkaMessage {
    /// The topic; none is the one of [`WriteKafka::topic`](crate::WriteKafka::topic).
    pub topic: Option<String>,
    /// The partition; none leaves it to the producer: by the hash of the key, or any where there is no key.
    pub partition: Option<i32>,
    /// When the record was made; none is the time of the writing.
    pub timestamp: Option<Timestamp>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none deletes what has the key in a topic that is compacted.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<KafkaHeader>,
}

impl KafkaMessage {
    /// A record of this value.
    pub fn new(value: impl Into<Vec<u8>>) -> KafkaMessage {
        KafkaMessage {
            value: Some(value.into()),
            ..KafkaMessage::default()
        }
    }

    /// Deletes what has this key in a topic that is compacted.
    pub fn delete(key: impl Into<Vec<u8>>) -> KafkaMessage {
        KafkaMessage {
            key: Some(key.into()),
            ..KafkaMessage::default()
        }
    }

    /// With this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// To this topic.
    #[must_use]
    pub fn to_topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// To this partition.
    #[must_use]
    pub fn to_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Made at this time.
    #[must_use]
    pub fn at(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(KafkaHeader {
            key: key.into(),
            value: Some(value.into()),
        });
        self
    }
}

impl From<KafkaRecord> for KafkaMessage {
    /// The record with its key, value, headers and time, for any partition of the topic that is written to.
    fn from(record: KafkaRecord) -> KafkaMessage {
        KafkaMessage {
            timestamp: (record.timestamp_kind != TimestampKind::ReadTime).then_some(record.timestamp),
            key: record.key,
            value: record.value,
            headers: record.headers,
            ..KafkaMessage::default()
        }
    }
}
