//! User code of a ParDo: set up, called, torn down. The kinds of DoFns differ in what they do with an element.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use purlin_model::{Element, Header};

use crate::dofn::{Context, FinishContext, Outputs, TagSpec};
use crate::error::{BoxError, DoFnResult};
use crate::metrics::STEP;
use crate::side_input::{SideReader, SideReaders};
use crate::stage::at_element::AtElement;
use crate::stage::element::ElementType;
use crate::stage::failure::Failure;
use crate::stage::node::{Signature, StepBuilder};
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

/// User code in the registry, with the ends of its transform.
pub(crate) struct Prototype<D> {
    dofn: Mutex<D>,
    tags: Vec<TagSpec>,
    sides: Vec<SideSpec>,
}

impl<D: Clone> Prototype<D> {
    pub fn new(dofn: D, tags: Vec<TagSpec>, sides: Vec<SideSpec>) -> Self {
        Prototype {
            dofn: Mutex::new(dofn),
            tags,
            sides,
        }
    }

    pub(super) fn has_side_inputs(&self) -> bool {
        !self.sides.is_empty()
    }

    /// What a step of this input looks like.
    pub(super) fn signature<O: Element>(&self, input: ElementType) -> Signature {
        let mut outputs = vec![(MAIN.to_owned(), ElementType::of::<O>())];
        let tags = self.tags.iter();
        outputs.extend(tags.map(|tag| (tag.name.to_string(), tag.element.clone())));
        Signature { input, outputs }
    }

    /// A copy of the code that is set up. It is torn down even when its set-up fails half way.
    pub(super) fn set_up(
        &self,
        step: &StepBuilder<'_>,
        setup: fn(&mut D) -> DoFnResult,
        teardown: fn(&mut D),
    ) -> Result<Code<D>, Failure> {
        STEP.set(step.step());
        let dofn = self.dofn.lock();
        let mut code = Code::new(dofn.clone(), step.name(), step.step(), teardown);
        drop(dofn);
        setup(&mut code.dofn).map_err(|e| code.fail(e))?;
        Ok(code)
    }

    /// The outputs and side inputs of the step.
    pub(super) fn ends<O: Element>(
        &self,
        finalizes: bool,
        step: &mut StepBuilder<'_>,
    ) -> Result<(Outputs<O>, SideReaders), Failure> {
        let mut tagged = Vec::new();
        for tag in &self.tags {
            tagged.push((tag.id, (tag.edge)(&tag.name, step)?));
        }
        let name: Arc<str> = step.name().into();
        let mut outputs = Outputs::new(step.output::<O>(MAIN)?, tagged, step.step(), name);
        outputs.finalizers = finalizes.then(|| step.bundle());
        let readers = self.sides.iter().map(|side| SideReader {
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
}

/// User code that is set up, to be torn down.
pub(super) struct Code<D> {
    pub dofn: D,
    pub name: Arc<str>,
    step: u32,
    teardown: fn(&mut D),
    /// Whether elements are noted before the code gets them.
    careful: bool,
}

impl<D> Code<D> {
    /// Code of a step, by its name and number.
    pub fn new(dofn: D, name: &str, step: u32, teardown: fn(&mut D)) -> Code<D> {
        Code {
            dofn,
            name: name.into(),
            step,
            teardown,
            careful: false,
        }
    }

    /// What happens from now on happens in this code.
    #[inline]
    pub fn enter(&self) {
        STEP.set(self.step);
    }

    #[cold]
    pub fn fail(&self, error: BoxError) -> Failure {
        Failure::new(&*self.name, error)
    }
}

impl<D> Drop for Code<D> {
    fn drop(&mut self) {
        self.enter();
        // Nobody can be told of a panic here, and others are still to be torn down.
        if catch_unwind(AssertUnwindSafe(|| (self.teardown)(&mut self.dofn))).is_err() {
            tracing::error!(transform = &*self.name, "teardown panicked");
        }
    }
}

/// User code between its ends. It is torn down before what is behind it.
pub(super) struct UserStep<D, O> {
    pub code: Code<D>,
    pub outputs: Outputs<O>,
    pub sides: SideReaders,
}

impl<D, O: Element> UserStep<D, O> {
    /// Calls the code with what it sees of an element, or of several that share a header.
    #[inline(always)]
    pub fn call<R>(
        &mut self,
        at: &Header,
        call: impl FnOnce(&mut D, Context<'_, O>) -> Result<R, BoxError>,
    ) -> Result<R, Failure> {
        // The caller sets its own step again.
        self.code.enter();
        let ctx = Context {
            at,
            outputs: &mut self.outputs,
            sides: &mut self.sides,
        };
        let result = call(&mut self.code.dofn, ctx);
        self.outputs.flush(at);
        // A failure behind an output came first.
        self.outputs.check()?;
        result.map_err(|e| self.code.fail(e))
    }

    /// Whether the code is to get its elements one by one, each between [`UserStep::note`] and [`UserStep::noted`].
    #[inline(always)]
    pub fn is_careful(&self) -> bool {
        self.code.careful
    }

    /// Notes the element, which a failure of the code is to name. Gives what was noted before.
    #[cold]
    pub fn note<T: Element>(&self, element: &T, at: &Header) -> Option<AtElement> {
        let element = AtElement::new(&self.code.name, element, at);
        self.sides.bundle.note(Some(element))
    }

    /// The code has returned from the element, and so is the code before at its own.
    #[cold]
    pub fn noted(&self, before: Option<AtElement>) {
        self.sides.bundle.note(before);
    }

    /// Starts a bundle here and behind the step.
    pub fn start(&mut self, start_bundle: fn(&mut D) -> DoFnResult) -> Result<(), Failure> {
        self.code.careful = self.sides.bundle.is_careful();
        self.outputs.start()?;
        self.sides.start();
        self.code.enter();
        start_bundle(&mut self.code.dofn).map_err(|e| self.code.fail(e))
    }

    /// Ends the bundle in the code; behind the step it goes on.
    pub fn finish_bundle(
        &mut self,
        finish_bundle: fn(&mut D, &mut FinishContext<'_, O>) -> DoFnResult,
    ) -> Result<(), Failure> {
        self.code.enter();
        let outputs = &mut self.outputs;
        let result = finish_bundle(&mut self.code.dofn, &mut FinishContext { outputs });
        self.outputs.check()?;
        result.map_err(|e| self.code.fail(e))
    }
}
