//! Groups pairs by key: a loop over a hash map of vectors, against a pipeline in this process.
//!
//! `PAIRS=10000000`, `KEYS=100000` and `ROUNDS=5` change the defaults, `ONLY=NAME` runs one of the programs, for a
//! profiler. With `--features peers` the crate ironbeam takes part.

use std::collections::HashMap;
use std::sync::Mutex;

use purlin::prelude::*;
use purlin_benches::{Numbers, Program, compare, setting};

/// The pairs are made in so many parts.
const PARTS: u64 = 64;

#[derive(Clone, Copy)]
struct Pairs {
    pairs: u64,
    keys: u64,
}

impl Pairs {
    fn part(self, part: u64) -> impl Iterator<Item = (u64, u64)> {
        let count = self.pairs * (part + 1) / PARTS - self.pairs * part / PARTS;
        let mut numbers = Numbers(part << 32);
        (0..count).map(move |_| (numbers.draw() % self.keys, numbers.draw() >> 40))
    }

    fn all(self) -> impl Iterator<Item = (u64, u64)> {
        (0..PARTS).flat_map(move |part| self.part(part))
    }
}

/// What is found: the number of groups, and a sum over groups and values that tells when a value is in a wrong group.
type Found = (i64, i64);

fn weigh(key: u64, values: &[u64]) -> i64 {
    let sum: u64 = values.iter().sum();
    ((sum & 0xffff_ffff) * (key % 1000 + 1) + values.len() as u64) as i64
}

fn by_hand(pairs: Pairs) -> Found {
    let mut groups: HashMap<u64, Vec<u64>> = HashMap::new();
    for (key, value) in pairs.all() {
        groups.entry(key).or_default().push(value);
    }
    let weights = groups.iter().map(|(key, values)| weigh(*key, values));
    (groups.len() as i64, weights.sum())
}

fn by_pipeline(pairs: Pairs) -> Result<Found, RunError> {
    let (groups, weight) = (
        Metrics::counter("group", "groups"),
        Metrics::counter("group", "weight"),
    );
    let p = Pipeline::new();
    p.apply(Create::new(0..PARTS))
        .reshuffle("Spread")
        .flat_map("Pair", move |part: u64| pairs.part(part))
        .group_by_key("Group")
        .map("Weigh", move |(key, values): (u64, Vec<u64>)| {
            groups.inc(1);
            weight.inc(weigh(key, &values));
        });
    let result = p.run(&PipelineOptions::default())?;
    let found = |name: &str| result.metrics().counter("group", name);
    Ok((found("groups"), found("weight")))
}

#[cfg(feature = "peers")]
fn by_ironbeam(pairs: Pairs, parallel: bool) -> Found {
    let p = ironbeam::Pipeline::default();
    let weights = ironbeam::from_vec(&p, pairs.all().collect::<Vec<_>>())
        .group_by_key()
        .map(|(key, values): &(u64, Vec<u64>)| weigh(*key, values));
    let weights = match parallel {
        true => weights.collect_par(None, None),
        false => weights.collect_seq(),
    };
    let weights = weights.expect("ironbeam runs");
    (weights.len() as i64, weights.into_iter().sum())
}

fn main() {
    let pairs = Pairs {
        pairs: setting("PAIRS", 10_000_000),
        keys: setting("KEYS", 100_000),
    };
    let expected = Mutex::new(None);
    let check = |found: Found| {
        let mut expected = expected.lock().expect("no check failed");
        assert_eq!(*expected.get_or_insert(found), found, "groups and their weight");
    };
    #[allow(unused_mut)]
    let mut programs: Vec<Program<'_>> = vec![
        ("loop, 1 thread", Box::new(|| check(by_hand(pairs)))),
        (
            "pipeline",
            Box::new(|| check(by_pipeline(pairs).expect("the pipeline runs"))),
        ),
    ];
    #[cfg(feature = "peers")]
    programs.extend([
        (
            "ironbeam, sequential",
            Box::new(|| check(by_ironbeam(pairs, false))) as Box<dyn FnMut()>,
        ),
        ("ironbeam, parallel", Box::new(|| check(by_ironbeam(pairs, true)))),
    ]);
    compare(
        &format!("{} pairs grouped by {} keys", pairs.pairs, pairs.keys),
        programs,
    );
}
