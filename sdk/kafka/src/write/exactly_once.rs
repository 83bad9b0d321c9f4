//! Writing each record once, by transactions.
//!
//! ```text
//! records ── Shard ── Number ── Commit
//! ```
//!
//! `Number` gives the records of a shard the numbers 0, 1, 2… by state. These numbers are durable before `Commit` gets the records, which
//! asks for stable input. `Commit` writes those of a bundle in a transaction for each shard, and with them, in the same transaction, the
//! number after the last as the offset of a group. A bundle that is tried again after its transaction was committed finds the number
//! there, and writes nothing twice. Who was the writer stands beside the number: that of another job counts for nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use purlin::metrics::Counter;
use purlin::prelude::*;
use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::producer::{Deliveries, Producer};
use crate::connection::Connection;
use crate::error::KafkaError;
use crate::record::KafkaMessage;

/// A record of a shard, with its number and what names who counts.
pub(super) type Numbered = ((String, i64), KafkaMessage);

/// Gives the records of a shard numbers.
#[derive(Clone, Debug)]
pub(super) struct Number {
    /// What names this count, and the next number.
    pub count: ValueState<(String, i64)>,
}

impl StatefulDoFn for Number {
    type Key = i64;
    type Value = KafkaMessage;
    type Out = (i64, Numbered);
    purlin::fields!(count);

    fn process(
        &mut self,
        shard: i64,
        message: KafkaMessage,
        ctx: &mut KeyedContext<'_, Self::Out>,
    ) -> DoFnResult {
        let (writer, number) = self.count.read(ctx)?.unwrap_or_else(|| (random_name(), 0));
        self.count.write(ctx, &(writer.clone(), number + 1))?;
        ctx.output((shard, ((writer, number), message)));
        Ok(())
    }
}

/// A name that no other has.
fn random_name() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    // Each has a key of the system's random numbers.
    format!(
        "{:016x}{:016x}",
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1)
    )
}

/// Writes the records of a bundle in a transaction for each shard.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub shards: Arc<Shards>,
    pub topic: String,
    /// The number that is due, and how many later ones are kept.
    pub due: ValueState<(i64, i64)>,
    /// Records that came before their turn.
    pub early: BagState<Numbered>,
    pub open: HashMap<i64, Transaction>,
    pub records_written: Counter,
    pub bytes_written: Counter,
}

impl StatefulDoFn for Commit {
    type Key = i64;
    type Value = Numbered;
    type Out = ();
    const REQUIRES_STABLE_INPUT: bool = true;
    purlin::fields!(due, early);

    fn start_bundle(&mut self) -> DoFnResult {
        // Of a bundle that failed.
        self.open.clear();
        Ok(())
    }

    fn process(&mut self, shard: i64, numbered: Numbered, ctx: &mut KeyedContext<'_, ()>) -> DoFnResult {
        let (due, kept) = self.due.read(ctx)?.unwrap_or_default();
        let number = numbered.0.1;
        if number > due {
            self.early.add(ctx, &numbered)?;
            self.due.write(ctx, &(due, kept + 1))?;
            return Ok(());
        }
        self.write(shard, &numbered)?;
        let mut next = due + 1;
        if kept == 0 {
            self.due.write(ctx, &(next, 0))?;
            return Ok(());
        }
        let mut early = self.early.read(ctx)?;
        early.sort_by_key(|((_, number), _)| *number);
        let turn = early
            .iter()
            .zip(next..)
            .take_while(|(((_, number), _), due)| number == due)
            .count();
        for numbered in early.drain(..turn) {
            self.write(shard, &numbered)?;
            next += 1;
        }
        if turn > 0 {
            self.early.clear(ctx)?;
            early
                .iter()
                .try_for_each(|numbered| self.early.add(ctx, numbered))?;
        }
        self.due
            .write(ctx, &(next, i64::try_from(early.len()).unwrap_or(i64::MAX)))?;
        Ok(())
    }

    fn finish_bundle(&mut self, _ctx: &mut FinishContext<'_, ()>) -> DoFnResult {
        for (shard, transaction) in std::mem::take(&mut self.open) {
            if let Err(error) = self.shards.commit(shard, transaction, &self.topic) {
                // What became of it is asked anew.
                self.shards.forget(shard);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl Commit {
    fn write(&mut self, shard: i64, ((writer, number), message): &Numbered) -> DoFnResult {
        let transaction = match self.open.entry(shard) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Transaction::new(self.shards.get(shard, writer, &self.topic)?))
            }
        };
        let topic = message.topic.as_deref().unwrap_or(&self.topic);
        match transaction.write(*number, message, topic) {
            Ok(false) => {}
            Ok(true) => {
                self.records_written.inc(1);
                self.bytes_written.inc(super::length(message));
            }
            Err(error) => {
                self.open.remove(&shard);
                self.shards.forget(shard);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// The producers of the shards that this process writes.
#[derive(Debug)]
pub(super) struct Shards {
    pub connection: Connection,
    /// The group that keeps the numbers, and the first part of the names of transactions.
    pub id: String,
    pub count: i64,
    pub known: Mutex<HashMap<i64, Arc<Shard>>>,
}

/// The producer of a shard.
pub(super) struct Shard {
    producer: Producer,
    group: BaseConsumer<DefaultConsumerContext>,
    writer: String,
    /// Records before this number are written.
    committed: Mutex<i64>,
    /// A transaction has begun and not ended.
    open: AtomicBool,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl Shards {
    fn get(&self, shard: i64, writer: &str, topic: &str) -> Result<Arc<Shard>, KafkaError> {
        if let Some(known) = self.known.lock().get(&shard)
            && known.writer == writer
            // Else a bundle failed on its way: what it began is ended by the next producer of the name.
            && !known.open.load(Ordering::Acquire)
        {
            return Ok(Arc::clone(known));
        }
        self.forget(shard);
        let timeout = self.connection.timeout;
        let name = format!("{}-{shard}", self.id);
        let producer = Producer::new(
            &self.connection,
            // A record is given up before the transaction is.
            &[("transactional.id", &name), ("message.timeout.ms", "45000")],
        )?;
        producer.find(topic)?;
        // Ends what another producer of this name has begun, and shuts it out.
        let begun = producer.inner.init_transactions(timeout);
        begun.map_err(|error| producer.transaction_error("beginning", &error))?;
        let config = self
            .connection
            .config(&[("group.id", &self.id), ("enable.auto.commit", "false")]);
        let failed = |action: &str, error: &ClientError| self.connection.error(action, error, None);
        let group: BaseConsumer = config
            .create()
            .map_err(|error| failed("making a consumer", &error))?;
        let metadata = group.fetch_metadata(Some(topic), timeout);
        let metadata = metadata.map_err(|error| failed("asking for its partitions", &error))?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        if i64::try_from(partitions).is_ok_and(|partitions| partitions < self.count) {
            return Err(KafkaError::Other {
                brokers: self.connection.brokers.clone(),
                action: format!("writing topic \"{topic}\" exactly once"),
                reason: format!(
                    "there are {} shards and {partitions} partitions; there can be no more shards than partitions",
                    self.count
                ),
            });
        }
        let marker = marker(topic, shard, Offset::Invalid, "")
            .map_err(|error| failed("naming a partition", &error))?;
        let marker = group.committed_offsets(marker, timeout);
        let marker = marker.map_err(|error| failed("asking what is written", &error))?;
        let committed = marker
            .elements()
            .first()
            .and_then(|marker| match marker.offset() {
                Offset::Offset(number) if marker.metadata() == writer => Some(number),
                _ => None,
            });
        let made = Arc::new(Shard {
            producer,
            group,
            writer: writer.to_owned(),
            committed: Mutex::new(committed.unwrap_or(0)),
            open: AtomicBool::new(false),
        });
        self.known.lock().insert(shard, Arc::clone(&made));
        Ok(made)
    }

    fn forget(&self, shard: i64) {
        self.known.lock().remove(&shard);
    }

    fn commit(&self, shard: i64, transaction: Transaction, topic: &str) -> Result<(), KafkaError> {
        let Some(last) = transaction.last else {
            return Ok(());
        };
        let Transaction { of, deliveries, .. } = transaction;
        let result = of.finish(shard, last, topic, &deliveries, self.connection.timeout);
        if result.is_err() {
            // It may be committed already, or the broker be gone: the next producer of the name sees to it.
            let _ = of.producer.inner.abort_transaction(Duration::from_secs(5));
        }
        result
    }
}

impl Shard {
    fn finish(
        &self,
        shard: i64,
        last: i64,
        topic: &str,
        deliveries: &Deliveries,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let producer = &self.producer;
        producer.finish(deliveries)?;
        let failed = |step: &'static str| move |error: ClientError| producer.transaction_error(step, &error);
        let marker =
            marker(topic, shard, Offset::Offset(last + 1), &self.writer).map_err(failed("marking"))?;
        let Some(group) = self.group.group_metadata() else {
            return Err(failed("marking")(ClientError::Canceled));
        };
        producer
            .inner
            .send_offsets_to_transaction(&marker, &group, timeout)
            .map_err(failed("marking"))?;
        producer
            .inner
            .commit_transaction(timeout)
            .map_err(failed("committing"))?;
        self.open.store(false, Ordering::Release);
        *self.committed.lock() = last + 1;
        Ok(())
    }
}

/// The offset that stands for the number of a shard: that of the partition with the shard's number.
fn marker(topic: &str, shard: i64, number: Offset, writer: &str) -> Result<TopicPartitionList, ClientError> {
    let mut list = TopicPartitionList::new();
    let partition = i32::try_from(shard).unwrap_or(i32::MAX);
    let mut element = list.add_partition(topic, partition);
    element.set_offset(number)?;
    element.set_metadata(writer);
    Ok(list)
}

/// What a bundle writes of a shard.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    of: Arc<Shard>,
    deliveries: Arc<Deliveries>,
    /// The last number that it has.
    last: Option<i64>,
}

impl Transaction {
    fn new(of: Arc<Shard>) -> Transaction {
        Transaction {
            of,
            deliveries: Arc::default(),
            last: None,
        }
    }

    /// False: it is written already.
    fn write(&mut self, number: i64, message: &KafkaMessage, topic: &str) -> Result<bool, KafkaError> {
        if number < *self.of.committed.lock() {
            return Ok(false);
        }
        let producer = &self.of.producer;
        if self.last.is_none() {
            let begun = producer.inner.begin_transaction();
            begun.map_err(|error| producer.transaction_error("beginning", &error))?;
            self.of.open.store(true, Ordering::Release);
        }
        self.last = Some(number);
        producer.send(message, topic, &self.deliveries)?;
        Ok(true)
    }
}
