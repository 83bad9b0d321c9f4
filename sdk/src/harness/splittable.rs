//! The parts that runners take a splittable ParDo apart into.

use std::sync::Arc;
use std::time::Duration;

use purlin_model::{Element, Header, Timestamp, Windows, wire};
use purlin_proto::fn_execution::{BundleApplication, DelayedBundleApplication};
use purlin_proto::pipeline::is_bounded;
use purlin_proto::urns::transforms;

use super::user_code::{Code, Prototype, UserStep};
use crate::splittable::{
    Continuation, Live, Progress, RestrictionOf, RestrictionTracker, SplitContext, SplittableDoFn,
    WatermarkEstimator, WatermarkStateOf,
};
use crate::stage::edge::{AnyReceiver, Edge, Receiver};
use crate::stage::element::{ElementType, any_receiver};
use crate::stage::failure::Failure;
use crate::stage::io::WireForm;
use crate::stage::monitor::{BundleMonitor, LiveElement};
use crate::stage::node::{Node, Signature, StepBuilder};

/// An element with its restriction and its watermark estimator's state.
type Paired<D> = (<D as SplittableDoFn>::In, (RestrictionOf<D>, WatermarkStateOf<D>));
/// The same with the size of the restriction.
type Sized<D> = (Paired<D>, f64);

/// A SplittableDoFn in the registry.
pub(crate) struct SplittableNode<D>(pub Prototype<D>);

impl<D: SplittableDoFn> Node for SplittableNode<D> {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }

    fn signature(&self, urn: &str) -> Option<Signature> {
        let between = |input: ElementType, output: ElementType| Signature {
            input,
            outputs: vec![(String::new(), output)],
        };
        let paired = ElementType::of::<Paired<D>>;
        let sized = ElementType::of::<Sized<D>>;
        match urn {
            transforms::PAIR_WITH_RESTRICTION => Some(between(ElementType::of::<D::In>(), paired())),
            transforms::SPLIT_AND_SIZE_RESTRICTIONS => Some(between(paired(), sized())),
            transforms::TRUNCATE_SIZED_RESTRICTION => Some(between(sized(), sized())),
            transforms::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS => Some(self.0.signature::<D::Out>(sized())),
            _ => None,
        }
    }

    fn build(&self, urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let code = self.0.set_up(step, D::setup, D::teardown)?;
        Ok(match urn {
            transforms::PAIR_WITH_RESTRICTION => any_receiver::<D::In>(Pair {
                next: step.output("")?,
                code,
            }),
            transforms::SPLIT_AND_SIZE_RESTRICTIONS => any_receiver::<Paired<D>>(SplitAndSize {
                next: step.output("")?,
                code,
            }),
            transforms::TRUNCATE_SIZED_RESTRICTION => any_receiver::<Sized<D>>(Truncate {
                next: step.output("")?,
                code,
            }),
            _ => {
                let target = Arc::new(RestrictionTarget {
                    transform_id: step.transform_id().to_owned(),
                    input_tag: step.input_tag.to_owned(),
                    output_tags: step.output_tags.clone(),
                    form: step.input_form.unwrap_or(WireForm::Plain),
                    unbounded: D::UNBOUNDED,
                });
                // Only a restriction that came from the runner can be split and given back.
                let monitor = step.input_form.is_some().then(|| step.monitor.clone());
                let bundle = step.bundle();
                let (mut outputs, sides) = self.0.ends(D::FINALIZES_BUNDLES, step)?;
                if D::UNBOUNDED {
                    outputs.at_once();
                }
                any_receiver::<Sized<D>>(Process {
                    step: UserStep { code, outputs, sides },
                    target,
                    monitor,
                    bundle,
                })
            }
        })
    }
}

/// `beam:transform:sdf_pair_with_restriction:v1`.
struct Pair<D: SplittableDoFn> {
    next: Edge<Paired<D>>,
    code: Code<D>,
}

impl<D: SplittableDoFn> Receiver<D::In> for Pair<D> {
    fn receive(&mut self, element: D::In, at: &Header) -> Result<(), Failure> {
        self.code.enter();
        let restriction = self.code.dofn.initial_restriction(&element);
        let restriction = restriction.map_err(|e| self.code.fail(e))?;
        let state = || D::Watermark::initial(at.timestamp);
        if matches!(at.windows, Windows::One(_)) {
            return self.next.send((element, (restriction, state())), at);
        }
        // From here on each window has a restriction of its own.
        at.in_each_window().try_for_each(|at| {
            let paired = (element.clone(), (restriction.clone(), state()));
            self.next.send(paired, &at)
        })
    }
    fn start(&mut self) -> Result<(), Failure> {
        self.next.start()
    }
    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

/// `beam:transform:sdf_split_and_size_restrictions:v1`.
struct SplitAndSize<D: SplittableDoFn> {
    next: Edge<Sized<D>>,
    code: Code<D>,
}

impl<D: SplittableDoFn> Receiver<Paired<D>> for SplitAndSize<D> {
    fn receive(&mut self, (element, (restriction, state)): Paired<D>, at: &Header) -> Result<(), Failure> {
        self.code.enter();
        let parts = self.code.dofn.split(&element, restriction);
        for part in parts.map_err(|e| self.code.fail(e))? {
            let size = D::Tracker::size(&part);
            let sized = ((element.clone(), (part, state.clone())), size);
            self.next.send(sized, at)?;
        }
        Ok(())
    }
    fn start(&mut self) -> Result<(), Failure> {
        self.next.start()
    }
    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

/// `beam:transform:sdf_truncate_sized_restrictions:v1`.
struct Truncate<D: SplittableDoFn> {
    next: Edge<Sized<D>>,
    code: Code<D>,
}

impl<D: SplittableDoFn> Receiver<Sized<D>> for Truncate<D> {
    fn receive(&mut self, sized: Sized<D>, at: &Header) -> Result<(), Failure> {
        self.code.enter();
        let ((element, (restriction, state)), _) = sized;
        match self.code.dofn.truncate(&element, restriction) {
            Some(rest) => {
                let size = D::Tracker::size(&rest);
                self.next.send(((element, (rest, state)), size), at)
            }
            None => Ok(()),
        }
    }
    fn start(&mut self) -> Result<(), Failure> {
        self.next.start()
    }
    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

/// Where restrictions are given back to.
struct RestrictionTarget {
    transform_id: String,
    input_tag: String,
    output_tags: Vec<String>,
    form: WireForm,
    unbounded: bool,
}

impl RestrictionTarget {
    /// A restriction as the runner takes it.
    fn application<D: SplittableDoFn>(
        &self,
        element: &[u8],
        at: &Header,
        (restriction, watermark): (&RestrictionOf<D>, Option<Timestamp>),
        state: &WatermarkStateOf<D>,
    ) -> BundleApplication {
        let mut value = element.to_vec();
        restriction.encode(&mut value, true);
        state.encode(&mut value, true);
        D::Tracker::size(restriction).encode(&mut value, true);
        let mut out = Vec::new();
        at.encode(&mut out);
        match self.form {
            WireForm::Plain => out.extend_from_slice(&value),
            WireForm::LengthPrefixed => {
                wire::write_length_prefixed(&mut out, |out| out.extend_from_slice(&value))
            }
        }
        let bounded = match self.unbounded {
            true => is_bounded::Enum::Unbounded,
            false => is_bounded::Enum::Bounded,
        };
        let watermark = watermark.map(|w| prost_types::Timestamp {
            seconds: w.millis().div_euclid(1000),
            nanos: (w.millis().rem_euclid(1000) * 1_000_000) as i32,
        });
        let watermarks = watermark.into_iter().flat_map(|watermark| {
            let tags = self.output_tags.iter();
            tags.map(move |tag| (tag.clone(), watermark))
        });
        BundleApplication {
            transform_id: self.transform_id.clone(),
            input_id: self.input_tag.clone(),
            element: out.into(),
            output_watermarks: watermarks.collect(),
            is_bounded: bounded.into(),
        }
    }
}

/// `beam:transform:sdf_process_sized_element_and_restrictions:v1`.
struct Process<D: SplittableDoFn> {
    step: UserStep<D, D::Out>,
    target: Arc<RestrictionTarget>,
    monitor: Option<Arc<BundleMonitor>>,
    bundle: std::rc::Rc<crate::stage::bundle::BundleCell>,
}

/// An element in the works, for the thread that asks for progress and splits.
struct InTheWorks<D: SplittableDoFn> {
    live: Live<D>,
    target: Arc<RestrictionTarget>,
    element: Arc<[u8]>,
    at: Header,
}

impl<D: SplittableDoFn> LiveElement for InTheWorks<D> {
    fn transform_id(&self) -> &str {
        &self.target.transform_id
    }

    fn progress(&self) -> Progress {
        self.live.lock().0.progress()
    }

    fn split(&mut self, fraction: f64) -> Option<(BundleApplication, DelayedBundleApplication)> {
        let (tracker, watermark) = &mut *self.live.lock();
        let residual = tracker.try_split(fraction)?;
        let current = watermark.current();
        let state = watermark.state();
        let application = |restriction: &RestrictionOf<D>, watermark: Option<Timestamp>| {
            self.target
                .application::<D>(&self.element, &self.at, (restriction, watermark), &state)
        };
        let primary = application(&tracker.restriction(), None);
        let residual = DelayedBundleApplication {
            application: Some(application(&residual, current)),
            requested_time_delay: None,
        };
        Some((primary, residual))
    }
}

fn delay(delay: Duration) -> Option<prost_types::Duration> {
    (!delay.is_zero()).then(|| prost_types::Duration {
        seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
        nanos: delay.subsec_nanos() as i32,
    })
}

impl<D: SplittableDoFn> Process<D> {
    fn process(&mut self, sized: Sized<D>, at: &Header) -> Result<(), Failure> {
        let ((element, (restriction, state)), _) = sized;
        let mut bytes = Vec::new();
        element.encode(&mut bytes, true);
        let bytes: Arc<[u8]> = bytes.into();
        let tracker = self.step.code.dofn.tracker(&element, restriction);
        let live: Live<D> = Live::new(tracker, D::Watermark::new(state));
        let shown = self.monitor.as_ref().map(|monitor| {
            monitor.show(Box::new(InTheWorks {
                live: live.clone(),
                target: self.target.clone(),
                element: bytes.clone(),
                at: at.clone(),
            }))
        });
        let noted = self.step.is_careful().then(|| self.step.note(&element, at));
        let result = self.step.call(at, |dofn, ctx| {
            let live = live.clone();
            let result = dofn.process(&element, &mut SplitContext { ctx, live });
            // From here on nobody else splits it.
            drop(shown);
            result
        });
        let result = result?;
        if let Some(before) = noted {
            self.step.noted(before);
        }
        let (tracker, watermark) = &mut *live.lock();
        match result {
            Continuation::Done => tracker.check_done().map_err(|left| {
                let text = format!(
                    "process returned Continuation::Done, but the restriction is not done: {left}; claim until a \
                     claim fails, or return Continuation::Resume"
                );
                Failure::message(&*self.step.code.name, text)
            }),
            Continuation::Resume(after) => {
                if let Some(residual) = tracker.try_split(0.0) {
                    if self.monitor.is_none() {
                        let text = "it is fused behind another step, where a restriction cannot be put off";
                        return Err(Failure::message(&*self.step.code.name, text));
                    }
                    let current = watermark.current();
                    let application = self.target.application::<D>(
                        &bytes,
                        at,
                        (&residual, current),
                        &watermark.state(),
                    );
                    self.bundle.residual(DelayedBundleApplication {
                        application: Some(application),
                        requested_time_delay: delay(after),
                    });
                }
                Ok(())
            }
        }
    }
}

impl<D: SplittableDoFn> Receiver<Sized<D>> for Process<D> {
    fn receive(&mut self, sized: Sized<D>, at: &Header) -> Result<(), Failure> {
        self.step.code.enter();
        // An element was paired with one window each.
        self.process(sized, at)
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.step.start(D::start_bundle)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.step.finish_bundle(D::finish_bundle)?;
        self.step.outputs.finish()
    }
}
