//! Several aggregations at once.

use purlin_model::schema::FieldType;
use purlin_model::{DecodeError, Element};

use crate::combine::CombineFn;
use crate::schema::{FieldPath, RowSchema, Schema, SchemaField};

/// What a combiner takes or gives and a field can hold: the types of fields, and `u64` (such as that of
/// [`Count`](crate::transforms::Count)) as an INT64.
pub trait AggregateValue: Sized {
    /// The field's type.
    fn field_type() -> FieldType;
    /// The field's bytes; `None`: null.
    ///
    /// # Errors
    /// When the value does not fit the field.
    fn to_field(&self) -> Result<Option<Vec<u8>>, DecodeError>;
    /// Reads the field.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    fn from_field(bytes: Option<&[u8]>) -> Result<Self, DecodeError>;
}

impl<T: SchemaField> AggregateValue for T {
    fn field_type() -> FieldType {
        T::field_type()
    }
    fn to_field(&self) -> Result<Option<Vec<u8>>, DecodeError> {
        let mut out = Vec::new();
        self.write_present(&mut out);
        Ok((!self.is_null()).then_some(out))
    }
    fn from_field(bytes: Option<&[u8]>) -> Result<T, DecodeError> {
        match bytes {
            Some(mut bytes) => T::read_present(&mut bytes),
            None => T::null().ok_or_else(|| DecodeError::NullField { field: "".into() }),
        }
    }
}

impl AggregateValue for u64 {
    fn field_type() -> FieldType {
        <i64 as SchemaField>::field_type()
    }
    fn to_field(&self) -> Result<Option<Vec<u8>>, DecodeError> {
        let value = i64::try_from(*self).map_err(|_| DecodeError::OutOfRange {
            what: "an int64 field (as a number from 2^63 on)",
            value: *self as i64,
        })?;
        value.to_field()
    }
    fn from_field(bytes: Option<&[u8]>) -> Result<u64, DecodeError> {
        let value = i64::from_field(bytes)?;
        u64::try_from(value).map_err(|_| DecodeError::OutOfRange {
            what: "a number that is not negative",
            value,
        })
    }
}

/// What aggregations are checked against, and what was wrong.
#[derive(Debug)]
pub struct Binding<'a> {
    pub(super) from: &'a RowSchema,
    pub(super) from_name: String,
    pub(super) to: &'a RowSchema,
    pub(super) to_name: String,
    pub(super) problems: Vec<String>,
    /// The fields of `to` that have a value.
    pub(super) filled: Vec<bool>,
}

impl Binding<'_> {
    /// The index of a field of the output that holds values of this type.
    pub(super) fn output(&mut self, name: &str, found: &FieldType, what: &str) -> usize {
        match FieldPath::find(self.to, &self.to_name, name) {
            Err(error) => self.problems.push(error.to_string()),
            Ok(path) => {
                let fields = self.to.fields();
                let index = fields
                    .iter()
                    .position(|field| field.name == name)
                    .unwrap_or(fields.len());
                match self.filled.get_mut(index) {
                    Some(filled @ false) => *filled = true,
                    Some(true) => self
                        .problems
                        .push(format!("field \"{name}\" of {} gets two values", self.to_name)),
                    None => self.problems.push(format!(
                        "field \"{name}\" of {} is inside of another one: give it a field of its own",
                        self.to_name
                    )),
                }
                let wanted = path.field_type();
                // Of a type of its own: the value goes there, so it must fit.
                let fits = wanted.kind == found.kind && (wanted.nullable || !found.nullable);
                if !fits {
                    self.problems.push(format!(
                        "field \"{name}\" of {} is {wanted}, but {what} gives {found}",
                        self.to_name
                    ));
                }
                return index;
            }
        }
        0
    }
}

/// A list of aggregations. Add to it by [`GroupByFields::aggregate`](super::GroupByFields::aggregate).
pub trait Aggregates<T>: Clone + Send + 'static {
    /// What they take of an element.
    type In: Element;
    /// What they know.
    type Accumulator: Element;
    /// What they give.
    type Out: Element;

    /// Finds their fields.
    #[doc(hidden)]
    fn bind(&mut self, binding: &mut Binding<'_>);
    /// What they take of an element, which is given as a value and as the fields of a row.
    #[doc(hidden)]
    fn input(&self, element: &T, schema: &RowSchema, row: &[Option<&[u8]>]) -> Result<Self::In, DecodeError>;
    /// Nothing so far.
    #[doc(hidden)]
    fn create(&self) -> Self::Accumulator;
    /// Takes an input.
    #[doc(hidden)]
    fn add(&self, accumulator: &mut Self::Accumulator, input: Self::In);
    /// Takes all that another one knows.
    #[doc(hidden)]
    fn merge(&self, into: &mut Self::Accumulator, other: Self::Accumulator);
    /// The results.
    #[doc(hidden)]
    fn extract(&self, accumulator: Self::Accumulator) -> Self::Out;
    /// Puts the results into the output's fields.
    #[doc(hidden)]
    fn fill(&self, results: Self::Out, fields: &mut [Option<Vec<u8>>]) -> Result<(), DecodeError>;
}

impl<T> Aggregates<T> for () {
    type In = ();
    type Accumulator = ();
    type Out = ();

    fn bind(&mut self, _binding: &mut Binding<'_>) {}
    fn input(&self, _: &T, _: &RowSchema, _: &[Option<&[u8]>]) -> Result<(), DecodeError> {
        Ok(())
    }
    fn create(&self) {}
    fn add(&self, _accumulator: &mut (), _input: ()) {}
    fn merge(&self, _into: &mut (), _other: ()) {}
    fn extract(&self, _accumulator: ()) {}
    fn fill(&self, _results: (), _fields: &mut [Option<Vec<u8>>]) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// The aggregation of a field that is named.
#[derive(Clone, Debug)]
pub struct FieldAggregate<F> {
    from: String,
    to: String,
    combine: F,
    path: Option<FieldPath>,
    index: usize,
}

/// The aggregation of what a closure gives for an element.
#[derive(Clone, Debug)]
pub struct FnAggregate<E, F> {
    value: E,
    to: String,
    combine: F,
    index: usize,
}

impl<F> FieldAggregate<F> {
    pub(super) fn new(from: &str, combine: F, to: &str) -> Self {
        FieldAggregate {
            from: from.to_owned(),
            to: to.to_owned(),
            combine,
            path: None,
            index: 0,
        }
    }
}

impl<E, F> FnAggregate<E, F> {
    pub(super) fn new(value: E, combine: F, to: &str) -> Self {
        FnAggregate {
            value,
            to: to.to_owned(),
            combine,
            index: 0,
        }
    }
}

/// The parts of [`Aggregates`] that only the combiner matters to. No value so far is `None`, so that a group without any
/// value needs no answer of the combiner.
macro_rules! combine {
    () => {
        type In = (L::In, Option<F::In>);
        type Accumulator = (L::Accumulator, Option<F::Accumulator>);
        type Out = (L::Out, Option<F::Out>);

        fn create(&self) -> Self::Accumulator {
            (self.0.create(), None)
        }
        fn add(&self, accumulator: &mut Self::Accumulator, (rest, input): Self::In) {
            self.0.add(&mut accumulator.0, rest);
            let combine = &self.1.combine;
            if let Some(input) = input {
                combine.add_input(
                    accumulator
                        .1
                        .get_or_insert_with(|| combine.create_accumulator()),
                    input,
                );
            }
        }
        fn merge(&self, into: &mut Self::Accumulator, (rest, other): Self::Accumulator) {
            self.0.merge(&mut into.0, rest);
            match (&mut into.1, other) {
                (Some(into), Some(other)) => self.1.combine.merge_accumulators(into, other),
                (none @ None, other) => *none = other,
                (Some(_), None) => {}
            }
        }
        fn extract(&self, (rest, accumulator): Self::Accumulator) -> Self::Out {
            let result = accumulator.map(|accumulator| self.1.combine.extract_output(accumulator));
            (self.0.extract(rest), result)
        }
        fn fill(&self, (rest, result): Self::Out, fields: &mut [Option<Vec<u8>>]) -> Result<(), DecodeError> {
            self.0.fill(rest, fields)?;
            if let (Some(result), Some(field)) = (result, fields.get_mut(self.1.index)) {
                *field = result.to_field()?;
            }
            Ok(())
        }
    };
}

impl<T, L, F> Aggregates<T> for (L, FieldAggregate<F>)
where
    T: Schema,
    L: Aggregates<T>,
    F: CombineFn,
    F::In: AggregateValue,
    F::Out: AggregateValue,
{
    combine!();

    fn bind(&mut self, binding: &mut Binding<'_>) {
        self.0.bind(binding);
        let FieldAggregate {
            from,
            to,
            path,
            index,
            ..
        } = &mut self.1;
        let mut given = F::Out::field_type();
        match FieldPath::find(binding.from, &binding.from_name, from) {
            Err(error) => binding.problems.push(error.to_string()),
            Ok(found) => {
                let mut wanted = F::In::field_type();
                if found.field_type().nullable && !wanted.nullable {
                    // Nulls are left out, so a group may have no value at all.
                    wanted.nullable = true;
                    given.nullable = true;
                }
                let by = format!("the aggregation into \"{to}\"");
                if let Err(error) = found.check(&binding.from_name, &wanted, &by) {
                    binding.problems.push(error.to_string());
                }
                *path = Some(found);
            }
        }
        let what = format!("the aggregation of \"{from}\"");
        *index = binding.output(to, &given, &what);
    }

    fn input(&self, element: &T, schema: &RowSchema, row: &[Option<&[u8]>]) -> Result<Self::In, DecodeError> {
        let rest = self.0.input(element, schema, row)?;
        let Some(path) = &self.1.path else {
            return Ok((rest, None));
        };
        let bytes = path.bytes(schema, row)?;
        if bytes.is_none() && !F::In::field_type().nullable {
            return Ok((rest, None));
        }
        Ok((rest, Some(F::In::from_field(bytes)?)))
    }
}

impl<T, L, F, E> Aggregates<T> for (L, FnAggregate<E, F>)
where
    T: Element,
    L: Aggregates<T>,
    F: CombineFn,
    F::Out: AggregateValue,
    E: Fn(&T) -> F::In + Clone + Send + 'static,
{
    combine!();

    fn bind(&mut self, binding: &mut Binding<'_>) {
        self.0.bind(binding);
        let what = format!("the aggregation into \"{}\"", self.1.to);
        self.1.index = binding.output(&self.1.to, &F::Out::field_type(), &what);
    }

    fn input(&self, element: &T, schema: &RowSchema, row: &[Option<&[u8]>]) -> Result<Self::In, DecodeError> {
        Ok((self.0.input(element, schema, row)?, Some((self.1.value)(element))))
    }
}
