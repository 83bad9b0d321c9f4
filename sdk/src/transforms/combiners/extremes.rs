//! Smallest and largest elements.

use std::cmp::Ordering;
use std::marker::PhantomData;

use purlin_model::Element;

use super::numbers::unit_traits;
use super::{GloballyIfAny, PerKey};
use crate::combine::CombineFn;

macro_rules! extreme {
    ($(#[$doc:meta])* $name:ident, $wins:pat) => {
        $(#[$doc])*
        pub struct $name<T>(PhantomData<fn(T)>);

        impl<T> $name<T> {
            /// The combiner. Over a whole collection that may be empty, take `globally` or `without_defaults`: of no
            /// elements there is none to give.
            pub fn new() -> $name<T> {
                $name(PhantomData)
            }

            /// Over a whole collection; of an empty one there is no element.
            pub fn globally() -> GloballyIfAny<$name<T>> {
                GloballyIfAny { name: stringify!($name), combine: $name::new() }
            }

            /// Over the values of each key.
            pub fn per_key() -> PerKey<$name<T>> {
                PerKey::new(stringify!($name), $name::new())
            }
        }

        unit_traits!($name);

        impl<T: Element + PartialOrd> CombineFn for $name<T> {
            type In = T;
            type Accumulator = Option<T>;
            type Out = T;

            #[inline]
            fn create_accumulator(&self) -> Option<T> {
                None
            }

            #[inline]
            fn add_input(&self, accumulator: &mut Option<T>, input: T) {
                let better = match accumulator {
                    None => true,
                    Some(best) => match input.partial_cmp(best) {
                        Some($wins) => true,
                        Some(_) => false,
                        // A value such as NaN, which is not even equal to itself, gives way to any other.
                        None => best.partial_cmp(&best).is_none(),
                    },
                };
                if better {
                    *accumulator = Some(input);
                }
            }

            #[inline]
            fn merge_accumulators(&self, into: &mut Option<T>, other: Option<T>) {
                if let Some(other) = other {
                    self.add_input(into, other);
                }
            }

            fn extract_output(&self, accumulator: Option<T>) -> T {
                match accumulator {
                    Some(best) => best,
                    None => panic!(
                        "no elements have no {0}: apply {0}::globally(), which gives nothing for an empty collection, \
                         or .without_defaults()",
                        stringify!($name)
                    ),
                }
            }
        }
    };
}

extreme!(
    /// The smallest of the elements. Values that have no order, such as NaN, count only where there are no others.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let numbers = p.apply(Create::new([3i64, 1, 2]));
    /// PAssert::that(&numbers.apply(Min::globally())).equals(1);
    /// p.run();
    /// ```
    Min,
    Ordering::Less
);

extreme!(
    /// The largest of the elements. Values that have no order, such as NaN, count only where there are no others.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let pairs = p.apply(Create::new([("a".to_string(), 3i64), ("a".to_string(), 7)]));
    /// PAssert::that(&pairs.apply(Max::per_key())).equals(("a".to_string(), 7));
    /// p.run();
    /// ```
    Max,
    Ordering::Greater
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_gives_way() {
        for values in [[f64::NAN, 1.0, 2.0], [1.0, f64::NAN, 2.0], [2.0, 1.0, f64::NAN]] {
            let (min, max) = (Min::new(), Max::new());
            let (mut low, mut high) = (None, None);
            for value in values {
                min.add_input(&mut low, value);
                max.add_input(&mut high, value);
            }
            assert_eq!((low, high), (Some(1.0), Some(2.0)));
        }
    }
}
