//! Applying transforms.

use super::PValue;

/// A transform: a step of a pipeline, or a composite of steps.
///
/// ```
/// use purlin::prelude::*;
///
/// /// Counts words.
/// struct CountWords;
///
/// impl PTransform<PCollection<String>> for CountWords {
///     type Output = PCollection<(String, u64)>;
///
///     fn name(&self) -> String {
///         "CountWords".into()
///     }
///
///     fn expand(self, lines: PCollection<String>) -> Self::Output {
///         lines
///             .flat_map("Split", |l: String| l.split(' ').map(str::to_owned).collect::<Vec<_>>())
///             .map("PairWithOne", |w| (w, 1u64))
///             .combine_per_key("Sum", Sum::new())
///     }
/// }
///
/// let p = Pipeline::new();
/// let counts = p.apply(Create::new(["a b a".to_string()])).apply(CountWords);
/// # p.build().unwrap();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be applied to `{In}`",
    label = "a transform of another input",
    note = "root transforms such as `Create` and `ReadText` are applied to the pipeline, others to PCollections of the right element type"
)]
pub trait PTransform<In> {
    /// What comes out.
    type Output: PValue;

    /// The name it is applied under where no other is given.
    fn name(&self) -> String;

    /// Applies the steps of the transform to its input.
    fn expand(self, input: In) -> Self::Output;
}

/// `apply` for all inputs: PCollections, tuples, arrays and vectors of them.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let a = p.apply(Create::new([1i64]));
/// let b = p.apply(Create::new([2i64]));
/// let both = [a, b].apply(Flatten::new());
/// # p.build().unwrap();
/// ```
pub trait Apply: PValue + Clone + Sized {
    /// Applies a transform under its own name.
    fn apply<T: PTransform<Self>>(&self, transform: T) -> T::Output {
        let name = transform.name();
        self.apply_named(&name, transform)
    }

    /// Applies a transform under this name.
    ///
    /// # Panics
    /// When there is no PCollection in the input (an empty vector): it belongs to no pipeline.
    #[expect(
        clippy::panic,
        reason = "documented: there is no pipeline that could be told of it"
    )]
    fn apply_named<T: PTransform<Self>>(&self, name: &str, transform: T) -> T::Output {
        let Some(pipeline) = self.pipeline_of() else {
            panic!("transform \"{name}\" is applied to no PCollection at all: it needs at least one");
        };
        let mut inputs = Vec::new();
        self.collections(&mut |c| inputs.push(c.0));
        let scope = pipeline.lock().enter(name, inputs);
        let output = transform.expand(self.clone());
        let mut outputs = Vec::new();
        output.collections(&mut |c| outputs.push(c.0));
        pipeline.lock().leave(scope, outputs);
        output
    }
}

impl<V: PValue + Clone> Apply for V {}
