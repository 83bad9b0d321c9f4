//! `beam:transform:pardo:v1` with a [`DoFn`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use purlin_coders::{Element, Header, Windows};
use purlin_proto::urns::transforms;

use super::edge::{AnyReceiver, Receiver};
use super::element::{ElementType, any_receiver};
use super::failure::Failure;
use super::node::{Node, Signature, StepBuilder};
use super::side::{SideReader, SideReaders};
use crate::dofn::{Context, DoFn, FinishContext, Outputs, TagSpec};
use crate::error::BoxError;
use crate::metrics::STEP;
use crate::windowing::WindowFn;

/// Tag of the main output.
pub(crate) const MAIN: &str = "out";

/// A side input of a ParDo.
#[derive(Clone)]
pub(crate) struct SideSpec {
    pub view: u64,
    pub tag: String,
    pub name: String,
    pub window_fn: WindowFn,
}

/// What a step of this input and these outputs looks like.
pub(super) fn signature<O: Element>(input: ElementType, tags: &[TagSpec]) -> Signature {
    let mut outputs = vec![(MAIN.to_owned(), ElementType::of::<O>())];
    outputs.extend(tags.iter().map(|tag| (tag.name.to_string(), tag.element.clone())));
    Signature { input, outputs }
}

/// The outputs and side inputs of a step.
pub(super) fn ends<O: Element>(
    tags: &[TagSpec],
    sides: &[SideSpec],
    finalizes: bool,
    step: &mut StepBuilder<'_>,
) -> Result<(Outputs<O>, SideReaders), Failure> {
    let mut tagged = Vec::new();
    for tag in tags {
        tagged.push((tag.id, (tag.edge)(&tag.name, step)?));
    }
    let name: Arc<str> = step.name().into();
    let outputs = Outputs {
        main: step.output::<O>(MAIN)?,
        tagged,
        failure: None,
        step: step.step(),
        name,
        finalizers: finalizes.then(|| step.bundle()),
    };
    let readers = sides.iter().map(|side| SideReader {
        view: side.view,
        tag: side.tag.clone(),
        name: side.name.clone(),
        window_fn: side.window_fn.clone(),
        last: None,
    });
    let sides = SideReaders {
        transform_id: step.transform_id().to_owned(),
        bundle: step.bundle(),
        readers: readers.collect(),
    };
    Ok((outputs, sides))
}

/// A DoFn in the registry.
pub(crate) struct ParDoNode<D> {
    prototype: Mutex<D>,
    tags: Vec<TagSpec>,
    sides: Vec<SideSpec>,
}

impl<D: DoFn> ParDoNode<D> {
    pub fn new(prototype: D, tags: Vec<TagSpec>, sides: Vec<SideSpec>) -> Self {
        ParDoNode {
            prototype: Mutex::new(prototype),
            tags,
            sides,
        }
    }
}

impl<D: DoFn> Node for ParDoNode<D> {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }

    fn signature(&self, urn: &str) -> Option<Signature> {
        (urn == transforms::PAR_DO).then(|| signature::<D::Out>(ElementType::of::<D::In>(), &self.tags))
    }

    fn build(&self, _urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let (outputs, sides) = ends::<D::Out>(&self.tags, &self.sides, D::FINALIZES_BUNDLES, step)?;
        STEP.set(step.step());
        let dofn = self
            .prototype
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let explodes = D::OBSERVES_WINDOW || !self.sides.is_empty();
        // From here on the DoFn is torn down, even when its set-up fails half way.
        let mut op = ParDoOp {
            dofn,
            outputs,
            sides,
            explodes,
        };
        op.dofn.setup().map_err(|e| op.fail(e))?;
        Ok(any_receiver(op))
    }
}

struct ParDoOp<D: DoFn> {
    dofn: D,
    outputs: Outputs<D::Out>,
    sides: SideReaders,
    /// Whether elements in several windows are processed once for each.
    explodes: bool,
}

impl<D: DoFn> ParDoOp<D> {
    #[cold]
    fn fail(&self, error: BoxError) -> Failure {
        Failure::new(&*self.outputs.name, error)
    }

    #[inline(always)]
    fn process(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        let mut ctx = Context {
            at,
            outputs: &mut self.outputs,
            sides: &mut self.sides,
        };
        let result = self.dofn.process(value, &mut ctx);
        // A failure behind an output came first.
        self.outputs.check()?;
        result.map_err(|e| self.fail(e))
    }

    #[cold]
    fn process_each_window(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        for window in &at.windows {
            let windows = Windows::One(window.clone());
            self.process(
                value.clone(),
                &Header {
                    timestamp: at.timestamp,
                    windows,
                    pane: at.pane,
                },
            )?;
        }
        Ok(())
    }
}

impl<D: DoFn> Receiver<D::In> for ParDoOp<D> {
    fn receive(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        // The caller sets its own step again.
        STEP.set(self.outputs.step);
        if self.explodes && matches!(at.windows, Windows::Many(_)) {
            return self.process_each_window(value, at);
        }
        self.process(value, at)
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.outputs.start()?;
        self.sides.start();
        STEP.set(self.outputs.step);
        self.dofn.start_bundle().map_err(|e| self.fail(e))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        STEP.set(self.outputs.step);
        let result = self.dofn.finish_bundle(&mut FinishContext {
            outputs: &mut self.outputs,
        });
        self.outputs.check()?;
        result.map_err(|e| self.fail(e))?;
        self.outputs.finish()
    }
}

impl<D: DoFn> Drop for ParDoOp<D> {
    fn drop(&mut self) {
        STEP.set(self.outputs.step);
        // Nobody can be told of a panic here, and others are still to be torn down.
        if catch_unwind(AssertUnwindSafe(|| self.dofn.teardown())).is_err() {
            tracing::error!(transform = &*self.outputs.name, "teardown panicked");
        }
    }
}
