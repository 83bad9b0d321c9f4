//! `beam:transform:pardo:v1` with a [`StatefulDoFn`].

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use purlin_coders::{DecodeError, Element, Header, Timer, Window, WindowCoder, Windows};
use purlin_proto::urns::transforms;

use super::edge::{AnyReceiver, Receiver};
use super::element::{ElementType, any_receiver};
use super::failure::Failure;
use super::keyed_state::KeyedState;
use super::node::{Node, Signature, StepBuilder};
use super::par_do::{SideSpec, ends, signature};
use super::side::SideReaders;
use crate::dofn::{Context, EXPIRATION, FinishContext, KeyedContext, Outputs, StatefulDoFn, TagSpec};
use crate::error::{BoxError, DoFnResult};
use crate::metrics::STEP;
use crate::state::{FieldSpec, FiredTimer};
use crate::windowing::WindowFn;

/// What takes the timers of a step.
pub(super) trait TimerSink {
    /// Timers of a family fire.
    fn fire(&mut self, family: &str, data: &[u8]) -> Result<(), Failure>;
    /// The timers that were set or cleared, by family.
    fn take(&mut self) -> Vec<(String, Bytes)>;
}

/// A StatefulDoFn in the registry.
pub(crate) struct StatefulNode<D> {
    prototype: Mutex<D>,
    fields: Vec<FieldSpec>,
    tags: Vec<TagSpec>,
    sides: Vec<SideSpec>,
    window_fn: WindowFn,
}

impl<D: StatefulDoFn> StatefulNode<D> {
    pub fn new(
        prototype: D,
        fields: Vec<FieldSpec>,
        tags: Vec<TagSpec>,
        sides: Vec<SideSpec>,
        window_fn: WindowFn,
    ) -> Self {
        StatefulNode {
            prototype: Mutex::new(prototype),
            fields,
            tags,
            sides,
            window_fn,
        }
    }
}

impl<D: StatefulDoFn> Node for StatefulNode<D> {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }

    fn signature(&self, urn: &str) -> Option<Signature> {
        let input = ElementType::of::<(D::Key, D::Value)>();
        (urn == transforms::PAR_DO).then(|| signature::<D::Out>(input, &self.tags))
    }

    fn build(&self, _urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let (outputs, sides) = ends::<D::Out>(&self.tags, &self.sides, D::FINALIZES_BUNDLES, step)?;
        STEP.set(step.step());
        let dofn = self
            .prototype
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let windows = step.windows();
        let state = KeyedState::new(
            step.transform_id().to_owned(),
            step.bundle(),
            self.fields.clone(),
            matches!(windows, WindowCoder::Opaque(_)),
        );
        let mut op = StatefulOp {
            dofn,
            outputs,
            sides,
            state,
            windows,
            window_fn: self.window_fn.clone(),
            key: Vec::new(),
        };
        op.dofn.setup().map_err(|e| op.fail(e))?;
        let op = Rc::new(RefCell::new(op));
        step.timers(op.clone());
        Ok(any_receiver::<(D::Key, D::Value)>(Shared(op)))
    }
}

struct StatefulOp<D: StatefulDoFn> {
    dofn: D,
    outputs: Outputs<D::Out>,
    sides: SideReaders,
    state: KeyedState,
    windows: WindowCoder,
    window_fn: WindowFn,
    /// The key at hand, encoded.
    key: Vec<u8>,
}

/// The element side of an op; the executor holds the timer side.
struct Shared<D: StatefulDoFn>(Rc<RefCell<StatefulOp<D>>>);

impl<D: StatefulDoFn> StatefulOp<D> {
    #[cold]
    fn fail(&self, error: BoxError) -> Failure {
        Failure::new(&*self.outputs.name, error)
    }

    /// Runs user code for a key in a window.
    fn call(
        &mut self,
        at: &Header,
        code: impl FnOnce(&mut D, &mut KeyedContext<'_, D::Out>) -> DoFnResult,
    ) -> Result<(), Failure> {
        STEP.set(self.outputs.step);
        let window = at.windows.first().unwrap_or(&Window::Global);
        self.state.enter(&self.key, window, at.timestamp, at.pane);
        let mut ctx = KeyedContext {
            ctx: Context {
                at,
                outputs: &mut self.outputs,
                sides: &mut self.sides,
            },
            state: &mut self.state,
        };
        let result = code(&mut self.dofn, &mut ctx);
        self.outputs.check()?;
        result.map_err(|e| self.fail(e))
    }

    fn process(&mut self, (key, value): (D::Key, D::Value), at: &Header) -> Result<(), Failure> {
        self.key.clear();
        key.encode(&mut self.key, true);
        self.call(at, |dofn, ctx| dofn.process(key, value, ctx))
    }

    fn read_timer(&self, input: &mut &[u8]) -> Result<(D::Key, Timer), DecodeError> {
        let before = *input;
        let key = D::Key::decode(input, true)?;
        let encoded = Bytes::copy_from_slice(&before[..before.len() - input.len()]);
        Ok((key, Timer::decode_after_key(encoded, &self.windows, input)?))
    }
}

impl<D: StatefulDoFn> TimerSink for StatefulOp<D> {
    fn fire(&mut self, family: &str, mut data: &[u8]) -> Result<(), Failure> {
        let name = self.outputs.name.clone();
        let fields = self.state.fields().iter();
        let id = match fields.into_iter().find(|field| &*field.name == family) {
            Some(field) => Some((field.id, field.name.clone())),
            None if D::ON_WINDOW_EXPIRATION && family == EXPIRATION => None,
            None => {
                return Err(Failure::message(
                    &*name,
                    format!("the runner fires timers of \"{family}\", which the transform does not have"),
                ));
            }
        };
        while !data.is_empty() {
            let (key, timer) = self.read_timer(&mut data).map_err(|e| {
                Failure::message(
                    &*name,
                    format!("a timer of \"{family}\" that fires cannot be decoded: {e}"),
                )
            })?;
            let Some(firing) = timer.firing else { continue };
            self.key.clear();
            self.key.extend_from_slice(&timer.user_key);
            for window in &timer.windows {
                let window = &self.window_fn.restore(window.clone());
                let at = Header {
                    timestamp: firing.hold_timestamp,
                    windows: Windows::One(window.clone()),
                    pane: firing.pane,
                };
                let key = key.clone();
                let Some((id, family)) = &id else {
                    self.call(&at, |dofn, ctx| dofn.on_window_expiration(key, ctx))?;
                    continue;
                };
                self.state.enter(&self.key, window, at.timestamp, at.pane);
                if !self.state.still_fires(*id, &timer.dynamic_tag, firing.fire_timestamp) {
                    continue;
                }
                let fired = FiredTimer {
                    id: *id,
                    name: family.clone(),
                    tag: timer.dynamic_tag.clone(),
                    timestamp: firing.fire_timestamp,
                };
                self.call(&at, |dofn, ctx| dofn.on_timer(key, &fired, ctx))?;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<(String, Bytes)> {
        self.state.take_timers()
    }
}

impl<D: StatefulDoFn> Receiver<(D::Key, D::Value)> for Shared<D> {
    fn receive(&mut self, element: (D::Key, D::Value), at: &Header) -> Result<(), Failure> {
        let mut op = self.0.borrow_mut();
        match &at.windows {
            Windows::One(_) => op.process(element, at),
            Windows::Many(windows) => {
                for window in windows {
                    let at = Header {
                        timestamp: at.timestamp,
                        windows: Windows::One(window.clone()),
                        pane: at.pane,
                    };
                    op.process(element.clone(), &at)?;
                }
                Ok(())
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let mut op = self.0.borrow_mut();
        op.outputs.start()?;
        op.sides.start();
        op.state.start();
        STEP.set(op.outputs.step);
        op.dofn.start_bundle().map_err(|e| op.fail(e))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let op = &mut *self.0.borrow_mut();
        STEP.set(op.outputs.step);
        let result = op.dofn.finish_bundle(&mut FinishContext {
            outputs: &mut op.outputs,
        });
        op.outputs.check()?;
        result.map_err(|e| op.fail(e))?;
        op.state.flush().map_err(|e| op.fail(e))?;
        op.outputs.finish()
    }
}

impl<D: StatefulDoFn> Drop for StatefulOp<D> {
    fn drop(&mut self) {
        STEP.set(self.outputs.step);
        // Nobody can be told of a panic here, and others are still to be torn down.
        if catch_unwind(AssertUnwindSafe(|| self.dofn.teardown())).is_err() {
            tracing::error!(transform = &*self.outputs.name, "teardown panicked");
        }
    }
}
