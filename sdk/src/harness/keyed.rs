//! `beam:transform:pardo:v1` with a [`StatefulDoFn`].

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use purlin_model::{DecodeError, Element, Header, Timer, Window, WindowCoder, Windows};
use purlin_proto::urns::transforms;

use super::user_code::{Prototype, UserStep};
use crate::dofn::{EXPIRATION, KeyedContext, StatefulDoFn};
use crate::error::DoFnResult;
use crate::stage::edge::{AnyReceiver, Receiver};
use crate::stage::element::{ElementType, any_receiver};
use crate::stage::failure::Failure;
use crate::stage::keyed_state::KeyedState;
use crate::stage::node::{Node, Signature, StepBuilder, TimerSink};
use crate::state::{FieldSpec, FiredTimer};
use crate::windowing::{SdkWindowFn, WindowFn};

/// A StatefulDoFn in the registry.
pub(crate) struct StatefulNode<D> {
    pub prototype: Prototype<D>,
    pub fields: Vec<FieldSpec>,
    pub window_fn: WindowFn,
}

impl<D: StatefulDoFn> Node for StatefulNode<D> {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }

    fn signature(&self, urn: &str) -> Option<Signature> {
        let input = ElementType::of::<(D::Key, D::Value)>();
        (urn == transforms::PAR_DO).then(|| self.prototype.signature::<D::Out>(input))
    }

    fn build(&self, _urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let (outputs, sides) = self.prototype.ends(D::FINALIZES_BUNDLES, step)?;
        let code = self.prototype.set_up(step, D::setup, D::teardown)?;
        let windows = step.windows();
        let state = KeyedState::new(
            step.transform_id().to_owned(),
            step.bundle(),
            self.fields.clone(),
            matches!(windows, WindowCoder::Opaque(_)),
        );
        let op = StatefulOp::<D> {
            step: UserStep { code, outputs, sides },
            state,
            windows,
            window_fn: self.window_fn.clone(),
            key: Vec::new(),
        };
        let op = Rc::new(RefCell::new(op));
        step.timers(op.clone());
        Ok(any_receiver::<(D::Key, D::Value)>(SharedOp(op)))
    }
}

struct StatefulOp<D: StatefulDoFn> {
    step: UserStep<D, D::Out>,
    state: KeyedState,
    windows: WindowCoder,
    window_fn: WindowFn,
    /// The key at hand, encoded.
    key: Vec<u8>,
}

/// The element side of an op; the executor holds the timer side.
struct SharedOp<D: StatefulDoFn>(Rc<RefCell<StatefulOp<D>>>);

impl<D: StatefulDoFn> StatefulOp<D> {
    /// Runs user code for a key in a window.
    fn call(
        &mut self,
        at: &Header,
        code: impl FnOnce(&mut D, &mut KeyedContext<'_, D::Out>) -> DoFnResult,
    ) -> Result<(), Failure> {
        let window = at.windows.first().unwrap_or(&Window::Global);
        self.state.enter(&self.key, window, at.timestamp, at.pane);
        let state = &mut self.state;
        self.step
            .call(at, |dofn, ctx| code(dofn, &mut KeyedContext { ctx, state }))
    }

    fn process(&mut self, element: (D::Key, D::Value), at: &Header) -> Result<(), Failure> {
        self.key.clear();
        element.0.encode(&mut self.key, true);
        let noted = self.step.is_careful().then(|| self.step.note(&element, at));
        let (key, value) = element;
        self.call(at, |dofn, ctx| dofn.process(key, value, ctx))?;
        if let Some(before) = noted {
            self.step.noted(before);
        }
        Ok(())
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
        let name = self.step.code.name.clone();
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
                if !self
                    .state
                    .still_fires(*id, &timer.dynamic_tag, firing.fire_timestamp)
                {
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

impl<D: StatefulDoFn> Receiver<(D::Key, D::Value)> for SharedOp<D> {
    fn receive(&mut self, element: (D::Key, D::Value), at: &Header) -> Result<(), Failure> {
        let mut op = self.0.borrow_mut();
        match &at.windows {
            Windows::One(_) => op.process(element, at),
            Windows::Many(_) => at
                .in_each_window()
                .try_for_each(|at| op.process(element.clone(), &at)),
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let mut op = self.0.borrow_mut();
        op.state.start();
        op.step.start(D::start_bundle)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let op = &mut *self.0.borrow_mut();
        op.step.finish_bundle(D::finish_bundle)?;
        op.state.flush().map_err(|e| op.step.code.fail(e))?;
        op.step.outputs.finish()
    }
}
