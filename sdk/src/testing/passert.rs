//! Assertions about the contents of PCollections.

use std::fmt::{Debug, Write};
use std::marker::PhantomData;
use std::panic::Location;

use purlin_model::Element;
use rustc_hash::FxHashMap;

use crate::dofn::{Context, DoFn};
use crate::error::{BoxError, DoFnResult, RunError, chain};
use crate::metrics::{MetricResults, Metrics};
use crate::pipeline::{Apply, BuiltPipeline, PCollection, PTransform};
use crate::primitives::{Flatten, Impulse};
use crate::windowing::{IntoWindow, Windowing};

use super::scope::{InScope, Panes, Scope};

/// Marks an assertion in the pipeline's proto, so that those that ran can be compared with those that there are.
pub(super) const ASSERTION: &str = "purlin:transform:passert:v1";
const NAMESPACE: &str = "purlin:passert";
const EXECUTED: &str = "executed";

/// An assertion about what a PCollection holds when the pipeline is done. Where it does not hold, the pipeline fails with
/// the difference; [`TestPipeline::run`](super::TestPipeline::run) also fails where it was never looked at.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let doubled = p.apply(Create::new([1i64, 2])).map("Double", |n: i64| 2 * n);
/// PAssert::that(&doubled).contains_in_any_order([4, 2]);
/// p.run();
/// ```
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let numbers = p.apply(Create::new([1i64, 2]));
/// PAssert::that(&numbers).contains_in_any_order([2, 3]);
/// let error = p.try_run().unwrap_err().to_string();
/// assert!(error.contains("missing: [3]") && error.contains("unexpected: [1]"), "{error}");
/// ```
///
/// It can be about one window, or about some panes of one:
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
/// let first = IntervalWindow { start: at(0), end: at(10) };
/// let p = TestPipeline::new();
/// let late = Windowing::fixed(Duration::from_secs(10)).allowed_lateness(Duration::from_secs(60));
/// let sums = p
///     .apply(TestStream::new().element(1i64, at(3)).advance_watermark_to(at(10)).element(2, at(4)))
///     .window_into("Windows", late)
///     .map("Key", |n: i64| ((), n))
///     .combine_per_key("Sum", Sum::new())
///     .values();
/// PAssert::that(&sums).in_window(first).contains_in_any_order([1, 2]);
/// PAssert::that(&sums).in_on_time_pane(first).equals(1);
/// PAssert::that(&sums).in_late_panes(first).equals(2);
/// p.run();
/// ```
#[must_use = "say what the collection should hold, such as .contains_in_any_order(..)"]
pub struct PAssert<T> {
    actual: PCollection<T>,
    name: String,
    scope: Option<Scope>,
    /// Where the assertion is written.
    at: &'static Location<'static>,
}

/// What the closure of [`PAssert::satisfies`] may return: nothing (it panics where something is wrong), or a `Result`.
pub trait Verdict {
    /// As a result.
    ///
    /// # Errors
    /// What is wrong.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Verdict for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> Verdict for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

impl<T: Element> PAssert<T> {
    /// About this collection. Where it does not hold, the error names the file and the line of this call.
    #[track_caller]
    pub fn that(actual: &PCollection<T>) -> PAssert<T> {
        PAssert {
            actual: actual.clone(),
            name: "PAssert".to_owned(),
            scope: None,
            at: Location::caller(),
        }
    }

    /// Its name in messages.
    pub fn named(mut self, name: &str) -> PAssert<T> {
        self.name = name.to_owned();
        self
    }

    fn scoped(mut self, window: impl IntoWindow, panes: Panes) -> PAssert<T> {
        self.scope = Some(Scope::new(window, panes));
        self
    }

    /// Only what is in this window, in whichever pane.
    pub fn in_window(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::All)
    }

    /// Only what is in the pane of this window that fired when the watermark passed the window's end.
    pub fn in_on_time_pane(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::OnTime)
    }

    /// Only what is in panes of this window that fired before the watermark passed the window's end.
    pub fn in_early_panes(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::Early)
    }

    /// Only what is in panes of this window that fired after the on-time one.
    pub fn in_late_panes(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::Late)
    }

    /// Only what is in panes of this window that are not late.
    pub fn in_non_late_panes(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::NotLate)
    }

    /// Only what is in the last pane of this window.
    pub fn in_final_pane(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::Last)
    }

    /// What is in this window, which has one pane alone: an element of a pane that is one of several fails the assertion.
    pub fn in_only_pane(self, window: impl IntoWindow) -> PAssert<T> {
        self.scoped(window, Panes::Only)
    }

    /// The collection satisfies the closure, which gets all elements, in no order, and panics or gives an error otherwise.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// PAssert::that(&p.apply(Create::new([1i64, 2]))).satisfies(|numbers: &[i64]| {
    ///     assert!(numbers.iter().all(|n| *n > 0));
    /// });
    /// p.run();
    /// ```
    pub fn satisfies<F, V>(self, check: F)
    where
        F: Fn(&[T]) -> V + Clone + Send + 'static,
        V: Verdict,
    {
        let PAssert {
            actual,
            name,
            scope,
            at,
        } = self;
        let check = move |elements: Vec<T>| {
            let verdict = check(&elements).into_result();
            verdict
                .map_err(|error| BoxError::from(format!("{}:{}: {}", at.file(), at.line(), chain(&*error))))
        };
        actual.apply_named(
            &name,
            Assertion {
                check,
                scope,
                element: PhantomData,
            },
        );
    }

    /// There are no elements.
    pub fn is_empty(self)
    where
        T: Debug,
    {
        self.satisfies(|elements: &[T]| match elements.len() {
            0 => Ok(()),
            n => Err(format!(
                "expected no elements, but there are {n}: {}",
                show(elements)
            )),
        });
    }
}

impl<T: Element + Debug + PartialEq> PAssert<T> {
    /// The collection has these elements, each as often as here.
    pub fn contains_in_any_order(self, expected: impl IntoIterator<Item = T>) {
        // As bytes: elements need not be `Sync` or cheap to clone.
        let expected: Vec<Vec<u8>> = expected.into_iter().map(|element| element.to_bytes()).collect();
        self.satisfies(move |actual: &[T]| compare(&expected, actual));
    }

    /// There is exactly one element, equal to this.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// PAssert::that(&p.apply(Create::new([1i64, 2])).apply(Count::globally())).equals(2);
    /// p.run();
    /// ```
    pub fn equals(self, expected: T) {
        self.contains_in_any_order([expected]);
    }
}

/// Some of many elements, for a message.
fn show<T: Debug>(elements: &[T]) -> String {
    const SHOWN: usize = 20;
    let mut text = format!("{:?}", &elements[..elements.len().min(SHOWN)]);
    if elements.len() > SHOWN {
        // Writing to a String does not fail.
        let _ = write!(text, " and {} more", elements.len() - SHOWN);
    }
    text
}

fn compare<T: Element + Debug + PartialEq>(expected: &[Vec<u8>], actual: &[T]) -> Result<(), BoxError> {
    // Equal encodings cancel out at once; only what is left is compared one with another.
    let mut wanted: FxHashMap<&[u8], usize> = FxHashMap::default();
    for bytes in expected {
        *wanted.entry(bytes).or_default() += 1;
    }
    let mut unexpected: Vec<&T> = Vec::new();
    for element in actual {
        match wanted.get_mut(&element.to_bytes()[..]) {
            Some(count) if *count > 0 => *count -= 1,
            _ => unexpected.push(element),
        }
    }
    let mut missing = Vec::new();
    for bytes in expected {
        let count = wanted.entry(bytes).or_default();
        if *count > 0 {
            *count -= 1;
            let element = T::from_bytes(bytes)?;
            match unexpected.iter().position(|other| **other == element) {
                Some(at) => {
                    unexpected.swap_remove(at);
                }
                None => missing.push(element),
            }
        }
    }
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the collection has {} elements, {} were expected; missing: {}; unexpected: {}",
        actual.len(),
        expected.len(),
        show(&missing),
        show(&unexpected)
    )
    .into())
}

struct Assertion<T, F> {
    check: F,
    scope: Option<Scope>,
    element: PhantomData<fn(T)>,
}

impl<T, F> PTransform<PCollection<T>> for Assertion<T, F>
where
    T: Element,
    F: Fn(Vec<T>) -> Result<(), BoxError> + Clone + Send + 'static,
{
    type Output = ();

    fn name(&self) -> String {
        "PAssert".into()
    }

    fn expand(self, input: PCollection<T>) {
        let pipeline = input.pipeline().clone();
        pipeline.set_spec(ASSERTION, Vec::new());
        let to_the_end = Windowing {
            to_the_end: true,
            ..Windowing::global()
        };
        // What is asserted of is told by the steps' names: errors and panics bear them.
        let about = self
            .scope
            .as_ref()
            .map_or_else(String::new, |scope| format!(" {scope}"));
        let input = match self.scope {
            Some(scope) => {
                let name = format!("Pick{about}");
                input.par_do(
                    &name,
                    InScope {
                        scope,
                        element: PhantomData,
                    },
                )
            }
            None => input,
        };
        let elements = input
            .window_into("Global", to_the_end)
            .map("Pair", |element: T| ((), vec![element]));
        // The check runs for an empty collection, too. It is an empty list that says so: Flink keeps no null in its state.
        let one = pipeline.apply(Impulse).map("PairNone", |_| ((), Vec::new()));
        vec![elements, one]
            .apply(Flatten::new())
            .group_by_key("Gather")
            .par_do(
                &format!("Verify{about}"),
                Verify {
                    check: self.check,
                    element: PhantomData,
                },
            );
    }
}

struct Verify<T, F> {
    check: F,
    element: PhantomData<fn(T)>,
}

impl<T, F: Clone> Clone for Verify<T, F> {
    fn clone(&self) -> Self {
        Verify {
            check: self.check.clone(),
            element: PhantomData,
        }
    }
}

impl<T, F> DoFn for Verify<T, F>
where
    T: Element,
    F: Fn(Vec<T>) -> Result<(), BoxError> + Clone + Send + 'static,
{
    type In = ((), Vec<Vec<T>>);
    type Out = ();

    fn process(&mut self, (_, elements): Self::In, _ctx: &mut Context<'_, ()>) -> DoFnResult {
        (self.check)(elements.into_iter().flatten().collect())?;
        Metrics::counter(NAMESPACE, EXECUTED).inc(1);
        Ok(())
    }
}

/// Fails where an assertion of the pipeline never ran: a test that does not test must not pass.
///
/// # Errors
/// How many there are and how many ran.
pub(crate) fn verify_assertions(built: &BuiltPipeline, metrics: &MetricResults) -> Result<(), RunError> {
    let transforms = built
        .proto
        .components
        .iter()
        .flat_map(|components| components.transforms.values());
    let there =
        transforms.filter(|transform| transform.spec.as_ref().is_some_and(|spec| spec.urn == ASSERTION));
    check_count(there.count(), metrics.counter(NAMESPACE, EXECUTED))
}

fn check_count(there: usize, ran: i64) -> Result<(), RunError> {
    if i64::try_from(there).is_ok_and(|there| ran >= there) {
        return Ok(());
    }
    Err(RunError::Failed(format!(
        "{there} assertions (PAssert) are in the pipeline but {ran} of them ran: the pipeline ended before it reached them \
         all"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(expected: &[f64], actual: &[f64]) -> String {
        let expected: Vec<_> = expected.iter().map(Element::to_bytes).collect();
        compare(&expected, actual)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn the_difference_is_told() {
        assert_eq!(difference(&[1.0, 2.0, 2.0], &[2.0, 1.0, 2.0]), "");
        // Equal, though the encodings differ.
        assert_eq!(difference(&[0.0], &[-0.0]), "");
        assert_eq!(
            difference(&[1.0, 2.0, 2.0], &[2.0, 1.0, 3.0]),
            "the collection has 3 elements, 3 were expected; missing: [2.0]; unexpected: [3.0]"
        );
        assert_eq!(
            difference(&[], &[1.0]),
            "the collection has 1 elements, 0 were expected; missing: []; unexpected: [1.0]"
        );
    }

    #[test]
    fn many_are_cut_short() {
        let text = difference(&[], &(0..30).map(f64::from).collect::<Vec<_>>());
        assert!(text.ends_with("19.0] and 10 more"), "{text}");
    }

    #[test]
    fn an_assertion_that_did_not_run_fails() {
        assert!(check_count(2, 2).is_ok());
        assert!(
            check_count(2, 1)
                .unwrap_err()
                .to_string()
                .contains("2 assertions (PAssert)")
        );
    }
}
