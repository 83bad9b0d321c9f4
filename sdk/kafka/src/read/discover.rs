//! Finds the partitions that are to be read, once or again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use purlin::coders::{CoderSpec, DecodeError};
use purlin::prelude::*;
use purlin::sources::now;
use purlin::splittable::Progress;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use regex::Regex;

use crate::consumer::{Client, Consumers};
use crate::error::{KafkaError, described};

/// What is to be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub topics: Vec<String>,
    pub partitions: Vec<(String, i32)>,
    pub pattern: Option<Pattern>,
}

/// Names of topics that match a regular expression as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    whole: Regex,
}

impl Pattern {
    pub fn new(text: &str) -> Result<Pattern, regex::Error> {
        // As it stands first, for an error that shows what was given.
        Regex::new(text)?;
        Ok(Pattern {
            text: text.to_owned(),
            whole: Regex::new(&format!("^(?:{text})$"))?,
        })
    }

    fn matches(&self, topic: &str) -> bool {
        // Topics of the broker's own begin so.
        !topic.starts_with("__") && self.whole.is_match(topic)
    }
}

/// A partition that was found.
#[derive(Clone, Debug, PartialEq, Eq, Schema)]
pub(crate) struct Found {
    pub topic: String,
    pub partition: i32,
    /// It was not there when the reading began: all of its records are new.
    pub new: bool,
}

/// The partitions that were found, and how often it was looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    partitions: Vec<(String, i32)>,
    looks: i64,
    /// Nothing more is looked for.
    done: bool,
}

impl Element for Known {
    fn coder() -> CoderSpec {
        <(Vec<(String, i32)>, (i64, bool))>::coder()
    }
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        (self.partitions.clone(), (self.looks, self.done)).encode(out, nested);
    }
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (partitions, (looks, done)) = <(Vec<(String, i32)>, (i64, bool))>::decode(input, nested)?;
        Ok(Known {
            partitions,
            looks,
            done,
        })
    }
}

#[derive(Debug)]
pub(crate) struct KnownTracker(Known);

impl RestrictionTracker for KnownTracker {
    type Restriction = Known;
    type Position = Vec<(String, i32)>;

    fn size(known: &Known) -> f64 {
        if known.done { 0.0 } else { 1.0 }
    }

    fn restriction(&self) -> Known {
        self.0.clone()
    }

    /// Claims partitions that were found now.
    fn try_claim(&mut self, more: Vec<(String, i32)>) -> bool {
        if self.0.done {
            return false;
        }
        self.0.partitions.extend(more);
        self.0.looks += 1;
        true
    }

    fn try_split(&mut self, _fraction: f64) -> Option<Known> {
        if self.0.done {
            return None;
        }
        let residual = self.0.clone();
        self.0.done = true;
        Some(residual)
    }

    fn progress(&self) -> Progress {
        Progress {
            completed: 0.0,
            remaining: Self::size(&self.0),
        }
    }

    fn check_done(&self) -> Result<(), BoxError> {
        if self.0.done {
            Ok(())
        } else {
            Err("there may be more partitions".into())
        }
    }
}

/// Emits each partition once.
#[derive(Clone, Debug)]
pub(crate) struct Discover<const FOR_EVER: bool> {
    pub consumers: Arc<Consumers>,
    pub wanted: Wanted,
    /// None: it is looked once.
    pub every: Option<Duration>,
}

impl<const FOR_EVER: bool> SplittableDoFn for Discover<FOR_EVER> {
    type In = Vec<u8>;
    type Out = Found;
    type Tracker = KnownTracker;
    type Watermark = ManualWatermark;
    const UNBOUNDED: bool = FOR_EVER;

    fn initial_restriction(&self, _: &Vec<u8>) -> Result<Known, BoxError> {
        Ok(Known::default())
    }

    fn tracker(&self, _: &Vec<u8>, known: Known) -> KnownTracker {
        KnownTracker(known)
    }

    fn process(&mut self, _: &Vec<u8>, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        let known = ctx.restriction();
        if known.done {
            return Ok(Continuation::Done);
        }
        let client = self.consumers.any()?;
        let found = match self.find(&client) {
            Ok(found) => found,
            // What is read goes on being read.
            Err(error) if known.looks > 0 => {
                tracing::warn!("looking for new partitions: {error}");
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let more: Vec<(String, i32)> = found
            .into_iter()
            .filter(|key| !known.partitions.contains(key))
            .collect();
        let at = now();
        if !ctx.try_claim(more.clone()) {
            return Ok(Continuation::Done);
        }
        for (topic, partition) in more {
            let new = known.looks > 0;
            ctx.output(Found {
                topic,
                partition,
                new,
            });
        }
        match self.every {
            Some(every) => {
                // Partitions that are read have watermarks of their own.
                ctx.watermark(|watermark| watermark.set(at));
                Ok(Continuation::Resume(every))
            }
            None => {
                ctx.tracker(|tracker| tracker.0.done = true);
                Ok(Continuation::Done)
            }
        }
    }
}

impl<const FOR_EVER: bool> Discover<FOR_EVER> {
    fn find(&self, client: &Client) -> Result<Vec<(String, i32)>, KafkaError> {
        let brokers = &self.consumers.connection.brokers;
        let all = self.topics(client)?;
        let no_topic = |topic: &String| KafkaError::NoTopic {
            topic: topic.clone(),
            brokers: brokers.clone(),
            others: nearest(topic, all.keys()),
        };
        let mut found = Vec::new();
        for topic in &self.wanted.topics {
            let count = all.get(topic).ok_or_else(|| no_topic(topic))?;
            found.extend((0..*count).map(|partition| (topic.clone(), partition)));
        }
        for (topic, partition) in &self.wanted.partitions {
            let count = all.get(topic).ok_or_else(|| no_topic(topic))?;
            if !(0..*count).contains(partition) {
                return Err(KafkaError::NoPartition {
                    topic: topic.clone(),
                    partition: *partition,
                    count: usize::try_from(*count).unwrap_or_default(),
                    brokers: brokers.clone(),
                });
            }
            found.push((topic.clone(), *partition));
        }
        if let Some(pattern) = &self.wanted.pattern {
            let matching = all.iter().filter(|(topic, _)| pattern.matches(topic));
            for (topic, count) in matching {
                found.extend((0..*count).map(|partition| (topic.clone(), partition)));
            }
            if found.is_empty() && self.every.is_none() {
                return Err(KafkaError::NoMatch {
                    pattern: pattern.text.clone(),
                    brokers: brokers.clone(),
                });
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// All topics, and how many partitions each has.
    fn topics(&self, client: &Client) -> Result<BTreeMap<String, i32>, KafkaError> {
        let metadata = self.consumers.ask(client, "asking for its topics", |wait| {
            client.consumer.fetch_metadata(None, wait)
        })?;
        let mut topics = BTreeMap::new();
        for topic in metadata.topics() {
            if let Some(error) = topic.error().map(Code::from)
                && self.wanted.topics.iter().any(|wanted| wanted == topic.name())
            {
                return Err(KafkaError::NotAllowed {
                    brokers: self.consumers.connection.brokers.clone(),
                    action: format!("read topic \"{}\"", topic.name()),
                    reason: described(error),
                });
            }
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            topics.insert(topic.name().to_owned(), count);
        }
        Ok(topics)
    }
}

/// Up to three names that are most like it.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut near: Vec<(f64, &String)> = names
        .filter(|name| !name.starts_with("__"))
        .map(|name| {
            (
                strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.into_iter().take(3).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        let matches = |pattern: &str, topic: &str| Pattern::new(pattern).unwrap().matches(topic);
        assert!(matches("wine-.*", "wine-red"));
        assert!(matches("wine|wine-red", "wine-red"));
        assert!(!matches("wine", "wine-red"));
        assert!(!matches("red", "wine-red"));
        assert!(!matches(".*", "__consumer_offsets"));
    }

    #[test]
    fn names_that_are_like_it_are_told_best_first() {
        let names = ["orders", "order-lines", "wines", "__consumer_offsets"].map(str::to_owned);
        assert_eq!(nearest("order", names.iter()), ["orders", "order-lines"]);
        assert!(nearest("xyz", names.iter()).is_empty());
    }
}
