//! `beam:transform:combine_per_key:v1` and combining of whole collections.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use purlin_model::Element;
use purlin_proto::pipeline::{CombinePayload, FunctionSpec, ParDoPayload};
use purlin_proto::urns::transforms;

use super::{GroupByKey, Impulse, ParDo};
use crate::closure::{CLOSURE_COMBINE_FN, ClosurePayload};
use crate::combine::CombineFn;
use crate::dofn::Context;
use crate::harness::CombineNode;
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::Pair;
use crate::stage::Node;
use crate::windowing::WindowFn;

/// Combines the values of each key. What can be combined before the grouping is.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let sums: PCollection<(String, i64)> = p
///     .apply(Create::new([("a".to_string(), 1i64), ("a".to_string(), 2)]))
///     .apply(CombinePerKey::new("Sum", Sum::new()));
/// # p.build().unwrap();
/// ```
#[derive(Clone)]
pub struct CombinePerKey<F> {
    name: String,
    combine: F,
}

impl<F: CombineFn> CombinePerKey<F> {
    /// Combines by this function.
    pub fn new(name: &str, combine: F) -> Self {
        CombinePerKey {
            name: name.to_owned(),
            combine,
        }
    }
}

impl<T, F> PTransform<PCollection<T>> for CombinePerKey<F>
where
    T: Pair<Key: Eq + Hash, Value = F::In>,
    F: CombineFn,
{
    type Output = PCollection<(T::Key, F::Out)>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        let pipeline = input.pipeline();
        let node = Arc::new(CombineNode::<T::Key, F>::new(self.combine));
        let type_name = node.type_name().to_owned();
        let path = pipeline.register(node);
        let combine_fn = ClosurePayload { path, type_name }.to_spec(CLOSURE_COMBINE_FN);
        let payload = CombinePayload {
            combine_fn: Some(combine_fn.clone()),
            accumulator_coder_id: pipeline.coder_id(&F::Accumulator::coder()),
        };
        pipeline.set_spec(transforms::COMBINE_PER_KEY, payload.encode_to_vec());
        pipeline.in_environment();
        // Runners take these apart as they like; one that does not know the composite runs what is in it.
        input.apply(GroupByKey).apply(CombineGroupedValues::<F> {
            combine_fn,
            combine: std::marker::PhantomData,
        })
    }
}

/// A ParDo: runners know no leaf that combines grouped values.
struct CombineGroupedValues<F> {
    combine_fn: FunctionSpec,
    combine: std::marker::PhantomData<F>,
}

impl<K: Element + Eq + Hash, F: CombineFn> PTransform<PCollection<(K, Vec<F::In>)>>
    for CombineGroupedValues<F>
{
    type Output = PCollection<(K, F::Out)>;

    fn name(&self) -> String {
        "CombineGroupedValues".into()
    }

    fn expand(self, input: PCollection<(K, Vec<F::In>)>) -> PCollection<(K, F::Out)> {
        let pipeline = input.pipeline();
        let payload = ParDoPayload {
            do_fn: Some(self.combine_fn),
            ..Default::default()
        };
        pipeline.set_spec(transforms::PAR_DO, payload.encode_to_vec());
        pipeline.in_environment();
        pipeline.new_collection("out", input.windowing(), input.is_bounded())
    }
}

/// Combines all elements of a collection, by window.
///
/// In the global window there is a result even where there are no elements, unless [`CombineGlobally::without_defaults`]
/// says otherwise; other windows need it to say so.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let sum: PCollection<i64> = p.apply(Create::new([1i64, 2])).apply(CombineGlobally::new("Sum", Sum::new()));
/// # p.build().unwrap();
/// ```
#[derive(Clone)]
pub struct CombineGlobally<F> {
    name: String,
    combine: F,
    defaults: bool,
}

impl<F: CombineFn> CombineGlobally<F> {
    /// Combines by this function.
    pub fn new(name: &str, combine: F) -> Self {
        CombineGlobally {
            name: name.to_owned(),
            combine,
            defaults: true,
        }
    }

    /// No elements, no result.
    #[must_use]
    pub fn without_defaults(mut self) -> Self {
        self.defaults = false;
        self
    }
}

impl<F: CombineFn> PTransform<PCollection<F::In>> for CombineGlobally<F> {
    type Output = PCollection<F::Out>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<F::In>) -> PCollection<F::Out> {
        let combine = self.combine.clone();
        let combined = input
            .map("WithVoidKey", |value| ((), value))
            .apply(CombinePerKey::new("CombinePerKey", self.combine))
            .map("DropVoidKey", |((), value)| value);
        if !self.defaults {
            return combined;
        }
        let pipeline = input.pipeline();
        let windowing = input.windowing();
        if *windowing.window_fn() != WindowFn::Global {
            pipeline.problem(format!(
                "combine_globally cannot know for which windows without elements ({}) it is to give a default; use \
                 CombineGlobally::new(..).without_defaults()",
                windowing.window_fn()
            ));
            return combined;
        }
        if !input.is_bounded() {
            // The result of an empty stream would come at the end of time.
            return combined;
        }
        // As bytes, for results that threads cannot share.
        let view = combined
            .map("Encode", |result| Bytes::from(result.to_bytes()))
            .as_list();
        pipeline.apply(Impulse).apply(
            ParDo::of("OrDefault", {
                let view = view.clone();
                move |_: Vec<u8>, ctx: &mut Context<'_, F::Out>| {
                    let results = ctx.side(&view)?;
                    if results.is_empty() {
                        ctx.output(combine.extract_output(combine.create_accumulator()));
                    }
                    for result in results.iter() {
                        ctx.output(F::Out::from_bytes(result)?);
                    }
                    Ok(())
                }
            })
            .with_side_input(&view),
        )
    }
}

impl<T: Element> PCollection<T> {
    /// Combines all elements; see [`CombineGlobally`].
    pub fn combine_globally<F>(&self, name: &str, combine: F) -> PCollection<F::Out>
    where
        F: CombineFn<In = T>,
    {
        self.apply(CombineGlobally::new(name, combine))
    }
}

impl<T: Element> PCollection<T> {
    /// Combines the values of each key; see [`CombinePerKey`].
    pub fn combine_per_key<F>(&self, name: &str, combine: F) -> PCollection<(T::Key, F::Out)>
    where
        T: Pair<Key: Eq + Hash>,
        F: CombineFn<In = T::Value>,
    {
        self.apply(CombinePerKey::new(name, combine))
    }
}
