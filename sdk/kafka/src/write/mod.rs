//! Writing to topics.

mod exactly_once;
mod producer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use purlin::metrics::Counter;
use purlin::prelude::*;

use self::exactly_once::{Commit, Number, Shards};
use self::producer::{Deliveries, Producer, RESERVED};
use crate::connection::Connection;
use crate::error::KafkaError;
use crate::record::{KafkaMessage, bytes};

/// Writes records to topics.
///
/// A bundle is done when the brokers have all of its records, in all replicas that are in sync. A bundle that is tried again
/// writes its records again: each is there at least once. With [`exactly_once`](WriteKafka::exactly_once) it is there once.
///
/// The counters `records_written` and `bytes_written` of the namespace `kafka` tell how many, and the bytes of their keys and values.
///
/// ```no_run
/// use purlin::prelude::*;
/// use purlin_kafka::{KafkaMessage, WriteKafka};
///
/// let p = Pipeline::new();
/// let messages = p.apply(Create::new([1i64, 2])).map("Message", |n| KafkaMessage::new(n.to_string()));
/// messages.apply(WriteKafka::new("localhost:9092").topic("numbers"));
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriteKafka {
    connection: Connection,
    topic: Option<String>,
    exactly_once: Option<(String, u32)>,
}

impl WriteKafka {
    /// Writes to the cluster of these brokers: `host:port`, or several with commas between them.
    pub fn new(brokers: impl Into<String>) -> WriteKafka {
        WriteKafka {
            connection: Connection::new(brokers),
            topic: None,
            exactly_once: None,
        }
    }

    /// The topic of records that name none.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Writes each record once, as readers see it that read what is committed (`isolation.level` = `read_committed`, the default of
    /// librdkafka and not that of Java's client): a bundle is a transaction in each of so many shards, no more than the topic has
    /// partitions. More shards write more at a time, and each takes a producer. Needs a runner that gives stable input, as Purlin's and
    /// Flink's with checkpoints do.
    ///
    /// `id` names the transactions, and a group in which the brokers keep how far each shard is. Two jobs that run at a time need
    /// different ones. A job that is started anew with the `id` of an earlier one goes on behind it.
    #[must_use]
    pub fn exactly_once(mut self, id: impl Into<String>, shards: u32) -> Self {
        self.exactly_once = Some((id.into(), shards));
        self
    }

    /// How long an answer of a broker may take where something is asked, and how long it may take until there is room for one more record,
    /// where very many are under way. 30 s by default. How long the
    /// writing of a record may take is the property `message.timeout.ms`, two minutes by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.connection.timeout = timeout;
        self
    }

    /// A setting of the client, for example `compression.type`; see the [crate](crate). Take passwords from the environment.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.connection.properties.insert(name.into(), value.into());
        self
    }
}

impl PTransform<PCollection<KafkaMessage>> for WriteKafka {
    type Output = ();

    fn name(&self) -> String {
        "WriteKafka".into()
    }

    fn expand(self, input: PCollection<KafkaMessage>) {
        for problem in self.connection.problems(RESERVED) {
            input.pipeline().problem(problem);
        }
        let (records_written, bytes_written) = (
            Metrics::counter("kafka", "records_written"),
            Metrics::counter("kafka", "bytes_written"),
        );
        let Some((id, count)) = self.exactly_once else {
            let write = WriteRecords {
                producers: Arc::new(Producers {
                    connection: self.connection,
                    one: Mutex::default(),
                    topics: Mutex::default(),
                }),
                topic: self.topic,
                bundle: None,
                found: HashSet::new(),
                records_written,
                bytes_written,
            };
            input.par_do("Write", write);
            return;
        };
        if count == 0 {
            input
                .pipeline()
                .problem("exactly_once has no shards; one is the least");
        }
        if self.topic.is_none() {
            input
                .pipeline()
                .problem("exactly_once needs a topic of its own; use WriteKafka::topic");
        }
        let (turn, count) = (Arc::new(AtomicU64::new(0)), u64::from(count.max(1)));
        let sharded = input.map("Shard", move |message: KafkaMessage| {
            (
                i64::try_from(turn.fetch_add(1, Ordering::Relaxed) % count).unwrap_or_default(),
                message,
            )
        });
        let number = Number {
            count: ValueState::new("count"),
        };
        let commit = Commit {
            shards: Arc::new(Shards {
                connection: self.connection,
                id,
                count: i64::try_from(count).unwrap_or(i64::MAX),
                known: Mutex::default(),
            }),
            topic: self.topic.unwrap_or_default(),
            due: ValueState::new("due"),
            early: BagState::new("early"),
            open: HashMap::new(),
            records_written,
            bytes_written,
        };
        sharded
            .window_into("Global", Windowing::global())
            .stateful_par_do("Number", number)
            .stateful_par_do("Commit", commit);
    }
}

/// The client of a transform in this process; made when it is needed.
#[derive(Debug)]
struct Producers {
    connection: Connection,
    one: Mutex<Option<Arc<Producer>>>,
    /// Topics that were looked for: bundles that are tried again do not look as long again.
    topics: Mutex<HashMap<String, Result<(), KafkaError>>>,
}

impl Producers {
    fn get(&self) -> Result<Arc<Producer>, KafkaError> {
        let mut one = self.one.lock();
        if let Some(producer) = &*one {
            return Ok(Arc::clone(producer));
        }
        let producer = Arc::new(Producer::new(&self.connection, &[])?);
        *one = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Looks for a topic, once.
    fn find(&self, producer: &Producer, topic: &str) -> Result<(), KafkaError> {
        let mut topics = self.topics.lock();
        if let Some(known) = topics.get(topic) {
            return known.clone();
        }
        let found = producer.find(topic);
        topics.insert(topic.to_owned(), found.clone());
        found
    }
}

/// Writes the records of a bundle.
#[derive(Clone, Debug)]
struct WriteRecords {
    producers: Arc<Producers>,
    topic: Option<String>,
    bundle: Option<(Arc<Producer>, Arc<Deliveries>)>,
    /// Topics that are known to be there.
    found: HashSet<String>,
    records_written: Counter,
    bytes_written: Counter,
}

/// The topic of a record, or of all.
fn topic_of<'a>(message: &'a KafkaMessage, of_all: Option<&'a str>) -> Result<&'a str, BoxError> {
    let topic = message.topic.as_deref().or(of_all);
    topic.ok_or_else(|| "a record names no topic, and WriteKafka has none; use KafkaMessage::to_topic or WriteKafka::topic".into())
}

/// Bytes of key and value.
fn length(message: &KafkaMessage) -> i64 {
    i64::try_from(bytes(message.key.as_ref(), message.value.as_ref())).unwrap_or(i64::MAX)
}

impl DoFn for WriteRecords {
    type In = KafkaMessage;
    type Out = ();
    const OBSERVES_WINDOW: bool = false;

    fn start_bundle(&mut self) -> DoFnResult {
        self.bundle = Some((self.producers.get()?, Arc::default()));
        Ok(())
    }

    fn process(&mut self, message: KafkaMessage, _ctx: &mut Context<'_, ()>) -> DoFnResult {
        let Some((producer, deliveries)) = &self.bundle else {
            return Err("no bundle has begun".into());
        };
        let topic = topic_of(&message, self.topic.as_deref())?;
        if !self.found.contains(topic) {
            self.producers.find(producer, topic)?;
            self.found.insert(topic.to_owned());
        }
        producer.send(&message, topic, deliveries)?;
        self.records_written.inc(1);
        self.bytes_written.inc(length(&message));
        Ok(())
    }

    fn finish_bundle(&mut self, _ctx: &mut FinishContext<'_, ()>) -> DoFnResult {
        if let Some((producer, deliveries)) = self.bundle.take() {
            producer.finish(&deliveries)?;
        }
        Ok(())
    }
}
