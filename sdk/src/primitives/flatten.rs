//! `beam:transform:flatten:v1`.

use purlin_model::Element;
use purlin_proto::urns::transforms;

use crate::pipeline::{Apply, PCollection, PTransform, PValue};

/// All elements of several PCollections of one type.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let a = p.apply(Create::new([1i64]));
/// let b = p.apply(Create::new([2i64]));
/// let all = vec![a, b].apply(Flatten::new());
/// # p.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;

impl Flatten {
    /// All elements of several PCollections.
    pub fn new() -> Flatten {
        Flatten
    }
}

fn flatten<T: Element>(inputs: &[PCollection<T>]) -> PCollection<T> {
    // `apply` refuses an input without PCollections.
    let first = &inputs[0];
    let pipeline = first.pipeline();
    let windowing = first.windowing();
    for other in inputs {
        if other.windowing().window_fn() != windowing.window_fn() {
            pipeline.problem(format!(
                "\"{}\" has windows {} but \"{}\" has {}; apply window_into so that all have the same",
                first.name(),
                windowing.window_fn(),
                other.name(),
                other.windowing().window_fn()
            ));
        }
        if other.pipeline().id() != pipeline.id() {
            pipeline.problem(format!("\"{}\" belongs to another pipeline", other.name()));
        }
    }
    pipeline.set_spec(transforms::FLATTEN, Vec::new());
    pipeline.new_collection("out", windowing, inputs.iter().all(PCollection::is_bounded))
}

impl<T: Element> PTransform<Vec<PCollection<T>>> for Flatten {
    type Output = PCollection<T>;
    fn name(&self) -> String {
        "Flatten".into()
    }
    fn expand(self, inputs: Vec<PCollection<T>>) -> PCollection<T> {
        flatten(&inputs)
    }
}

impl<T: Element, const N: usize> PTransform<[PCollection<T>; N]> for Flatten
where
    [PCollection<T>; N]: PValue,
{
    type Output = PCollection<T>;
    fn name(&self) -> String {
        "Flatten".into()
    }
    fn expand(self, inputs: [PCollection<T>; N]) -> PCollection<T> {
        flatten(&inputs)
    }
}

impl<T: Element> PTransform<(PCollection<T>, PCollection<T>)> for Flatten {
    type Output = PCollection<T>;
    fn name(&self) -> String {
        "Flatten".into()
    }
    fn expand(self, (a, b): (PCollection<T>, PCollection<T>)) -> PCollection<T> {
        flatten(&[a, b])
    }
}

impl<T: Element> PCollection<T> {
    /// The elements of this collection and of another one.
    pub fn union(&self, name: &str, other: &PCollection<T>) -> PCollection<T> {
        vec![self.clone(), other.clone()].apply_named(name, Flatten)
    }
}
