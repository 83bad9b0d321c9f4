//! The parts that runners take a splittable ParDo apart into.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use purlin_coders::{Element, Header, Timestamp, Windows, wire};
use purlin_proto::fn_execution::{BundleApplication, DelayedBundleApplication};
use purlin_proto::pipeline::is_bounded;
use purlin_proto::urns::transforms;

use super::edge::{AnyReceiver, Edge, Receiver};
use super::element::{ElementType, any_receiver};
use super::failure::Failure;
use super::io::WireForm;
use super::monitor::{BundleMonitor, LiveElement};
use super::node::{Node, Signature, StepBuilder};
use super::par_do::{SideSpec, ends, signature};
use super::side::SideReaders;
use crate::dofn::{Context, FinishContext, Outputs, TagSpec};
use crate::error::BoxError;
use crate::metrics::STEP;
use crate::splittable::{
    Continuation, Live, Progress, RestrictionOf, RestrictionTracker, SplitContext, SplittableDoFn,
    WatermarkEstimator, WatermarkStateOf,
};

/// An element with its restriction and its watermark estimator's state.
type Paired<D> = (<D as SplittableDoFn>::In, (RestrictionOf<D>, WatermarkStateOf<D>));
/// The same with the size of the restriction.
type Sized<D> = (Paired<D>, f64);

/// A SplittableDoFn in the registry.
pub(crate) struct SplittableNode<D> {
    prototype: Mutex<D>,
    tags: Vec<TagSpec>,
    sides: Vec<SideSpec>,
}

impl<D: SplittableDoFn> SplittableNode<D> {
    pub fn new(prototype: D, tags: Vec<TagSpec>, sides: Vec<SideSpec>) -> Self {
        SplittableNode {
            prototype: Mutex::new(prototype),
            tags,
            sides,
        }
    }

    fn code(&self, step: &StepBuilder<'_>) -> Result<Code<D>, Failure> {
        STEP.set(step.step());
        let mut code = Code {
            dofn: self
                .prototype
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            name: step.name().into(),
            step: step.step(),
        };
        let set_up = code.dofn.setup();
        set_up.map_err(|e| code.fail(e))?;
        Ok(code)
    }
}

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
            transforms::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS => {
                Some(signature::<D::Out>(sized(), &self.tags))
            }
            _ => None,
        }
    }

    fn build(&self, urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let code = self.code(step)?;
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
                let place = Arc::new(Place {
                    transform_id: step.transform_id().to_owned(),
                    input_tag: step.input_tag.to_owned(),
                    output_tags: step.output_tags.clone(),
                    form: step.input_form.unwrap_or(WireForm::Plain),
                    unbounded: D::UNBOUNDED,
                });
                // Only a restriction that came from the runner can be split and given back.
                let monitor = step.input_form.is_some().then(|| step.monitor.clone());
                let bundle = step.bundle();
                let (outputs, sides) = ends::<D::Out>(&self.tags, &self.sides, D::FINALIZES_BUNDLES, step)?;
                any_receiver::<Sized<D>>(Process {
                    code,
                    outputs,
                    sides,
                    place,
                    monitor,
                    bundle,
                })
            }
        })
    }
}

/// User code, to be torn down.
struct Code<D: SplittableDoFn> {
    dofn: D,
    name: Arc<str>,
    step: u32,
}

impl<D: SplittableDoFn> Code<D> {
    #[cold]
    fn fail(&self, error: BoxError) -> Failure {
        Failure::new(&*self.name, error)
    }
}

impl<D: SplittableDoFn> Drop for Code<D> {
    fn drop(&mut self) {
        STEP.set(self.step);
        // Nobody can be told of a panic here, and others are still to be torn down.
        if catch_unwind(AssertUnwindSafe(|| self.dofn.teardown())).is_err() {
            tracing::error!(transform = &*self.name, "teardown panicked");
        }
    }
}

/// `beam:transform:sdf_pair_with_restriction:v1`.
struct Pair<D: SplittableDoFn> {
    next: Edge<Paired<D>>,
    code: Code<D>,
}

impl<D: SplittableDoFn> Receiver<D::In> for Pair<D> {
    fn receive(&mut self, element: D::In, at: &Header) -> Result<(), Failure> {
        STEP.set(self.code.step);
        let restriction = self.code.dofn.initial_restriction(&element);
        let restriction = restriction.map_err(|e| self.code.fail(e))?;
        let state = || D::Watermark::initial(at.timestamp);
        let Windows::Many(windows) = &at.windows else {
            return self.next.send((element, (restriction, state())), at);
        };
        // From here on each window has a restriction of its own.
        for window in windows {
            let at = Header {
                timestamp: at.timestamp,
                windows: Windows::One(window.clone()),
                pane: at.pane,
            };
            let paired = (element.clone(), (restriction.clone(), state()));
            self.next.send(paired, &at)?;
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

/// `beam:transform:sdf_split_and_size_restrictions:v1`.
struct SplitAndSize<D: SplittableDoFn> {
    next: Edge<Sized<D>>,
    code: Code<D>,
}

impl<D: SplittableDoFn> Receiver<Paired<D>> for SplitAndSize<D> {
    fn receive(&mut self, (element, (restriction, state)): Paired<D>, at: &Header) -> Result<(), Failure> {
        STEP.set(self.code.step);
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
        STEP.set(self.code.step);
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
struct Place {
    transform_id: String,
    input_tag: String,
    output_tags: Vec<String>,
    form: WireForm,
    unbounded: bool,
}

impl Place {
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
    code: Code<D>,
    outputs: Outputs<D::Out>,
    sides: SideReaders,
    place: Arc<Place>,
    monitor: Option<Arc<BundleMonitor>>,
    bundle: std::rc::Rc<super::bundle::BundleCell>,
}

/// An element in the works, for the thread that asks for progress and splits.
struct InTheWorks<D: SplittableDoFn> {
    live: Live<D>,
    place: Arc<Place>,
    element: Arc<[u8]>,
    at: Header,
}

impl<D: SplittableDoFn> LiveElement for InTheWorks<D> {
    fn transform_id(&self) -> &str {
        &self.place.transform_id
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
            self.place
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
        let tracker = self.code.dofn.tracker(&element, restriction);
        let live: Live<D> = Live::new(tracker, D::Watermark::new(state));
        let shown = self.monitor.as_ref().map(|monitor| {
            monitor.show(Box::new(InTheWorks {
                live: live.clone(),
                place: self.place.clone(),
                element: bytes.clone(),
                at: at.clone(),
            }))
        });
        let mut ctx = SplitContext {
            ctx: Context {
                at,
                outputs: &mut self.outputs,
                sides: &mut self.sides,
            },
            live: live.clone(),
        };
        let result = self.code.dofn.process(&element, &mut ctx);
        drop(ctx);
        // From here on nobody else splits it.
        drop(shown);
        self.outputs.check()?;
        let (tracker, watermark) = &mut *live.lock();
        match result.map_err(|e| self.code.fail(e))? {
            Continuation::Done => tracker.check_done().map_err(|left| {
                let text = format!(
                    "process returned Continuation::Done, but the restriction is not done: {left}; claim until a \
                     claim fails, or return Continuation::Resume"
                );
                Failure::message(&*self.code.name, text)
            }),
            Continuation::Resume(after) => {
                if let Some(residual) = tracker.try_split(0.0) {
                    if self.monitor.is_none() {
                        let text = "it is fused behind another step, where a restriction cannot be put off";
                        return Err(Failure::message(&*self.code.name, text));
                    }
                    let current = watermark.current();
                    let application = self.place.application::<D>(
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
        STEP.set(self.code.step);
        // An element was paired with one window each.
        self.process(sized, at)
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.outputs.start()?;
        self.sides.start();
        STEP.set(self.code.step);
        self.code.dofn.start_bundle().map_err(|e| self.code.fail(e))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        STEP.set(self.code.step);
        let result = self.code.dofn.finish_bundle(&mut FinishContext {
            outputs: &mut self.outputs,
        });
        self.outputs.check()?;
        result.map_err(|e| self.code.fail(e))?;
        self.outputs.finish()
    }
}
