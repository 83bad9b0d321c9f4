//! User code by the path in a payload, and how it becomes a step of a stage.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use purlin_model::{Element, WindowCoder};
use purlin_proto::pipeline::FunctionSpec;
use rustc_hash::FxHashMap;

use crate::closure::{CLOSURE_COMBINE_FN, CLOSURE_DO_FN, ClosurePayload};
use crate::windowing::{CustomFn, WindowFn, window_fn_from_spec};

use super::bundle::BundleCell;
use super::edge::{AnyReceiver, Edge, ElementCount};
use super::element::ElementType;
use super::failure::Failure;
use super::io::WireForm;
use super::monitor::BundleMonitor;

/// User code that a stage can execute.
pub trait Node: Send + Sync {
    /// The Rust type of the code.
    fn type_name(&self) -> &'static str;
    /// Types of the input and of the outputs by tag, for a transform of this URN. `None`: it cannot be that.
    fn signature(&self, urn: &str) -> Option<Signature>;
    /// Makes the step.
    ///
    /// # Errors
    /// When the user's set-up fails or the descriptor does not fit the code.
    fn build(&self, urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure>;
}

/// Types at a step's ends.
pub struct Signature {
    /// Of the main input.
    pub input: ElementType,
    /// Of the outputs; the empty tag stands for the only output, whatever it is called.
    pub outputs: Vec<(String, ElementType)>,
}

/// What takes the timers of a step.
pub(crate) trait TimerSink {
    /// Timers of a family fire.
    fn fire(&mut self, family: &str, data: &[u8]) -> Result<(), Failure>;
    /// The timers that were set or cleared, by family.
    fn take(&mut self) -> Vec<(String, Bytes)>;
}

/// What a node gets to make its step of.
pub struct StepBuilder<'a> {
    pub(crate) name: &'a str,
    pub(crate) transform_id: &'a str,
    pub(crate) step: u32,
    pub(crate) outputs: FxHashMap<String, Box<dyn Any>>,
    pub(crate) bundle: &'a Rc<BundleCell>,
    pub(crate) windowing: &'a crate::windowing::TimestampCombiner,
    /// How the main input's windows are encoded.
    pub(crate) windows: WindowCoder,
    /// How the runner encodes the main input, where it comes from there.
    pub(crate) input_form: Option<WireForm>,
    /// What the runner calls the main input.
    pub(crate) input_tag: &'a str,
    /// What the runner calls the outputs.
    pub(crate) output_tags: Vec<String>,
    /// What takes the step's timers, if anything does.
    pub(crate) timer_sink: Option<Rc<RefCell<dyn TimerSink>>>,
    pub(crate) monitor: &'a Arc<BundleMonitor>,
}

impl StepBuilder<'_> {
    /// The transform's full name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Index of the step, for metrics.
    pub(crate) fn step(&self) -> u32 {
        self.step
    }

    pub(crate) fn transform_id(&self) -> &str {
        self.transform_id
    }

    pub(crate) fn bundle(&self) -> Rc<BundleCell> {
        self.bundle.clone()
    }

    pub(crate) fn windows(&self) -> WindowCoder {
        self.windows.clone()
    }

    /// The step has timers, which go there.
    pub(crate) fn timers(&mut self, sink: Rc<RefCell<dyn TimerSink>>) {
        self.timer_sink = Some(sink);
    }

    pub(crate) fn timestamp_combiner(&self) -> crate::windowing::TimestampCombiner {
        *self.windowing
    }

    /// The edge to the consumers of an output. An output that nobody reads has one, too.
    ///
    /// # Errors
    /// When the output is of another type.
    pub fn output<T: Element>(&mut self, tag: &str) -> Result<Edge<T>, Failure> {
        let found = match tag {
            "" if self.outputs.len() == 1 => self.outputs.drain().next().map(|(_, edge)| edge),
            tag => self.outputs.remove(tag),
        };
        let Some(any) = found else {
            return Ok(Edge::new(ElementCount::default(), Vec::new()));
        };
        any.downcast::<Edge<T>>().map(|edge| *edge).map_err(|_| {
            let element = std::any::type_name::<T>();
            Failure::message(
                self.name,
                format!("its output \"{tag}\" is not of elements of type {element}"),
            )
        })
    }
}

/// All user code of a pipeline, by path.
#[derive(Clone, Default)]
pub struct Registry {
    nodes: FxHashMap<String, Arc<dyn Node>>,
    window_fns: FxHashMap<String, CustomFn>,
}

impl Registry {
    pub(crate) fn new(
        nodes: FxHashMap<String, Arc<dyn Node>>,
        window_fns: FxHashMap<String, CustomFn>,
    ) -> Registry {
        Registry { nodes, window_fns }
    }

    /// The window function that a spec describes.
    pub(crate) fn window_fn(&self, spec: &FunctionSpec) -> Result<WindowFn, String> {
        window_fn_from_spec(spec, |spec| {
            let payload = ClosurePayload::decode(spec.payload.clone())
                .map_err(|e| format!("the payload of its window function cannot be read: {e}"))?;
            let found = self.window_fns.get(&payload.path);
            match found.filter(|found| found.payload() == spec.payload) {
                Some(found) => Ok(WindowFn::Custom(found.clone())),
                None => Err(format!(
                    "this worker's pipeline has no window function \"{}\" of type {}; worker and launcher must be the \
                     same build, and build the same pipeline each time",
                    payload.path, payload.type_name
                )),
            }
        })
    }

    /// The code of a payload.
    ///
    /// # Errors
    /// When there is none of this path, or it is of another type than where the pipeline was submitted.
    pub fn find(&self, transform: &str, spec: &FunctionSpec) -> Result<Arc<dyn Node>, Failure> {
        let fail = |message: String| Err(Failure::message(transform, message));
        if spec.urn != CLOSURE_DO_FN && spec.urn != CLOSURE_COMBINE_FN {
            return fail(format!(
                "its code has URN \"{}\", which this SDK does not know",
                spec.urn
            ));
        }
        let payload = match ClosurePayload::decode(spec.payload.clone()) {
            Ok(payload) => payload,
            Err(e) => return fail(format!("the payload of its code cannot be read: {e}")),
        };
        let Some(node) = self.nodes.get(&payload.path) else {
            return fail(format!(
                "this worker's pipeline has no transform \"{}\"; worker and launcher must be the same build, run \
                 with the same options, and build the same pipeline each time",
                payload.path
            ));
        };
        if node.type_name() != payload.type_name {
            return fail(format!(
                "the transform \"{}\" is {} in this worker's pipeline but {} in the launcher's; worker and launcher \
                 must be the same build and run with the same options",
                payload.path,
                node.type_name(),
                payload.type_name
            ));
        }
        Ok(node.clone())
    }

    /// How many transforms have user code.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no user code.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} transforms)", self.nodes.len())
    }
}
