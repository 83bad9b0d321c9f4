//! [`CombineFn`]: aggregation that can be spread over workers.

use purlin_model::Element;

/// Combines values of a key (or of a whole collection) by way of accumulators, which can be merged in any order.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone)]
/// struct Mean;
///
/// impl CombineFn for Mean {
///     type In = f64;
///     type Accumulator = (f64, u64);
///     type Out = f64;
///
///     fn create_accumulator(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///     fn add_input(&self, accumulator: &mut (f64, u64), input: f64) {
///         accumulator.0 += input;
///         accumulator.1 += 1;
///     }
///     fn merge_accumulators(&self, into: &mut (f64, u64), other: (f64, u64)) {
///         into.0 += other.0;
///         into.1 += other.1;
///     }
///     fn extract_output(&self, accumulator: (f64, u64)) -> f64 {
///         accumulator.0 / accumulator.1.max(1) as f64
///     }
/// }
///
/// let p = Pipeline::new();
/// let mean: PCollection<f64> = p.apply(Create::new([1.0, 2.0])).combine_globally("Mean", Mean);
/// # p.build().unwrap();
/// ```
pub trait CombineFn: Clone + Send + 'static {
    /// What is combined.
    type In: Element;
    /// What is known of the values so far.
    type Accumulator: Element;
    /// What comes out.
    type Out: Element;

    /// An accumulator of no values.
    fn create_accumulator(&self) -> Self::Accumulator;
    /// Adds a value to an accumulator.
    fn add_input(&self, accumulator: &mut Self::Accumulator, input: Self::In);
    /// Adds all that another accumulator knows.
    fn merge_accumulators(&self, into: &mut Self::Accumulator, other: Self::Accumulator);
    /// The result.
    fn extract_output(&self, accumulator: Self::Accumulator) -> Self::Out;
}
