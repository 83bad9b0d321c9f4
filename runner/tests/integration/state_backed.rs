//! Results of a GroupByKey that the worker fetches in pages, as often as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Builder, Factory, Functions};
use parking_lot::Mutex;
use purlin_model::{Coder, wire};
use purlin_proto::fn_execution::state_key;
use purlin_proto::urns;
use purlin_runner::job::{Job, JobSettings, JobState};
use purlin_runner::translate::{PlanOptions, plan};

const VALUES: usize = 3_000;

/// Start → Make → Group → Use: one key with many values and one with few.
fn builder(capable: bool) -> Builder {
    let mut builder = Builder::new();
    if capable {
        let environment = builder.components().environments.get_mut("env").unwrap();
        environment
            .capabilities
            .push(urns::coders::STATE_BACKED_ITERABLE.to_owned());
    }
    builder.impulse("start");
    builder.collection("pairs", "kv");
    builder.collection("grouped", "grouped");
    builder.par_do("Make", "start", &["pairs"]);
    builder.group("Group", "pairs", "grouped");
    builder.par_do("Use", "grouped", &[]);
    builder
}

fn make(functions: &Functions) {
    functions.set("Make", |_, context| {
        for number in 0..VALUES {
            let mut pair = Vec::new();
            wire::write_bytes(
                if number < VALUES - 2 { b"many" } else { b"few" },
                &mut pair,
                true,
            );
            wire::write_bytes(&[number as u8; 100], &mut pair, true);
            context.emit(pair);
        }
        Ok(())
    });
}

async fn run(capable: bool, functions: Functions) -> (JobState, Option<String>) {
    let options = PlanOptions {
        state_backed_iterable_bytes: 10_000,
        ..PlanOptions::default()
    };
    let plan = plan(&builder(capable).pipeline, &options).unwrap();
    let factory = Factory {
        functions,
        ..Factory::default()
    };
    let job = Job::start(plan, Arc::new(factory), JobSettings::default());
    (job.wait().await, job.error())
}

#[tokio::test]
async fn a_worker_fetches_what_it_iterates_over() {
    for capable in [true, false] {
        let functions = Functions::default();
        make(&functions);
        let read = Arc::new(Mutex::new(Vec::new()));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (seen, count) = (read.clone(), fetched.clone());
        functions.set("Use", move |element, context| {
            let coder = Coder::kv(Coder::Bytes, Coder::StateBackedIterable(Box::new(Coder::Bytes)));
            let (key, values) = coder.split_kv(element).unwrap();
            for _ in 0..2 {
                let mut sent = coder.as_kv().unwrap().1.iterable_elements(values).unwrap();
                let mut all: Vec<u8> = sent.by_ref().flat_map(|value| value.unwrap().to_vec()).collect();
                if let Some(token) = sent.state_token() {
                    assert!(element.len() < 25_000, "{} bytes were sent", element.len());
                    let key = bytes::Bytes::copy_from_slice(token);
                    all.extend(context.get(state_key::Type::Runner(state_key::Runner { key })));
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let mut rest = &all[..];
                let mut number = 0;
                while !rest.is_empty() {
                    assert_eq!(wire::read_bytes(&mut rest, true).unwrap().len(), 100);
                    number += 1;
                }
                seen.lock().push((key[1..].to_vec(), number));
            }
            Ok(())
        });
        assert_eq!(run(capable, functions).await, (JobState::Done, None));
        let mut read = std::mem::take(&mut *read.lock());
        read.sort();
        let (few, many) = (b"few".to_vec(), b"many".to_vec());
        let expected = [
            (few.clone(), 2),
            (few, 2),
            (many.clone(), VALUES - 2),
            (many, VALUES - 2),
        ];
        assert_eq!(read, expected);
        assert_eq!(fetched.load(Ordering::SeqCst), if capable { 2 } else { 0 });
    }
}
