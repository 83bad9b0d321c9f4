//! `beam:transform:pardo:v1` with a [`DoFn`].

use purlin_coders::{Header, Windows};
use purlin_proto::urns::transforms;

use super::edge::{AnyReceiver, Receiver};
use super::element::{ElementType, any_receiver};
use super::failure::Failure;
use super::node::{Node, Signature, StepBuilder};
use super::user_code::{Prototype, UserStep};
use crate::dofn::DoFn;

/// A DoFn in the registry.
pub(crate) struct ParDoNode<D>(pub Prototype<D>);

impl<D: DoFn> Node for ParDoNode<D> {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }

    fn signature(&self, urn: &str) -> Option<Signature> {
        (urn == transforms::PAR_DO).then(|| self.0.signature::<D::Out>(ElementType::of::<D::In>()))
    }

    fn build(&self, _urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let (outputs, sides) = self.0.ends(D::FINALIZES_BUNDLES, step)?;
        let code = self.0.set_up(step, D::setup, D::teardown)?;
        Ok(any_receiver(ParDoOp::<D> {
            step: UserStep { code, outputs, sides },
            explodes: D::OBSERVES_WINDOW || self.0.has_side_inputs(),
        }))
    }
}

struct ParDoOp<D: DoFn> {
    step: UserStep<D, D::Out>,
    /// Whether elements in several windows are processed once for each.
    explodes: bool,
}

impl<D: DoFn> ParDoOp<D> {
    #[inline(always)]
    fn process(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        self.step.call(at, |dofn, mut ctx| dofn.process(value, &mut ctx))
    }

    #[cold]
    fn process_each_window(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        at.in_each_window()
            .try_for_each(|at| self.process(value.clone(), &at))
    }
}

impl<D: DoFn> Receiver<D::In> for ParDoOp<D> {
    fn receive(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        if self.explodes && matches!(at.windows, Windows::Many(_)) {
            return self.process_each_window(value, at);
        }
        self.process(value, at)
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.step.start(D::start_bundle)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.step.finish_bundle(D::finish_bundle)?;
        self.step.outputs.finish()
    }
}
