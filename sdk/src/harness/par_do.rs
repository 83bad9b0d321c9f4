//! `beam:transform:pardo:v1` with a [`DoFn`].

use purlin_model::{Header, Windows};
use purlin_proto::urns::transforms;

use super::user_code::{Prototype, UserStep};
use crate::dofn::DoFn;
use crate::stage::edge::{AnyReceiver, Receiver};
use crate::stage::element::{ElementType, any_receiver};
use crate::stage::failure::Failure;
use crate::stage::node::{Node, Signature, StepBuilder};

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
        if self.step.is_careful() {
            return self.process_carefully(value, at);
        }
        self.step.call(at, |dofn, mut ctx| dofn.process(value, &mut ctx))
    }

    #[cold]
    fn process_carefully(&mut self, value: D::In, at: &Header) -> Result<(), Failure> {
        let before = self.step.note(&value, at);
        self.step
            .call(at, |dofn, mut ctx| dofn.process(value, &mut ctx))?;
        self.step.noted(before);
        Ok(())
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

    fn receive_all(&mut self, values: &mut Vec<D::In>, at: &Header) -> Result<(), Failure> {
        if self.explodes && matches!(at.windows, Windows::Many(_)) {
            let mut values = values.drain(..);
            return values.try_for_each(|value| self.process_each_window(value, at));
        }
        if self.step.is_careful() {
            return values
                .drain(..)
                .try_for_each(|value| self.process_carefully(value, at));
        }
        self.step
            .call(at, |dofn, mut ctx| dofn.process_batch(values, &mut ctx))
    }

    fn batches(&self) -> bool {
        true
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.step.start(D::start_bundle)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.step.finish_bundle(D::finish_bundle)?;
        self.step.outputs.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    use purlin_model::Timestamp;

    use super::super::user_code::Code;
    use super::*;
    use crate::dofn::{Context, ContextFn, FilterFn, FlatMapFn, MapFn, Outputs, TryMapFn};
    use crate::side_input::SideReaders;
    use crate::stage::bundle::BundleCell;
    use crate::stage::edge::{Edge, ElementCount};

    type Seen = Rc<RefCell<Vec<(i64, Timestamp)>>>;

    /// Keeps what comes, and fails at one of them.
    struct Keep {
        seen: Seen,
        fails_at: i64,
    }

    impl Receiver<i64> for Keep {
        fn receive(&mut self, value: i64, at: &Header) -> Result<(), Failure> {
            if value == self.fails_at {
                return Err(Failure::message("Keep", "it is full"));
            }
            self.seen.borrow_mut().push((value, at.timestamp));
            Ok(())
        }
        fn batches(&self) -> bool {
            true
        }
        fn start(&mut self) -> Result<(), Failure> {
            Ok(())
        }
        fn finish(&mut self) -> Result<(), Failure> {
            Ok(())
        }
    }

    /// What comes out of a DoFn for numbers from 0 on, with its count, or the error.
    fn run<D: DoFn<In = i64, Out = i64>>(
        dofn: D,
        batch: usize,
        fails_at: i64,
    ) -> Result<(Vec<(i64, Timestamp)>, u64), String> {
        let (seen, count) = (Seen::default(), ElementCount::default());
        let keep = Keep {
            seen: seen.clone(),
            fails_at,
        };
        let edge = Edge::new(count.clone(), vec![Box::new(keep)]);
        let bundle = Rc::new(BundleCell::new(Arc::default()));
        let sides = SideReaders {
            transform_id: String::new(),
            bundle,
            readers: Vec::new(),
        };
        let step = UserStep {
            code: Code::new(dofn, "User", 0, D::teardown),
            outputs: Outputs::new(edge, Vec::new(), 0, "User".into()),
            sides,
        };
        let mut op = ParDoOp {
            step,
            explodes: false,
        };
        let process = |op: &mut ParDoOp<D>| {
            op.start()?;
            let numbers: Vec<i64> = (0..100).collect();
            for values in numbers.chunks(batch) {
                let mut values = values.to_vec();
                match values[..] {
                    [one] => op.receive(one, &Header::IMPULSE)?,
                    _ => op.receive_all(&mut values, &Header::IMPULSE)?,
                }
            }
            op.finish()
        };
        process(&mut op).map_err(|failure| failure.to_string())?;
        Ok((seen.take(), count.get()))
    }

    fn check<D: DoFn<In = i64, Out = i64>>(dofn: D) {
        let one_by_one = run(dofn.clone(), 1, -1).unwrap();
        assert_eq!(one_by_one.1, one_by_one.0.len() as u64);
        for batch in [2, 7, 100] {
            assert_eq!(run(dofn.clone(), batch, -1).unwrap(), one_by_one);
        }
    }

    #[test]
    fn batches_come_to_the_same_as_single_elements_in_order() {
        check(MapFn::new(|n: i64| n * 3));
        check(FilterFn::<_, i64, i64>::new(|n: &i64| n % 3 == 1));
        check(FlatMapFn::new(|n: i64| n..n + n % 4));
        check(ContextFn::new(|n: i64, ctx: &mut Context<'_, i64>| {
            ctx.output(n);
            if n % 5 == 0 {
                ctx.output_with_timestamp(-n - 2, Timestamp::from_millis(n));
                ctx.output(1000 + n);
            }
            Ok(())
        }));
    }

    #[test]
    fn what_fails_in_a_batch_is_named() {
        let odd = |n: i64| match n {
            50 => Err("50 is not wanted"),
            n => Ok(n),
        };
        for batch in [1, 7, 100] {
            let failing = TryMapFn::<_, i64, Result<i64, &str>>::new(odd);
            let error = run(failing.clone(), batch, -1).unwrap_err();
            assert_eq!(error, "transform \"User\": 50 is not wanted");
            let error = run(MapFn::new(|n: i64| n), batch, 50).unwrap_err();
            assert_eq!(error, "transform \"Keep\": it is full");
        }
    }
}
