//! Consumers that the readers of many partitions share.
//!
//! A worker process has one client for a [`ReadKafka`](crate::ReadKafka), which fetches all partitions that are read there: one connection to
//! each broker, however many partitions there are. Each partition has a queue of its own. Between two bundles of a partition its
//! queue stays, and goes on being filled, so that the next bundle finds records at hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::Connection;
use crate::error::{KafkaError, passes};
use crate::health::Health;

/// A partition that nobody has read for so long is fetched no more.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// A question is asked for so long at a time.
const SLICE: Duration = Duration::from_secs(1);

/// What names a partition.
pub(crate) type PartitionKey = (String, i32);

/// The clients of one transform in this process; made when they are needed.
#[derive(Debug)]
pub(crate) struct Consumers {
    pub connection: Connection,
    /// The group whose offsets are read and committed.
    pub group: Option<String>,
    /// For how long no broker may be reached.
    pub max_outage: Duration,
    clients: Mutex<Vec<Arc<Client>>>,
    /// A broker has answered, ever.
    reached: AtomicBool,
    /// Why none has: bundles that are tried again do not wait as long again.
    refused: Mutex<Option<KafkaError>>,
}

/// What is set by the transform, and what to use instead.
pub(crate) const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "give the addresses to ReadKafka::new"),
    ("group.id", "use ReadKafka::group"),
    (
        "enable.auto.commit",
        "offsets are committed when the records are processed, if there is a group",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed when the records are processed, if there is a group",
    ),
    ("auto.offset.reset", "use ReadKafka::start_at"),
    ("enable.partition.eof", "it is needed"),
    ("statistics.interval.ms", "it is needed"),
];

impl Consumers {
    pub fn new(connection: Connection, group: Option<String>, max_outage: Duration) -> Consumers {
        Consumers {
            connection,
            group,
            max_outage,
            clients: Mutex::default(),
            reached: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }

    fn connect(&self) -> Result<Arc<Client>, KafkaError> {
        let config = self.connection.config(&[
            // A consumer without a group cannot be told what to read; nothing is committed for this one.
            ("group.id", self.group.as_deref().unwrap_or("purlin")),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("statistics.interval.ms", "1000"),
            // For each partition.
            ("queued.max.messages.kbytes", "8192"),
            // How long the fetching of a partition rests whose queue is full.
            ("fetch.queue.backoff.ms", "10"),
        ]);
        let consumer = config.create_with_context(Health::default());
        let consumer = consumer.map_err(|error| self.connection.error("making a consumer", &error, None))?;
        Ok(Arc::new(Client {
            consumer: Arc::new(consumer),
            partitions: Mutex::default(),
        }))
    }

    /// A client for what is no fetching.
    pub fn any(&self) -> Result<Arc<Client>, KafkaError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.first() {
            return Ok(Arc::clone(client));
        }
        let client = self.connect()?;
        clients.push(Arc::clone(&client));
        Ok(client)
    }

    /// The records of a partition from an offset on, for one reader alone.
    pub fn lease(self: &Arc<Self>, key: &PartitionKey, offset: i64) -> Result<Lease, KafkaError> {
        let mut clients = self.clients.lock();
        clients.iter().for_each(|client| client.forget_idle(FORGOTTEN));
        // Another part of the partition may be read at the same time, and a client can read a partition only once.
        let free = clients.iter().find(|client| client.is_free(key)).cloned();
        let client = match free {
            Some(client) => client,
            None => {
                let client = self.connect()?;
                clients.push(Arc::clone(&client));
                client
            }
        };
        client.lease(self, key, offset)
    }

    /// Asks a broker, again and again until the time is up. A login that is refused looks like a broker that does not answer, so
    /// it is looked for between.
    pub fn ask<T>(
        &self,
        client: &Client,
        action: &str,
        ask: impl Fn(Duration) -> Result<T, ClientError>,
    ) -> Result<T, KafkaError> {
        let started = Instant::now();
        if let Some(error) = &*self.refused.lock() {
            return Err(error.clone());
        }
        loop {
            let left = self.connection.timeout.saturating_sub(started.elapsed());
            let error = match ask(left.min(SLICE)) {
                Ok(answer) => {
                    client.health().answered();
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let _ = client.serve();
            let again = error.rdkafka_error_code().is_some_and(passes) && left > SLICE;
            if !again || client.health().refused().is_some() {
                let error = self.error(client, action, &error);
                let hopeless = matches!(error, KafkaError::Unreachable { .. } | KafkaError::Login { .. });
                if hopeless && !self.reached.load(Ordering::Relaxed) {
                    *self.refused.lock() = Some(error.clone());
                }
                return Err(error);
            }
        }
    }

    /// The error of a client of these.
    pub fn error(&self, client: &Client, action: impl Into<String>, error: &ClientError) -> KafkaError {
        // A refused login looks like a broker that does not answer.
        if let Some(reason) = client.health().refused() {
            let brokers = self.connection.brokers.clone();
            return KafkaError::Login { brokers, reason };
        }
        self.connection.error(action, error, client.health().heard())
    }
}

/// A client, and the partitions that it fetches.
pub(crate) struct Client {
    pub consumer: Arc<BaseConsumer<Health>>,
    partitions: Mutex<HashMap<PartitionKey, Slot>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

enum Slot {
    /// Somebody reads it.
    Leased,
    /// Fetched ahead, for who comes next.
    Idle(Queue),
}

struct Queue {
    queue: PartitionQueue<Health>,
    /// The offset of the next record in it; none where one was taken that is to be read again.
    next: Option<i64>,
    /// Nothing has come from it yet.
    fresh: bool,
    /// Since when all there is has been read.
    at_end: Option<Instant>,
    since: Instant,
}

impl Client {
    pub fn health(&self) -> &Health {
        self.consumer.client().context()
    }

    fn is_free(&self, key: &PartitionKey) -> bool {
        !matches!(self.partitions.lock().get(key), Some(Slot::Leased))
    }

    /// Fetches no more what nobody has read for so long.
    fn forget_idle(&self, after: Duration) {
        let mut partitions = self.partitions.lock();
        let idle = partitions.iter().filter_map(|(key, slot)| match slot {
            Slot::Idle(queue) if queue.since.elapsed() >= after => Some(key.clone()),
            _ => None,
        });
        for key in idle.collect::<Vec<_>>() {
            partitions.remove(&key);
            self.unassign(&key);
        }
    }

    fn unassign(&self, key: &PartitionKey) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&key.0, key.1);
        // It fails where the client lost it already.
        let _ = self.consumer.incremental_unassign(&list);
    }

    fn lease(
        self: Arc<Self>,
        of: &Arc<Consumers>,
        key: &PartitionKey,
        offset: i64,
    ) -> Result<Lease, KafkaError> {
        let mut partitions = self.partitions.lock();
        let queue = match partitions.remove(key) {
            Some(Slot::Idle(queue)) if queue.next == Some(offset) => Ok(queue),
            Some(Slot::Idle(queue)) => self.seek(key, queue, offset),
            _ => self.assign(key, offset),
        };
        let queue = queue.map_err(|error| {
            self.unassign(key);
            of.error(&self, format!("reading {}-{}", key.0, key.1), &error)
        })?;
        partitions.insert(key.clone(), Slot::Leased);
        drop(partitions);
        let lease = Lease {
            consumers: Arc::clone(of),
            client: self,
            key: key.clone(),
            queue: Some(queue),
        };
        // Where records never end, nobody else asks what the client has to tell.
        let served = lease.client.serve();
        served.map_err(|error| of.error(&lease.client, format!("reading {}-{}", key.0, key.1), &error))?;
        Ok(lease)
    }

    /// Goes to another offset: a bundle is tried again, or another part of the partition is read.
    fn seek(&self, key: &PartitionKey, queue: Queue, offset: i64) -> Result<Queue, ClientError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&key.0, key.1, Offset::Offset(offset))?;
        let sought = self.consumer.seek_partitions(list, SLICE)?;
        sought
            .elements()
            .iter()
            .try_for_each(|partition| partition.error())?;
        Ok(Queue {
            next: Some(offset),
            fresh: true,
            at_end: None,
            ..queue
        })
    }

    fn assign(&self, key: &PartitionKey, offset: i64) -> Result<Queue, ClientError> {
        let (topic, partition) = key;
        // Before the first record is fetched: all of them are to be in it.
        let queue = self.consumer.split_partition_queue(topic, *partition);
        let queue = queue.ok_or_else(|| ClientError::Subscription("no queue for the partition".into()))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
        self.consumer.incremental_assign(&list)?;
        Ok(Queue {
            queue,
            next: Some(offset),
            fresh: true,
            at_end: None,
            since: Instant::now(),
        })
    }

    /// Takes what is no record: statistics, errors of connections, answers to commits.
    fn serve(&self) -> Result<(), ClientError> {
        // Few are at hand at a time.
        for _ in 0..16 {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if passes(code) => {}
                    _ if matches!(error, ClientError::PartitionEOF(_)) => {}
                    _ => return Err(error),
                },
                Some(Ok(_)) => {}
            }
        }
        Ok(())
    }

    /// Tells the group that the records before an offset are processed. Does not wait.
    pub fn commit(&self, key: &PartitionKey, offset: i64) -> Result<(), ClientError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&key.0, key.1, Offset::Offset(offset))?;
        self.consumer.commit(&list, CommitMode::Async)
    }
}

/// What is next in a partition.
pub(crate) enum Polled<'a> {
    Record(BorrowedMessage<'a>),
    /// Nothing: all records that are there have been read.
    End,
    /// Nothing yet.
    Nothing,
}

/// A partition that is read, given back when dropped.
pub(crate) struct Lease {
    consumers: Arc<Consumers>,
    pub client: Arc<Client>,
    key: PartitionKey,
    queue: Option<Queue>,
}

impl Lease {
    /// The next record, if there is one within this time. What is taken is not given again, so [`Lease::read`] is to be called, or
    /// [`Lease::discard`].
    pub fn poll(&self, wait: Duration) -> Result<Polled<'_>, KafkaError> {
        let Some(queue) = &self.queue else {
            return Ok(Polled::Nothing);
        };
        let failed = |error: &ClientError| self.failed(queue.next.unwrap_or_default(), error);
        match queue.queue.poll(wait) {
            Some(Ok(message)) => Ok(Polled::Record(message)),
            Some(Err(ClientError::PartitionEOF(_))) => Ok(Polled::End),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(code) if passes(code) => self.nothing(),
                _ => Err(failed(&error)),
            },
            None => {
                self.client.serve().map_err(|error| failed(&error))?;
                self.nothing()
            }
        }
    }

    fn nothing(&self) -> Result<Polled<'_>, KafkaError> {
        let connection = &self.consumers.connection;
        if let Some(reason) = self.client.health().refused() {
            let brokers = connection.brokers.clone();
            return Err(KafkaError::Login { brokers, reason });
        }
        match self.client.health().down_for() {
            Some(waited) if waited > self.consumers.max_outage => Err(KafkaError::Unreachable {
                brokers: connection.brokers.clone(),
                action: format!("reading {}-{}", self.key.0, self.key.1),
                waited,
                reason: self
                    .client
                    .health()
                    .heard()
                    .unwrap_or_else(|| "no broker is reached".to_owned()),
            }),
            _ => Ok(Polled::Nothing),
        }
    }

    fn failed(&self, offset: i64, error: &ClientError) -> KafkaError {
        let ((topic, partition), brokers) = (&self.key, &self.consumers.connection.brokers);
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                let timeout = self.consumers.connection.timeout;
                let (first, end) = self
                    .client
                    .consumer
                    .fetch_watermarks(topic, *partition, timeout)
                    .unwrap_or((0, 0));
                KafkaError::OffsetGone {
                    topic: topic.clone(),
                    partition: *partition,
                    offset,
                    first,
                    end,
                    brokers: brokers.clone(),
                }
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                KafkaError::NoTopic {
                    topic: topic.clone(),
                    brokers: brokers.clone(),
                    others: Vec::new(),
                }
            }
            _ => self
                .consumers
                .error(&self.client, format!("reading {topic}-{partition}"), error),
        }
    }

    /// The record before this offset was taken.
    pub fn read(&mut self, next: i64) {
        if let Some(queue) = &mut self.queue {
            queue.next = Some(next);
            queue.fresh = false;
            queue.at_end = None;
            self.client.health().answered();
        }
    }

    /// How long the first record is worth waiting for. A bundle that is tried again must not end before it comes to the record that it
    /// failed for: with that it would count as good, and the record be tried for ever.
    pub fn patience(&self) -> Duration {
        match &self.queue {
            Some(queue) if queue.fresh => Duration::from_secs(2),
            _ => Duration::ZERO,
        }
    }

    /// All there is has been read.
    pub fn at_end(&mut self) {
        self.client.health().answered();
        if let Some(queue) = &mut self.queue {
            queue.fresh = false;
            queue.at_end.get_or_insert_with(Instant::now);
        }
    }

    /// For how long all there is has been read, if that was so when it was asked last.
    pub fn idle_for(&self) -> Option<Duration> {
        Some(self.queue.as_ref()?.at_end?.elapsed())
    }

    /// A record was taken from the queue and is not to be processed here.
    pub fn discard(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.next = None;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut queue) = self.queue.take() {
            queue.since = Instant::now();
            let mut partitions = self.client.partitions.lock();
            partitions.insert(self.key.clone(), Slot::Idle(queue));
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Message as _;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

    use super::*;

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    fn numbers(count: usize) -> (Cluster, Arc<Consumers>, PartitionKey) {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("numbers", 1, 1).unwrap();
        let connection = Connection::new(cluster.bootstrap_servers());
        let producer: BaseProducer = connection.config(&[]).create().unwrap();
        for n in 0..count {
            let value = n.to_string();
            let record = BaseRecord::<[u8], str>::to("numbers").payload(value.as_str());
            producer.send(record).unwrap();
        }
        producer.flush(Duration::from_secs(60)).unwrap();
        let consumers = Consumers::new(connection, None, Duration::from_secs(60));
        (cluster, Arc::new(consumers), ("numbers".to_owned(), 0))
    }

    /// The offset of the next record.
    fn next(lease: &mut Lease) -> i64 {
        let started = Instant::now();
        loop {
            if let Polled::Record(message) = lease.poll(Duration::from_millis(10)).unwrap() {
                let offset = message.offset();
                drop(message);
                lease.read(offset + 1);
                return offset;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "no record comes");
        }
    }

    #[test]
    fn a_partition_is_read_from_any_offset_again_and_again() {
        let (_cluster, consumers, key) = numbers(10);
        for start in [0, 3, 1, 9, 0, 0] {
            let mut lease = consumers.lease(&key, start).unwrap();
            assert_eq!(next(&mut lease), start);
        }
        // As it was left.
        let mut lease = consumers.lease(&key, 1).unwrap();
        assert_eq!((next(&mut lease), next(&mut lease)), (1, 2));
        lease.discard();
        drop(lease);
        let mut lease = consumers.lease(&key, 2).unwrap();
        assert_eq!(next(&mut lease), 2);
        assert_eq!(consumers.clients.lock().len(), 1);
    }

    #[test]
    fn the_last_record_is_read_again() {
        let (_cluster, consumers, key) = numbers(1);
        for _ in 0..3 {
            let mut lease = consumers.lease(&key, 0).unwrap();
            assert_eq!(next(&mut lease), 0);
        }
    }

    #[test]
    fn a_partition_that_was_forgotten_is_read_again() {
        let (_cluster, consumers, key) = numbers(10);
        assert_eq!(next(&mut consumers.lease(&key, 0).unwrap()), 0);
        let client = consumers.any().unwrap();
        for start in [1, 5, 0] {
            client.forget_idle(Duration::ZERO);
            assert!(client.partitions.lock().is_empty());
            assert_eq!(next(&mut consumers.lease(&key, start).unwrap()), start);
        }
    }

    #[test]
    fn two_parts_of_a_partition_are_read_at_a_time() {
        let (_cluster, consumers, key) = numbers(10);
        let (mut first, mut second) = (
            consumers.lease(&key, 0).unwrap(),
            consumers.lease(&key, 5).unwrap(),
        );
        assert_eq!((next(&mut first), next(&mut second)), (0, 5));
        assert_eq!((next(&mut first), next(&mut second)), (1, 6));
    }
}
