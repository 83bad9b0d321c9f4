//! Counts, sums and means.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use purlin_model::Element;

use super::{Globally, PerKey};
use crate::combine::CombineFn;
use crate::pipeline::{PCollection, PTransform};

macro_rules! unit_combiner {
    ($name:ident) => {
        impl<T> $name<T> {
            /// The combiner.
            pub fn new() -> $name<T> {
                $name(PhantomData)
            }

            /// Over a whole collection.
            pub fn globally() -> Globally<$name<T>> {
                Globally::new(stringify!($name), $name::new())
            }

            /// Over the values of each key.
            pub fn per_key() -> PerKey<$name<T>> {
                PerKey::new(stringify!($name), $name::new())
            }
        }

        crate::transforms::combiners::numbers::unit_traits!($name);
    };
}

macro_rules! unit_traits {
    ($name:ident) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                $name(PhantomData)
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                $name(PhantomData)
            }
        }

        impl<T> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

pub(super) use {unit_combiner, unit_traits};

/// How many elements there are.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let words = p.apply(Create::new(["a".to_string(), "b".to_string(), "a".to_string()]));
/// PAssert::that(&words.apply(Count::globally())).equals(3);
/// PAssert::that(&words.apply(Count::per_element()))
///     .contains_in_any_order([("a".to_string(), 2), ("b".to_string(), 1)]);
/// p.run();
/// ```
pub struct Count<T>(PhantomData<fn(T)>);

unit_combiner!(Count);

impl Count<()> {
    /// How often each element comes. Elements are the same when their encodings are.
    pub fn per_element() -> PerElement {
        PerElement
    }
}

impl<T: Element> CombineFn for Count<T> {
    type In = T;
    type Accumulator = u64;
    type Out = u64;

    #[inline]
    fn create_accumulator(&self) -> u64 {
        0
    }

    #[inline]
    fn add_input(&self, accumulator: &mut u64, _input: T) {
        *accumulator += 1;
    }

    #[inline]
    fn merge_accumulators(&self, into: &mut u64, other: u64) {
        // Counts that were forged on the wire must not panic.
        *into = into.saturating_add(other);
    }

    #[inline]
    fn extract_output(&self, accumulator: u64) -> u64 {
        accumulator
    }
}

/// See [`Count::per_element`].
#[derive(Clone, Copy, Debug)]
pub struct PerElement;

impl<T: Element + Eq + Hash> PTransform<PCollection<T>> for PerElement {
    type Output = PCollection<(T, u64)>;

    fn name(&self) -> String {
        "Count.PerElement".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<(T, u64)> {
        input
            .map("PairWithVoid", |element: T| (element, ()))
            .combine_per_key("Count", Count::new())
    }
}

impl<T: Element + Eq + Hash> PCollection<T> {
    /// How often each element comes: [`Count::per_element`].
    pub fn count_per_element(&self) -> PCollection<(T, u64)> {
        self.apply(PerElement)
    }
}

/// A type of numbers that can be summed and averaged.
pub trait Number: Element + fmt::Debug {
    /// 0.
    const ZERO: Self;
    /// The sum, if it fits.
    fn plus(self, other: Self) -> Option<Self>;
    /// The nearest double.
    fn to_f64(self) -> f64;
}

macro_rules! integers {
    ($($int:ty),+) => { $(
        impl Number for $int {
            const ZERO: $int = 0;
            #[inline]
            fn plus(self, other: $int) -> Option<$int> {
                self.checked_add(other)
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )+ };
}

macro_rules! floats {
    ($($float:ty),+) => { $(
        impl Number for $float {
            const ZERO: $float = 0.0;
            #[inline]
            fn plus(self, other: $float) -> Option<$float> {
                Some(self + other)
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }
        }
    )+ };
}

integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);
floats!(f32, f64);

/// The sum of numbers; 0 for none. A sum of integers that does not fit their type fails the pipeline.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let sales = p.apply(Create::new([("a".to_string(), 1i64), ("b".to_string(), 2), ("a".to_string(), 3)]));
/// PAssert::that(&sales.apply(Sum::per_key()))
///     .contains_in_any_order([("a".to_string(), 4), ("b".to_string(), 2)]);
/// PAssert::that(&sales.values().apply(Sum::globally())).equals(6);
/// p.run();
/// ```
pub struct Sum<T>(PhantomData<fn(T)>);

unit_combiner!(Sum);

#[inline]
fn add<T: Number>(into: &mut T, other: T) {
    match into.clone().plus(other.clone()) {
        Some(sum) => *into = sum,
        None => overflow(into, &other),
    }
}

#[cold]
#[expect(clippy::panic, reason = "user code, whose panics fail their bundle")]
fn overflow<T: Number>(a: &T, b: &T) -> ! {
    let name = std::any::type_name::<T>();
    panic!(
        "the sum {a:?} + {b:?} does not fit {name}: make the elements f64 or a wider integer before they are summed"
    );
}

impl<T: Number> CombineFn for Sum<T> {
    type In = T;
    type Accumulator = T;
    type Out = T;

    #[inline]
    fn create_accumulator(&self) -> T {
        T::ZERO
    }

    #[inline]
    fn add_input(&self, accumulator: &mut T, input: T) {
        add(accumulator, input);
    }

    #[inline]
    fn merge_accumulators(&self, into: &mut T, other: T) {
        add(into, other);
    }

    #[inline]
    fn extract_output(&self, accumulator: T) -> T {
        accumulator
    }
}

/// The arithmetic mean of numbers, as a double; NaN for none.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let numbers = p.apply(Create::new([1i64, 2, 6]));
/// PAssert::that(&numbers.apply(Mean::globally())).equals(3.0);
/// p.run();
/// ```
pub struct Mean<T>(PhantomData<fn(T)>);

unit_combiner!(Mean);

impl<T: Number> CombineFn for Mean<T> {
    type In = T;
    type Accumulator = (f64, u64);
    type Out = f64;

    #[inline]
    fn create_accumulator(&self) -> (f64, u64) {
        (0.0, 0)
    }

    #[inline]
    fn add_input(&self, (sum, count): &mut (f64, u64), input: T) {
        *sum += input.to_f64();
        *count += 1;
    }

    #[inline]
    fn merge_accumulators(&self, (sum, count): &mut (f64, u64), other: (f64, u64)) {
        *sum += other.0;
        *count = count.saturating_add(other.1);
    }

    #[inline]
    fn extract_output(&self, (sum, count): (f64, u64)) -> f64 {
        sum / count as f64
    }
}
