//! Reading topics.
//!
//! ```text
//! Impulse ── Partitions ── Read ── records
//!            (finds them,  (a restriction is the offsets of a partition)
//!             again and again)
//! ```

mod discover;
mod event_time;
mod range;
mod records;

use std::sync::Arc;
use std::time::Duration;

use purlin::prelude::*;

use self::discover::{Discover, Found, Pattern, Wanted};
use self::event_time::EventTime;
use self::records::ReadRecords;
use crate::connection::Connection;
use crate::consumer::{Consumers, RESERVED};
use crate::record::KafkaRecord;

/// Where the reading of a partition begins. Partitions that are made while it goes on are read from their first record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// Behind the last record that is there when the reading begins.
    Latest,
    /// At the first record whose timestamp is this or later.
    Time(Timestamp),
    /// Behind what the group has committed, see [`ReadKafka::group`]; where it has committed nothing, at the first record that is kept or
    /// behind the last.
    Group {
        /// Behind the last.
        otherwise_latest: bool,
    },
    /// At these offsets, by topic and partition; elsewhere at the first record that is kept.
    Offsets(Vec<(String, i32, i64)>),
}

/// Reads the records of topics.
///
/// By default it goes on until the pipeline is cancelled or drained, and starts at the first record that is kept, or where the
/// [group](ReadKafka::group) is. Each record comes once, also when workers are lost or bundles are tried again, for as long as the job
/// lives. Offsets are kept by the job; a group of the broker's is told of them when there is one, after what was made of the records is
/// durable, so that a job that starts later goes on there.
///
/// The event time of a record is its timestamp, or what [`event_time`](ReadKafka::event_time) gives. The watermark of a partition is the
/// latest event time, less [`max_delay`](ReadKafka::max_delay); that of the collection is the least of all partitions. See
/// [`idle_after`](ReadKafka::idle_after) for partitions without records.
///
/// | metric, namespace `kafka` | |
/// |---|---|
/// | counter `records_read`, `bytes_read` | records, and bytes of their keys and values |
/// | gauge `lag TOPIC-PARTITION` | records that are there and not read, as of a second ago or so |
#[derive(Clone, Debug)]
pub struct ReadKafka {
    connection: Connection,
    wanted: Wanted,
    start: Option<Start>,
    group: Option<String>,
    to_end: bool,
    times: EventTime,
    idle_is_set: bool,
    discover: Option<Duration>,
    poll: Duration,
    max_outage: Duration,
    problems: Vec<String>,
}

impl ReadKafka {
    /// Reads from the cluster of these brokers: `host:port`, or several with commas between them.
    pub fn new(brokers: impl Into<String>) -> ReadKafka {
        ReadKafka {
            connection: Connection::new(brokers),
            wanted: Wanted::default(),
            start: None,
            group: None,
            to_end: false,
            times: EventTime {
                of: None,
                max_delay: Duration::ZERO,
                idle_after: Some(Duration::from_secs(2)),
            },
            idle_is_set: false,
            discover: None,
            poll: Duration::from_millis(10),
            max_outage: Duration::from_secs(300),
            problems: Vec::new(),
        }
    }

    /// Reads this topic, besides others.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.wanted.topics.push(topic.into());
        self
    }

    /// Reads these topics, besides others.
    #[must_use]
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.wanted.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Reads the topics whose whole names match this [regular expression](regex). Topics of the broker's own, which begin with `__`, do
    /// not.
    #[must_use]
    pub fn topic_pattern(mut self, pattern: &str) -> Self {
        match Pattern::new(pattern) {
            Ok(pattern) => self.wanted.pattern = Some(pattern),
            Err(error) => self.problems.push(format!("topic_pattern: {error}")),
        }
        self
    }

    /// Reads this partition of a topic, besides others.
    #[must_use]
    pub fn partition(mut self, topic: impl Into<String>, partition: i32) -> Self {
        self.wanted.partitions.push((topic.into(), partition));
        self
    }

    /// Where the reading begins. By default where the group is, or else at the first record that is kept.
    #[must_use]
    pub fn start_at(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// The group whose offsets are committed when records are processed, and where the reading begins unless
    /// [`start_at`](ReadKafka::start_at) says something else. The group's members share no partitions: two jobs that read for one
    /// group at a time both read everything.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Reads what is there when the reading begins, and ends: the output is bounded.
    #[must_use]
    pub fn to_end(mut self) -> Self {
        self.to_end = true;
        self
    }

    /// The event time of a record. Where it cannot be told, an error fails the job with the place of the record; give another
    /// time, for example the record's own, to go on.
    ///
    /// From now on a partition without records holds the watermark back, since those that come may be of any time:
    /// see [`idle_after`](ReadKafka::idle_after).
    #[must_use]
    pub fn event_time(
        mut self,
        of: impl Fn(&KafkaRecord) -> Result<Timestamp, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.times.of = Some(Arc::new(of));
        if !self.idle_is_set {
            self.times.idle_after = None;
        }
        self
    }

    /// So much later than others of its partition a record may come whose event time is earlier, without being late. Zero by default.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.times.max_delay = delay;
        self
    }

    /// A partition that has had no record for so long holds the watermark back no more: it goes with the clock, so much behind it. Two
    /// seconds by default where event times are the records' own timestamps, and never where a function tells them.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.times.idle_after = Some(idle);
        self.idle_is_set = true;
        self
    }

    /// Looks for new topics and partitions so often. By default they are looked for once.
    #[must_use]
    pub fn discover_every(mut self, interval: Duration) -> Self {
        self.discover = Some(interval);
        self
    }

    /// So long after a partition had nothing, it is looked at again; 10 ms by default.
    #[must_use]
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// How long an answer of a broker may take where something is asked: topics, offsets. 30 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.connection.timeout = timeout;
        self
    }

    /// For how long no broker may be reached while records are read, before that is an error. Five minutes by default.
    #[must_use]
    pub fn max_outage(mut self, outage: Duration) -> Self {
        self.max_outage = outage;
        self
    }

    /// A setting of the client, for example `security.protocol`; see the [crate](crate). Take passwords from the environment.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.connection.properties.insert(name.into(), value.into());
        self
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        problems.extend(self.connection.problems(RESERVED).iter().map(ToString::to_string));
        let wanted = &self.wanted;
        if wanted.topics.is_empty()
            && wanted.partitions.is_empty()
            && wanted.pattern.is_none()
            && self.problems.is_empty()
        {
            problems.push("it reads no topic; use topic, topics, topic_pattern or partition".to_owned());
        }
        if self.to_end && self.discover.is_some() {
            problems.push(
                "to_end and discover_every exclude each other: what ends waits for no new partitions"
                    .to_owned(),
            );
        }
        if matches!(self.start, Some(Start::Group { .. })) && self.group.is_none() {
            problems.push("it starts where the group is, but there is none; use group".to_owned());
        }
        for (what, duration) in [("discover_every", self.discover), ("poll_every", Some(self.poll))] {
            if duration.is_some_and(|duration| duration.is_zero()) {
                problems.push(format!("{what} is zero; a millisecond is the least"));
            }
        }
        problems
    }

    fn read<const FOR_EVER: bool>(
        self,
        found: &PCollection<Found>,
        consumers: Arc<Consumers>,
    ) -> PCollection<KafkaRecord> {
        let start = self.start.unwrap_or(match &self.group {
            Some(_) => Start::Group {
                otherwise_latest: false,
            },
            None => Start::Earliest,
        });
        let read = ReadRecords::<FOR_EVER> {
            consumers,
            start,
            times: self.times,
            poll: self.poll,
            records_read: Metrics::counter("kafka", "records_read"),
            bytes_read: Metrics::counter("kafka", "bytes_read"),
        };
        found.apply(SplittableParDo::new("Read", read))
    }
}

impl PTransform<PBegin> for ReadKafka {
    type Output = PCollection<KafkaRecord>;

    fn name(&self) -> String {
        "ReadKafka".into()
    }

    fn expand(self, input: PBegin) -> PCollection<KafkaRecord> {
        let pipeline = input.pipeline();
        self.problems()
            .iter()
            .for_each(|problem| pipeline.problem(problem));
        let consumers = Consumers::new(self.connection.clone(), self.group.clone(), self.max_outage);
        let consumers = Arc::new(consumers);
        let (wanted, every) = (self.wanted.clone(), self.discover);
        let start = pipeline.apply(Impulse);
        let name = "Partitions";
        let found = if every.is_some() {
            let consumers = Arc::clone(&consumers);
            start.apply(SplittableParDo::new(
                name,
                Discover::<true> {
                    consumers,
                    wanted,
                    every,
                },
            ))
        } else {
            let consumers = Arc::clone(&consumers);
            start.apply(SplittableParDo::new(
                name,
                Discover::<false> {
                    consumers,
                    wanted,
                    every,
                },
            ))
        };
        if self.to_end {
            self.read::<false>(&found, consumers)
        } else {
            self.read::<true>(&found, consumers)
        }
    }
}
