//! Groups of which the runner keeps a part, in a stage of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use bytes::Bytes;
use purlin_model::{CoderSpec, DecodeError, Element, Header, WindowCoder, urns, wire};
use purlin_proto::fn_execution::{StateGetResponse, StateRequest, StateResponse, state_response};
use purlin_runner::translate::{PlanOptions, plan};
use purlin_runner::worker::StateHandler;

use super::executor::{BundleStart, Executor};
use crate::prelude::*;
use crate::stage::failure::Failure;

static ALIVE: AtomicI64 = AtomicI64::new(0);

/// A number that is counted as long as it lives.
#[derive(Debug, PartialEq)]
struct Counted(i64);

impl Counted {
    fn new(number: i64) -> Counted {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Counted(number)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Counted::new(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Element for Counted {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::VARINT)
    }
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.0.encode(out, nested);
    }
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        i64::decode(input, nested).map(Counted::new)
    }
}

/// What the runner keeps: so many pages of `PAGE` values each, from `HEAD` on.
struct Rest {
    pages: i64,
    asked: AtomicUsize,
    /// The page that cannot be read.
    lost: Option<i64>,
}

const HEAD: i64 = 10;
const PAGE: i64 = 1000;

fn values(numbers: std::ops::Range<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    numbers.for_each(|number| number.encode(&mut out, true));
    out
}

impl StateHandler for Rest {
    fn handle(&self, request: StateRequest) -> StateResponse {
        use purlin_proto::fn_execution::{state_key, state_request};
        self.asked.fetch_add(1, Ordering::SeqCst);
        let key = request.state_key.and_then(|key| key.r#type);
        let (Some(state_key::Type::Runner(key)), Some(state_request::Request::Get(get))) =
            (key, request.request)
        else {
            panic!("that is no read of an iterable")
        };
        assert_eq!(&key.key[..], b"rest");
        let page = get.continuation_token.first().map_or(0, |page| i64::from(*page));
        let start = HEAD + page * PAGE;
        let response = state_response::Response::Get(StateGetResponse {
            continuation_token: match page + 1 < self.pages {
                true => vec![page as u8 + 1].into(),
                false => Bytes::new(),
            },
            data: values(start..start + PAGE).into(),
        });
        let lost = self.lost == Some(page);
        StateResponse {
            id: request.id,
            error: if lost {
                format!("page {page} is lost")
            } else {
                String::new()
            },
            response: (!lost).then_some(response),
        }
    }
}

/// A key and its values, of which the runner keeps those behind the first.
fn group() -> Bytes {
    let mut out = Vec::new();
    Header::IMPULSE.encode(&mut out);
    "k".to_owned().encode(&mut out, true);
    out.extend_from_slice(&(-1i32).to_be_bytes());
    wire::write_varint(HEAD as u64, &mut out);
    out.extend(values(0..HEAD));
    wire::write_varint(-1i64 as u64, &mut out);
    wire::write_bytes(b"rest", &mut out, true);
    out.into()
}

fn grouped() -> (Pipeline, PCollection<(String, i64)>) {
    let p = Pipeline::new();
    let pairs = p.apply(Create::new([("k".to_owned(), 1i64)]));
    (p, pairs)
}

/// Gives the stage with the transform `step` the group: its output, without headers, and how often it asked.
fn run(p: &Pipeline, step: &str, pages: i64, lost: Option<i64>) -> Result<(Vec<u8>, usize), Failure> {
    let built = p.build().unwrap();
    let plan = plan(&built.proto, &PlanOptions::default()).unwrap();
    let stage = plan.stages().iter().find(|stage| {
        stage
            .descriptor
            .transforms
            .values()
            .any(|t| t.unique_name.starts_with(step))
    });
    let stage = stage.unwrap();
    let rest = Arc::new(Rest {
        pages,
        asked: AtomicUsize::new(0),
        lost,
    });
    let mut executor = Executor::new(&stage.descriptor, &built.registry, &Arc::default())?;
    executor.start(BundleStart {
        instruction: "1".into(),
        state: rest.clone(),
        cache_tokens: Vec::new(),
    })?;
    executor.elements(&stage.source, &group())?;
    let outcome = executor.finish()?;
    let mut bytes = Vec::new();
    for (_, data) in outcome.outputs {
        let mut input = &data[..];
        while !input.is_empty() {
            Header::decode(&WindowCoder::Global, &mut input).unwrap();
            // There is one element in each of these outputs.
            bytes.extend_from_slice(std::mem::take(&mut input));
        }
    }
    Ok((bytes, rest.asked.load(Ordering::SeqCst)))
}

fn sum_of(pages: i64) -> i64 {
    (0..HEAD + pages * PAGE).sum()
}

#[test]
fn values_are_read_by_page_as_often_as_they_are_iterated_over() {
    let p = Pipeline::new();
    p.apply(Create::new([("k".to_owned(), 1i64)]))
        .map("Count", |(key, number)| (key, Counted::new(number)))
        .group_by_key_as_iterables("Group")
        .try_map("Sum", |(_, values): (String, Elements<Counted>)| {
            let (before, mut most) = (ALIVE.load(Ordering::SeqCst), 0);
            let mut sum = 0;
            for value in values.iter().chain(&values) {
                sum += value?.0;
                most = most.max(ALIVE.load(Ordering::SeqCst) - before);
            }
            Ok::<_, BoxError>((sum, most))
        })
        .group_by_key("Out");
    let (output, asked) = run(&p, "Sum", 5, None).unwrap();
    let (sum, most) = <(i64, i64)>::from_bytes(&output).unwrap();
    assert_eq!((sum, asked), (2 * sum_of(5), 10));
    // The test's other threads have no such values.
    assert!(most <= 2, "{most} values were held at a time");
}

#[test]
fn vectors_have_all_values() {
    let (p, pairs) = grouped();
    pairs
        .group_by_key("Group")
        .map("Sum", |(_, values)| {
            (values.iter().sum::<i64>(), values.len() as i64)
        })
        .group_by_key("Out");
    let (output, asked) = run(&p, "Sum", 3, None).unwrap();
    let sum = <(i64, i64)>::from_bytes(&output).unwrap();
    assert_eq!((sum, asked), ((sum_of(3), HEAD + 3 * PAGE), 3));
    let error = run(&p, "Sum", 3, Some(1)).unwrap_err().to_string();
    assert!(error.contains("page 1 is lost"), "{error}");
}

#[test]
fn what_goes_on_goes_on_whole() {
    let all: Vec<i64> = (0..HEAD + 3 * PAGE).collect();
    let (by_page, pairs) = grouped();
    let groups = pairs.group_by_key_as_iterables("Group");
    groups.map("Same", |group| group).group_by_key("Out");
    let (raw, pairs) = grouped();
    let windowing = Windowing::global();
    pairs
        .group_by_key("Group")
        .window_into("Same", windowing)
        .group_by_key("Out");
    for p in [by_page, raw] {
        let (output, asked) = run(&p, "Same", 3, None).unwrap();
        let (key, values) = <(String, Vec<i64>)>::from_bytes(&output).unwrap();
        assert_eq!((&*key, asked), ("k", 3));
        assert_eq!(values, all);
        let error = run(&p, "Same", 3, Some(2)).unwrap_err().to_string();
        assert!(error.contains("page 2 is lost"), "{error}");
    }
}

#[test]
fn a_page_that_is_lost_fails_the_bundle_with_the_transforms_name() {
    for heeds in [true, false] {
        let (p, pairs) = grouped();
        pairs
            .group_by_key_as_iterables("Group")
            .try_map("Sum", move |(_, values): (String, Elements<i64>)| {
                let mut sum = 0;
                for value in &values {
                    match value {
                        Ok(value) => sum += value,
                        Err(error) if heeds => return Err(error),
                        Err(_) => {}
                    }
                }
                Ok((sum, ()))
            })
            .group_by_key("Out");
        let error = run(&p, "Sum", 5, Some(2)).unwrap_err();
        assert_eq!(error.transform(), "Sum");
        assert!(error.to_string().contains("page 2 is lost"), "{error}");
    }
}
