//! Fields of one row as another.

use std::marker::PhantomData;
use std::sync::Arc;

use purlin_model::DecodeError;

use crate::pipeline::{PCollection, PTransform, Pipeline};
use crate::schema::fields::{nearest, type_name};
use crate::schema::{FieldError, FieldPath, RowSchema, Schema, row};

/// Rows of another type, whose fields are taken from rows by their names.
///
/// That the fields are there and of the right type is checked when the pipeline is built, before anything runs. A field
/// that may be null takes one that may not.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone, Debug, Schema)]
/// struct Address {
///     city: String,
/// }
/// #[derive(Clone, Debug, Schema)]
/// struct User {
///     id: i64,
///     name: String,
///     address: Address,
/// }
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct Resident {
///     name: String,
///     town: String,
/// }
///
/// let p = TestPipeline::new();
/// let users = p.apply(Create::new([User { id: 1, name: "Ann".into(), address: Address { city: "Rome".into() } }]));
/// let residents = users.apply(Select::<Resident>::new().field("town", "address.city"));
/// PAssert::that(&residents).equals(Resident { name: "Ann".into(), town: "Rome".into() });
/// p.run();
///
/// let p = Pipeline::new();
/// let users = p.apply(Create::new([User { id: 1, name: "Ann".into(), address: Address { city: "Rome".into() } }]));
/// users.apply(Select::<Resident>::new().field("town", "address.citi"));
/// let error = p.build().unwrap_err().to_string();
/// assert!(error.contains(r#"User has no field "address.citi"; did you mean "address.city"?"#), "{error}");
/// ```
#[derive(Clone, Debug)]
pub struct Select<To> {
    renamed: Vec<(String, String)>,
    whole: bool,
    to: PhantomData<fn() -> To>,
}

impl<To: Schema> Select<To> {
    /// Fields of equal names.
    pub fn new() -> Select<To> {
        Select {
            renamed: Vec::new(),
            whole: false,
            to: PhantomData,
        }
    }

    /// The field `to` is the field `from`, which may be a field of a row in a field: `address.city`.
    #[must_use]
    pub fn field(mut self, to: &str, from: &str) -> Self {
        self.renamed.push((to.to_owned(), from.to_owned()));
        self
    }

    /// Every field must be taken: nothing is lost.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }
}

impl<To: Schema> Default for Select<To> {
    fn default() -> Self {
        Select::new()
    }
}

/// Where the fields of a row come from.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    from: Arc<RowSchema>,
    paths: Vec<FieldPath>,
}

impl Projection {
    pub fn new(from: Arc<RowSchema>, paths: Vec<FieldPath>) -> Projection {
        Projection { from, paths }
    }

    /// The fields of these names.
    pub fn of<T: Schema>(names: &[String]) -> Result<Projection, Vec<FieldError>> {
        let from = T::schema();
        let mut paths = Vec::new();
        let mut errors = Vec::new();
        for name in names {
            match FieldPath::find(&from, &type_name::<T>(), name) {
                Ok(path) => paths.push(path),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Projection { from, paths })
        } else {
            Err(errors)
        }
    }

    pub fn paths(&self) -> &[FieldPath] {
        &self.paths
    }

    /// A row of the fields.
    pub fn project(&self, mut row: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let fields = self.from.split(&mut row)?;
        let values: Vec<Option<&[u8]>> = self
            .paths
            .iter()
            .map(|path| path.bytes(&self.from, &fields))
            .collect::<Result<_, _>>()?;
        Ok(assemble(&values))
    }
}

/// A row of these values.
pub(super) fn assemble(values: &[Option<impl AsRef<[u8]>>]) -> Vec<u8> {
    let nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
    let mut out = Vec::new();
    row::write_header(&mut out, &nulls);
    for value in values.iter().flatten() {
        out.extend_from_slice(value.as_ref());
    }
    out
}

/// Where the fields of `To` are in `T`; or what is wrong.
fn plan<T: Schema, To: Schema>(select: &Select<To>) -> Result<Projection, Vec<String>> {
    let (from, to) = (T::schema(), To::schema());
    let (from_name, to_name) = (type_name::<T>(), type_name::<To>());
    let mut problems = Vec::new();
    for (name, _) in &select.renamed {
        if !to.fields().iter().any(|field| field.name == *name) {
            problems.push(
                FieldError::Unknown {
                    type_name: to_name.clone(),
                    path: name.clone(),
                    nearest: nearest(name, to.fields().iter().map(|f| &f.name[..])).map(str::to_owned),
                    fields: to.to_string(),
                }
                .to_string(),
            );
        }
    }
    let mut paths = Vec::new();
    for field in to.fields() {
        let source = select.renamed.iter().find(|(to, _)| *to == field.name);
        let source = source.map_or(&field.name, |(_, from)| from);
        let wanted_by = format!("field \"{}\" of {to_name}", field.name);
        let found = FieldPath::find(&from, &from_name, source).and_then(|path| {
            path.check(&from_name, &field.field_type, &wanted_by)
                .map(|()| path)
        });
        match found {
            Ok(path) => paths.push(path),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if select.whole {
        for field in from.fields() {
            if !paths.iter().any(|path| path.to_string() == field.name) {
                problems.push(format!(
                    "field \"{}\" of {from_name} is in no field of {to_name}; add one, or use Select, which leaves fields out",
                    field.name
                ));
            }
        }
    }
    if problems.is_empty() {
        Ok(Projection::new(from, paths))
    } else {
        Err(problems)
    }
}

/// Where the fields of equal names are. What is wrong is a problem of the pipeline, which will not be built.
pub(super) fn plan_of<T: Schema, To: Schema>(pipeline: &Pipeline) -> Projection {
    checked::<T, To>(&Select::new(), pipeline)
}

fn checked<T: Schema, To: Schema>(select: &Select<To>, pipeline: &Pipeline) -> Projection {
    plan::<T, To>(select).unwrap_or_else(|problems| {
        problems.into_iter().for_each(|problem| pipeline.problem(problem));
        Projection::new(T::schema(), Vec::new())
    })
}

impl<T: Schema, To: Schema> PTransform<PCollection<T>> for Select<To> {
    type Output = PCollection<To>;

    fn name(&self) -> String {
        if self.whole {
            "Rename".into()
        } else {
            "Select".into()
        }
    }

    fn expand(self, input: PCollection<T>) -> PCollection<To> {
        let plan = checked::<T, To>(&self, input.pipeline());
        input.try_map("Project", move |element: T| {
            plan.project(&element.to_row()).and_then(|row| To::from_row(&row))
        })
    }
}

impl<T: Schema> PCollection<T> {
    /// Rows of another type, of the fields of equal names: [`Select`].
    pub fn select<To: Schema>(&self, name: &str) -> PCollection<To> {
        self.apply_named(name, Select::<To>::new())
    }

    /// Rows of another type, with all of the fields, some of them under other names: pairs of the old name and the new.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// #[derive(Clone, Debug, Schema)]
    /// struct Old {
    ///     id: i64,
    ///     nm: String,
    /// }
    /// #[derive(Clone, Debug, PartialEq, Schema)]
    /// struct New {
    ///     id: i64,
    ///     name: String,
    /// }
    ///
    /// let p = TestPipeline::new();
    /// let old = p.apply(Create::new([Old { id: 1, nm: "Ann".into() }]));
    /// PAssert::that(&old.rename("Rename", &[("nm", "name")])).equals(New { id: 1, name: "Ann".into() });
    /// p.run();
    /// ```
    pub fn rename<To: Schema>(&self, name: &str, names: &[(&str, &str)]) -> PCollection<To> {
        let select = names
            .iter()
            .fold(Select::<To>::new(), |select, (old, new)| select.field(new, old));
        self.apply_named(name, select.whole())
    }
}
