//! A restriction is split while another thread works on it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use purlin_model::{Element, Header, WindowCoder};
use purlin_proto::fn_execution::process_bundle_split_request::DesiredSplit;
use purlin_proto::fn_execution::{
    ProcessBundleDescriptor, ProcessBundleSplitRequest, ProcessBundleSplitResponse, StateRequest,
    StateResponse,
};
use purlin_proto::urns::{metrics, transforms};
use purlin_runner::translate::{PlanOptions, plan};
use purlin_runner::worker::{BundleOutcome, StateHandler};

use super::executor::{BundleStart, Executor};
use crate::prelude::*;
use crate::stage::monitor::BundleMonitor;
use crate::stage::node::Registry;

/// Claims offsets, and stops at one of them to let the test look.
#[derive(Clone)]
struct Stopping {
    stops_at: i64,
    reached: Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl SplittableDoFn for Stopping {
    type In = String;
    type Out = i64;
    type Tracker = OffsetTracker;
    type Watermark = ManualWatermark;

    fn initial_restriction(&self, _: &String) -> Result<OffsetRange, BoxError> {
        Ok(OffsetRange::new(0, 10))
    }

    fn tracker(&self, _: &String, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }

    fn process(&mut self, _: &String, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        for offset in ctx.restriction().start.. {
            if !ctx.try_claim(offset) {
                break;
            }
            ctx.watermark(|watermark| watermark.set(Timestamp::from_millis(offset)));
            ctx.output(offset);
            if offset == self.stops_at {
                self.reached.send(())?;
                self.go_on.lock().recv()?;
            }
        }
        Ok(Continuation::Done)
    }
}

struct NoState;

impl StateHandler for NoState {
    fn handle(&self, request: StateRequest) -> StateResponse {
        StateResponse {
            id: request.id,
            error: "no state".into(),
            response: None,
        }
    }
}

type Sized = ((String, (OffsetRange, Timestamp)), f64);

fn element(name: &str, start: i64, end: i64) -> Vec<u8> {
    let mut out = Vec::new();
    Header::IMPULSE.encode(&mut out);
    let sized: Sized = (
        (name.to_owned(), (OffsetRange::new(start, end), Timestamp::MIN)),
        1.0,
    );
    sized.encode(&mut out, true);
    out
}

fn decode(mut bytes: &[u8]) -> Sized {
    let input = &mut bytes;
    Timestamp::decode(input).unwrap();
    WindowCoder::Global.decode_windows(input).unwrap();
    PaneInfo::decode(input).unwrap();
    Sized::decode(input, true).unwrap()
}

/// The stage that processes restrictions, with the id of its source.
fn stage(dofn: Stopping) -> (Arc<ProcessBundleDescriptor>, String, Arc<Registry>) {
    let p = Pipeline::new();
    p.apply(Create::new(["a".to_owned()]))
        .splittable_par_do("Stopping", dofn)
        .map("Pair", |n| (n, ()))
        .group_by_key("Out");
    let built = p.build().unwrap();
    let plan = plan(&built.proto, &PlanOptions::default()).unwrap();
    let stage = plan.stages().iter().find(|stage| {
        let mut all = stage.descriptor.transforms.values();
        all.any(|t| {
            t.spec
                .as_ref()
                .is_some_and(|s| s.urn == transforms::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS)
        })
    });
    let stage = stage.unwrap();
    (stage.descriptor.clone(), stage.source.clone(), built.registry)
}

/// Processes the elements; once `stops_at` is claimed for the first time, `look` is called.
fn while_working<R>(
    stops_at: i64,
    elements: &[(&str, i64, i64)],
    look: impl FnOnce(&BundleMonitor, &dyn Fn(f64, i64) -> ProcessBundleSplitResponse) -> R,
) -> (R, BundleOutcome) {
    let (reached, has_reached) = channel();
    let (go_on, goes_on) = channel();
    let dofn = Stopping {
        stops_at,
        reached,
        go_on: Arc::new(Mutex::new(goes_on)),
    };
    let (descriptor, source, registry) = stage(dofn);
    let data: Vec<u8> = elements
        .iter()
        .flat_map(|(name, start, end)| element(name, *start, *end))
        .collect();
    let (monitors, monitor) = channel();
    let worker_source = source.clone();
    let worker = std::thread::spawn(move || {
        let mut executor = Executor::new(&descriptor, &registry, &Arc::default()).unwrap();
        monitors.send(executor.monitor()).unwrap();
        let start = BundleStart {
            instruction: "1".into(),
            state: Arc::new(NoState),
            cache_tokens: Vec::new(),
        };
        executor.start(start).unwrap();
        executor.elements(&worker_source, &data.into()).unwrap();
        executor.finish().unwrap()
    });
    let monitor = monitor.recv().unwrap();
    has_reached.recv().unwrap();
    let split = |fraction_of_remainder: f64, estimated_input_elements: i64| {
        let desired = DesiredSplit {
            fraction_of_remainder,
            estimated_input_elements,
            allowed_split_points: vec![],
        };
        monitor.split(&ProcessBundleSplitRequest {
            instruction_id: "1".into(),
            desired_splits: [(source.clone(), desired)].into(),
        })
    };
    let looked = look(&monitor, &split);
    go_on.send(()).unwrap();
    (looked, worker.join().unwrap())
}

fn outputs(outcome: &BundleOutcome) -> Vec<i64> {
    let mut all = Vec::new();
    for (_, data) in &outcome.outputs {
        let mut input = &data[..];
        while !input.is_empty() {
            Timestamp::decode(&mut input).unwrap();
            WindowCoder::Global.decode_windows(&mut input).unwrap();
            PaneInfo::decode(&mut input).unwrap();
            all.push(<(i64, ())>::decode(&mut input, true).unwrap().0);
        }
    }
    all
}

#[test]
fn the_element_in_the_works_is_split() {
    let (response, outcome) = while_working(3, &[("a", 0, 10)], |_, split| split(0.5, 1));
    // Six are left: three are kept.
    let residual = response.residual_roots[0].application.clone().unwrap();
    let ((name, (range, watermark)), size) = decode(&residual.element);
    assert_eq!((&*name, range, size), ("a", OffsetRange::new(7, 10), 3.0));
    assert_eq!(watermark, Timestamp::from_millis(3));
    assert_eq!(
        residual.output_watermarks.values().next().map(|w| w.nanos),
        Some(3_000_000)
    );
    let ((_, (primary, _)), _) = decode(&response.primary_roots[0].element);
    assert_eq!(primary, OffsetRange::new(0, 7));
    let channel = &response.channel_splits[0];
    assert_eq!(
        (channel.last_primary_element, channel.first_residual_element),
        (-1, 1)
    );
    assert_eq!(outputs(&outcome), [0, 1, 2, 3, 4, 5, 6]);
    assert!(outcome.response.residual_roots.is_empty());
}

#[test]
fn elements_behind_are_given_away_first() {
    // Nearly all is kept: of three elements, the last one goes.
    let elements = [("a", 0, 10), ("b", 10, 12), ("c", 20, 22)];
    let (response, outcome) = while_working(3, &elements, |_, split| split(0.6, 3));
    assert!(response.residual_roots.is_empty(), "{response:?}");
    let channel = &response.channel_splits[0];
    assert_eq!(
        (channel.last_primary_element, channel.first_residual_element),
        (1, 2)
    );
    assert_eq!(outputs(&outcome), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn a_checkpoint_gives_away_all_that_is_not_claimed() {
    let elements = [("a", 0, 10), ("b", 10, 12)];
    let (responses, outcome) = while_working(3, &elements, |_, split| (split(0.0, 2), split(0.0, 2)));
    let (first, second) = responses;
    let residual = first.residual_roots[0].application.clone().unwrap();
    let ((_, (range, _)), _) = decode(&residual.element);
    assert_eq!(range, OffsetRange::new(4, 10));
    let channel = &first.channel_splits[0];
    assert_eq!(
        (channel.last_primary_element, channel.first_residual_element),
        (-1, 1)
    );
    assert_eq!(
        second,
        ProcessBundleSplitResponse::default(),
        "there is nothing more to give"
    );
    assert_eq!(outputs(&outcome), [0, 1, 2, 3]);
}

#[test]
fn progress_is_told() {
    let (infos, _) = while_working(3, &[("a", 0, 10)], |monitor, _| monitor.monitoring_infos());
    let work = |urn: &str| {
        let info = infos.iter().find(|info| info.urn == urn).unwrap();
        let number = <[u8; 8]>::try_from(&info.payload[4..]).unwrap();
        f64::from_be_bytes(number)
    };
    assert_eq!(
        (work(metrics::WORK_COMPLETED), work(metrics::WORK_REMAINING)),
        (4.0, 6.0)
    );
}
