//! Reads the records of partitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use purlin::metrics::{Counter, Gauge};
use purlin::prelude::*;
use purlin::sources::now;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::Start;
use super::discover::Found;
use super::event_time::EventTime;
use super::range::{NO_END, PartitionRange, PartitionTracker};
use crate::consumer::{Client, Consumers, Lease, PartitionKey, Polled};
use crate::error::KafkaError;
use crate::record::{KafkaRecord, bytes};

/// So many records make a bundle, at most.
const RECORDS: usize = 10_000;
/// A bundle takes no longer, so that records which are there get on.
const BUNDLE: Duration = Duration::from_millis(50);
/// Commits of offsets that come later than this are not needed: those of later bundles have come.
const EXPIRY: Duration = Duration::from_secs(600);

/// Reads a partition from where the restriction begins.
#[derive(Clone, Debug)]
pub(crate) struct ReadRecords<const FOR_EVER: bool> {
    pub consumers: Arc<Consumers>,
    pub start: Start,
    pub times: EventTime,
    pub poll: Duration,
    pub records_read: Counter,
    pub bytes_read: Counter,
}

impl<const FOR_EVER: bool> SplittableDoFn for ReadRecords<FOR_EVER> {
    type In = Found;
    type Out = KafkaRecord;
    type Tracker = PartitionTracker;
    type Watermark = ManualWatermark;
    const UNBOUNDED: bool = FOR_EVER;
    const FINALIZES_BUNDLES: bool = true;

    fn initial_restriction(&self, found: &Found) -> Result<PartitionRange, BoxError> {
        let client = self.consumers.any()?;
        let key = (found.topic.clone(), found.partition);
        let action = format!("asking for the offsets of {}-{}", key.0, key.1);
        let (first, end) = self.consumers.ask(&client, &action, |wait| {
            client.consumer.fetch_watermarks(&key.0, key.1, wait)
        })?;
        let start = if found.new {
            first
        } else {
            self.first_offset(&client, &key, first, end)?
        };
        if start < first || start > end {
            return Err(KafkaError::OffsetGone {
                topic: key.0,
                partition: key.1,
                offset: start,
                first,
                end,
                brokers: self.consumers.connection.brokers.clone(),
            }
            .into());
        }
        Ok(PartitionRange {
            start,
            end: if FOR_EVER { NO_END } else { end },
            known_end: end,
        })
    }

    fn tracker(&self, _: &Found, range: PartitionRange) -> PartitionTracker {
        PartitionTracker::new(range)
    }

    fn process(&mut self, found: &Found, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        let range = ctx.restriction();
        let key = (found.topic.clone(), found.partition);
        let lag = Metrics::gauge("kafka", &format!("lag {}-{}", key.0, key.1));
        let mut lease = self.consumers.lease(&key, range.start)?;
        let mut bundle = Bundle {
            next: range.start,
            records: 0,
            bytes: 0,
            latest: None,
        };
        let continuation = self.read(&key, &mut lease, &mut bundle, ctx)?;
        if bundle.records > 0 {
            self.records_read
                .inc(i64::try_from(bundle.records).unwrap_or(i64::MAX));
            self.bytes_read
                .inc(i64::try_from(bundle.bytes).unwrap_or(i64::MAX));
            self.commit_later(&key, &lease, bundle.next, ctx)?;
        }
        tell_lag(&key, &lease, bundle.next, lag, ctx);
        let watermark = match bundle.latest {
            Some(latest) => Some(self.times.behind(latest)),
            None => lease
                .idle_for()
                .and_then(|idle_for| self.times.idle(now(), idle_for)),
        };
        if let Some(watermark) = watermark {
            ctx.watermark(|estimator| estimator.set(watermark));
        }
        Ok(continuation)
    }
}

/// What a bundle has read.
struct Bundle {
    /// The offset behind the last record.
    next: i64,
    records: usize,
    bytes: usize,
    /// The latest event time.
    latest: Option<Timestamp>,
}

impl<const FOR_EVER: bool> ReadRecords<FOR_EVER> {
    fn read(
        &self,
        key: &PartitionKey,
        lease: &mut Lease,
        bundle: &mut Bundle,
        ctx: &mut SplitContext<'_, Self>,
    ) -> Result<Continuation, BoxError> {
        let started = Instant::now();
        loop {
            let record = match lease.poll(lease.patience())? {
                Polled::Record(message) => {
                    if !ctx.try_claim(message.offset()) {
                        drop(message);
                        // Somebody else reads it again.
                        lease.discard();
                        return Ok(Continuation::Done);
                    }
                    KafkaRecord::of(&message)
                }
                Polled::End => {
                    lease.at_end();
                    if !FOR_EVER {
                        ctx.tracker(PartitionTracker::finish);
                        return Ok(Continuation::Done);
                    }
                    return Ok(Continuation::Resume(self.poll));
                }
                Polled::Nothing => return Ok(Continuation::Resume(self.poll)),
            };
            bundle.next = record.offset + 1;
            lease.read(bundle.next);
            let timestamp = self
                .times
                .of_record(&record)
                .map_err(|error| KafkaError::EventTime {
                    topic: key.0.clone(),
                    partition: key.1,
                    offset: record.offset,
                    brokers: self.consumers.connection.brokers.clone(),
                    reason: error.to_string(),
                })?;
            bundle.records += 1;
            bundle.bytes += bytes(record.key.as_ref(), record.value.as_ref());
            bundle.latest = bundle.latest.max(Some(timestamp));
            ctx.output_with_timestamp(record, timestamp);
            if bundle.records == RECORDS || (bundle.records.is_multiple_of(64) && started.elapsed() > BUNDLE)
            {
                return Ok(Continuation::Resume(Duration::ZERO));
            }
        }
    }

    fn first_offset(
        &self,
        client: &Client,
        (topic, partition): &PartitionKey,
        first: i64,
        end: i64,
    ) -> Result<i64, KafkaError> {
        let list = |offset: Offset| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, *partition, offset)?;
            Ok::<_, rdkafka::error::KafkaError>(list)
        };
        let told = |list: &TopicPartitionList| match list.find_partition(topic, *partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        match &self.start {
            Start::Earliest => Ok(first),
            Start::Latest => Ok(end),
            Start::Time(time) => {
                let action = format!("asking for the offset of a time in {topic}-{partition}");
                let found = self.consumers.ask(client, &action, |wait| {
                    client
                        .consumer
                        .offsets_for_times(list(Offset::Offset(time.millis()))?, wait)
                })?;
                // No record is as late.
                Ok(told(&found).unwrap_or(end))
            }
            Start::Group { otherwise_latest } => {
                let action = format!("asking for the offset of the group in {topic}-{partition}");
                let found = self.consumers.ask(client, &action, |wait| {
                    client.consumer.committed_offsets(list(Offset::Invalid)?, wait)
                })?;
                let otherwise = if *otherwise_latest { end } else { first };
                Ok(told(&found).unwrap_or(otherwise))
            }
            Start::Offsets(offsets) => {
                let given = offsets
                    .iter()
                    .find(|(name, number, _)| name == topic && number == partition);
                Ok(given.map_or(first, |(_, _, offset)| *offset))
            }
        }
    }

    /// Tells the group what was processed, once what came of it is durable.
    fn commit_later(
        &self,
        key: &PartitionKey,
        lease: &Lease,
        next: i64,
        ctx: &mut SplitContext<'_, Self>,
    ) -> DoFnResult {
        if self.consumers.group.is_none() {
            return Ok(());
        }
        let (consumers, client, key) = (
            Arc::clone(&self.consumers),
            Arc::clone(&lease.client),
            key.clone(),
        );
        ctx.after_commit(EXPIRY, move || {
            let committed = client.commit(&key, next);
            committed.map_err(|error| {
                consumers.error(
                    &client,
                    format!("committing the offset of {}-{}", key.0, key.1),
                    &error,
                )
            })?;
            Ok(())
        })
    }
}

/// Tells how many records are left, and the tracker how many there are.
fn tell_lag<const FOR_EVER: bool>(
    (topic, partition): &PartitionKey,
    lease: &Lease,
    next: i64,
    lag: Gauge,
    ctx: &mut SplitContext<'_, ReadRecords<FOR_EVER>>,
) {
    if let Some(end) = lease.client.health().end(topic, *partition) {
        ctx.tracker(|tracker| tracker.grow(end));
        lag.set(end.saturating_sub(next).max(0));
    }
}
