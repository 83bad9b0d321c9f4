//! Grouping by fields.

use std::marker::PhantomData;

use purlin_model::{DecodeError, Element};

use super::aggregate::{AggregateValue, Aggregates, Binding, FieldAggregate, FnAggregate};
use super::select::{Projection, assemble};
use crate::combine::CombineFn;
use crate::pipeline::{PCollection, PTransform};
use crate::schema::fields::type_name;
use crate::schema::{RowSchema, Schema};

/// Groups rows by fields and aggregates others, into rows of another type: its fields are those of the key and the results.
///
/// That all fields are there and of the right type is checked when the pipeline is built. Null is a key like any other;
/// values that are null are left out, and the result of a group without any is null, as in SQL.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone, Debug, Schema)]
/// struct Purchase {
///     user: String,
///     country: String,
///     cents: i64,
/// }
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct Report {
///     country: String,
///     total: i64,
///     largest: i64,
///     purchases: i64,
/// }
///
/// let p = TestPipeline::new();
/// let bought = |user: &str, cents| Purchase { user: user.into(), country: "IT".into(), cents };
/// let purchases = p.apply(Create::new([bought("a", 500), bought("b", 300)]));
/// let report = purchases.apply(
///     GroupByFields::<Report>::on(["country"])
///         .aggregate("cents", Sum::<i64>::new(), "total")
///         .aggregate("cents", Max::<i64>::new(), "largest")
///         .aggregate("user", Count::<String>::new(), "purchases"),
/// );
/// PAssert::that(&report).equals(Report { country: "IT".into(), total: 800, largest: 500, purchases: 2 });
/// p.run();
/// ```
#[derive(Clone, Debug)]
pub struct GroupByFields<Out, L = ()> {
    keys: Vec<String>,
    aggregates: L,
    out: PhantomData<fn() -> Out>,
}

impl<Out: Schema> GroupByFields<Out> {
    /// Rows are of one group when these fields are equal. No fields: all rows are of one group.
    pub fn on<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> GroupByFields<Out> {
        GroupByFields {
            keys: keys.into_iter().map(|key| key.as_ref().to_owned()).collect(),
            aggregates: (),
            out: PhantomData,
        }
    }
}

impl<Out: Schema, L> GroupByFields<Out, L> {
    fn with<A>(self, aggregate: A) -> GroupByFields<Out, (L, A)> {
        GroupByFields {
            keys: self.keys,
            aggregates: (self.aggregates, aggregate),
            out: PhantomData,
        }
    }

    /// Combines the values of the field `from` into the field `to`.
    #[must_use]
    pub fn aggregate<F: CombineFn>(
        self,
        from: &str,
        combine: F,
        to: &str,
    ) -> GroupByFields<Out, (L, FieldAggregate<F>)>
    where
        F::In: AggregateValue,
        F::Out: AggregateValue,
    {
        self.with(FieldAggregate::new(from, combine, to))
    }

    /// Combines what the closure gives for each row into the field `to`.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// #[derive(Clone, Debug, Schema)]
    /// struct Line {
    ///     order: i64,
    ///     number: i64,
    ///     cents: i64,
    /// }
    /// #[derive(Clone, Debug, PartialEq, Schema)]
    /// struct Total {
    ///     order: i64,
    ///     cents: i64,
    /// }
    ///
    /// let p = TestPipeline::new();
    /// let lines = p.apply(Create::new([Line { order: 1, number: 3, cents: 20 }, Line { order: 1, number: 1, cents: 5 }]));
    /// let totals = lines.apply(
    ///     GroupByFields::<Total>::on(["order"])
    ///         .aggregate_with(|line: &Line| line.number * line.cents, Sum::<i64>::new(), "cents"),
    /// );
    /// PAssert::that(&totals).equals(Total { order: 1, cents: 65 });
    /// p.run();
    /// ```
    #[must_use]
    pub fn aggregate_with<T, F, E>(
        self,
        value: E,
        combine: F,
        to: &str,
    ) -> GroupByFields<Out, (L, FnAggregate<E, F>)>
    where
        F: CombineFn,
        F::Out: AggregateValue,
        E: Fn(&T) -> F::In + Clone + Send + 'static,
    {
        self.with(FnAggregate::new(value, combine, to))
    }
}

/// The aggregations as one combiner.
struct Fold<T, L> {
    aggregates: L,
    element: PhantomData<fn(T)>,
}

impl<T, L: Clone> Clone for Fold<T, L> {
    fn clone(&self) -> Self {
        Fold {
            aggregates: self.aggregates.clone(),
            element: PhantomData,
        }
    }
}

impl<T: 'static, L: Aggregates<T>> CombineFn for Fold<T, L> {
    type In = L::In;
    type Accumulator = L::Accumulator;
    type Out = L::Out;

    fn create_accumulator(&self) -> L::Accumulator {
        self.aggregates.create()
    }
    fn add_input(&self, accumulator: &mut L::Accumulator, input: L::In) {
        self.aggregates.add(accumulator, input);
    }
    fn merge_accumulators(&self, into: &mut L::Accumulator, other: L::Accumulator) {
        self.aggregates.merge(into, other);
    }
    fn extract_output(&self, accumulator: L::Accumulator) -> L::Out {
        self.aggregates.extract(accumulator)
    }
}

/// Checks all fields: where the keys come from and go to, and what is wrong.
fn bind<T: Schema, Out: Schema, L: Aggregates<T>>(
    keys: &[String],
    aggregates: &mut L,
) -> (Projection, Vec<usize>, Vec<String>) {
    let (from, to) = (T::schema(), Out::schema());
    let mut binding = Binding {
        from: &from,
        from_name: type_name::<T>(),
        to: &to,
        to_name: type_name::<Out>(),
        problems: Vec::new(),
        filled: vec![false; to.fields().len()],
    };
    let mut places = Vec::new();
    let projection = Projection::of::<T>(keys).unwrap_or_else(|errors| {
        binding.problems.extend(errors.iter().map(ToString::to_string));
        Projection::new(from.clone(), Vec::new())
    });
    for path in projection.paths() {
        // A field in a field goes by its own name.
        let full = path.to_string();
        let name = full.rsplit('.').next().unwrap_or(&full);
        let name = if to.fields().iter().any(|field| field.name == full) {
            &full
        } else {
            name
        };
        let what = format!("the key \"{full}\"");
        places.push(binding.output(name, path.field_type(), &what));
    }
    aggregates.bind(&mut binding);
    let Binding {
        mut problems,
        filled,
        to_name,
        ..
    } = binding;
    if problems.is_empty() {
        for (field, _) in to.fields().iter().zip(filled).filter(|(_, filled)| !filled) {
            problems.push(format!(
                "field \"{}\" of {to_name} is neither a key nor the result of an aggregation",
                field.name
            ));
        }
    }
    (projection, places, problems)
}

impl<T, Out, L> PTransform<PCollection<T>> for GroupByFields<Out, L>
where
    T: Schema,
    Out: Schema,
    L: Aggregates<T>,
{
    type Output = PCollection<Out>;

    fn name(&self) -> String {
        "GroupByFields".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<Out> {
        let GroupByFields {
            keys, mut aggregates, ..
        } = self;
        let (projection, places, problems) = bind::<T, Out, L>(&keys, &mut aggregates);
        problems
            .into_iter()
            .for_each(|problem| input.pipeline().problem(problem));
        let fold = Fold {
            aggregates: aggregates.clone(),
            element: PhantomData,
        };
        let extract = aggregates.clone();
        let from = T::schema();
        let key_paths = projection.clone();
        input
            .try_map("Extract", move |element: T| {
                let row = element.to_row();
                let fields = from.split(&mut &row[..])?;
                let key = key_paths
                    .paths()
                    .iter()
                    .map(|path| path.bytes(&from, &fields))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok::<_, DecodeError>((assemble(&key), extract.input(&element, &from, &fields)?))
            })
            .combine_per_key("Aggregate", fold)
            .try_map("Rows", move |(key, results): (Vec<u8>, L::Out)| {
                row_of::<Out>(&projection, &places, &key, |fields| {
                    aggregates.fill(results, fields)
                })
            })
    }
}

/// The fields of the key where they belong, and what `fill` adds.
fn row_of<Out: Schema>(
    projection: &Projection,
    places: &[usize],
    key: &[u8],
    fill: impl FnOnce(&mut [Option<Vec<u8>>]) -> Result<(), DecodeError>,
) -> Result<Out, DecodeError> {
    let key_schema = key_schema(projection);
    let mut fields: Vec<Option<Vec<u8>>> = vec![None; Out::schema().fields().len()];
    for (value, place) in key_schema.split(&mut &key[..])?.into_iter().zip(places) {
        if let Some(field) = fields.get_mut(*place) {
            *field = value.map(<[u8]>::to_vec);
        }
    }
    fill(&mut fields)?;
    Out::from_row(&assemble(&fields))
}

#[expect(
    clippy::panic,
    reason = "without encoding positions nothing can be wrong with the fields"
)]
fn key_schema(projection: &Projection) -> RowSchema {
    let fields = projection
        .paths()
        .iter()
        .map(|path| crate::schema::Field::new(path.to_string(), path.field_type().clone()));
    RowSchema::new(fields.collect()).unwrap_or_else(|error| panic!("the schema of a key: {error}"))
}

/// Groups rows by the fields of another type: pairs of such a row and all rows of its group.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct Purchase {
///     user: String,
///     cents: i64,
/// }
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct ByUser {
///     user: String,
/// }
///
/// let p = TestPipeline::new();
/// let purchases = p.apply(Create::new([Purchase { user: "a".into(), cents: 5 }]));
/// let groups = purchases.apply(GroupByRow::<ByUser>::new());
/// let expected = (ByUser { user: "a".into() }, vec![Purchase { user: "a".into(), cents: 5 }]);
/// PAssert::that(&groups).equals(expected);
/// p.run();
/// ```
#[derive(Clone, Debug)]
pub struct GroupByRow<K> {
    key: PhantomData<fn() -> K>,
}

impl<K: Schema> GroupByRow<K> {
    /// By the fields of this type.
    pub fn new() -> GroupByRow<K> {
        GroupByRow { key: PhantomData }
    }
}

impl<K: Schema> Default for GroupByRow<K> {
    fn default() -> Self {
        GroupByRow::new()
    }
}

impl<T: Schema, K: Schema> PTransform<PCollection<T>> for GroupByRow<K> {
    type Output = PCollection<(K, Vec<T>)>;

    fn name(&self) -> String {
        "GroupByRow".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<(K, Vec<T>)> {
        let plan = super::select::plan_of::<T, K>(input.pipeline());
        input
            .try_map("Key", move |element: T| {
                let key = plan.project(&element.to_row())?;
                Ok::<_, DecodeError>((K::from_row(&key)?, element))
            })
            .group_by_key("Group")
    }
}

impl<T: Element> PCollection<T> {
    /// Groups elements by what the closure gives: pairs of it and all elements of the group.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let words = p.apply(Create::new(["to".to_string(), "be".to_string()]));
    /// let sizes = words.group_by("ByLength", |word: &String| word.len()).map("Size", |(key, words)| (key, words.len()));
    /// PAssert::that(&sizes).equals((2, 2));
    /// p.run();
    /// ```
    pub fn group_by<K: Element>(
        &self,
        name: &str,
        key: impl Fn(&T) -> K + Clone + Send + 'static,
    ) -> PCollection<(K, Vec<T>)> {
        self.with_keys(&format!("{name}/WithKeys"), key)
            .group_by_key(name)
    }
}
