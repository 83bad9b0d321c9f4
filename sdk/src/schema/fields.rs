//! Finding fields by their names.

use std::fmt;

use purlin_model::schema::{FieldKind, FieldType};

use super::RowSchema;

/// A field that is not as a transform wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// There is none of the name.
    #[error("{type_name} has no field \"{path}\"{}; its fields are: {fields}", suggestion(.nearest))]
    Unknown {
        /// The Rust type.
        type_name: String,
        /// The name that was asked for.
        path: String,
        /// A name like it.
        nearest: Option<String>,
        /// All names, with types.
        fields: String,
    },
    /// It is of another type.
    #[error("field \"{path}\" of {type_name} is {found}, but {wanted_by} needs {wanted}")]
    Type {
        /// The Rust type.
        type_name: String,
        /// The field.
        path: String,
        /// Its type.
        found: String,
        /// Who needs another.
        wanted_by: String,
        /// Which.
        wanted: String,
    },
    /// It stands below a field that is not a row.
    #[error("field \"{path}\" of {type_name} is {found}, which has no fields of its own")]
    NoRow {
        /// The Rust type.
        type_name: String,
        /// The field above it.
        path: String,
        /// Its type.
        found: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => String::new(),
    }
}

/// The short name of a type, for messages.
pub(crate) fn type_name<T>() -> String {
    let full = std::any::type_name::<T>();
    full.split('<')
        .map(|part| part.rsplit("::").next().unwrap_or(part))
        .collect::<Vec<_>>()
        .join("<")
}

/// Where a field is: its index, and those of the fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    name: String,
    indices: Vec<usize>,
    field_type: FieldType,
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FieldPath {
    /// Finds a field by its name, or a field of a row in a field: `address.city`. A field of a row that may be null may be
    /// null, too.
    ///
    /// # Errors
    /// When there is none, with the name that is most like it.
    pub fn find(schema: &RowSchema, type_name: &str, name: &str) -> Result<FieldPath, FieldError> {
        let mut indices = Vec::new();
        let mut current = schema;
        let mut nullable = false;
        let mut found: Option<&FieldType> = None;
        let mut above = String::new();
        // A name may hold a point of its own.
        if let Some(index) = schema.fields().iter().position(|f| f.name == name) {
            return Ok(FieldPath {
                name: name.to_owned(),
                indices: vec![index],
                field_type: schema.fields()[index].field_type.clone(),
            });
        }
        for part in name.split('.') {
            if let Some(field_type) = found {
                let FieldKind::Row(inner) = &field_type.kind else {
                    return Err(FieldError::NoRow {
                        type_name: type_name.to_owned(),
                        path: above,
                        found: field_type.to_string(),
                    });
                };
                current = inner;
            }
            let Some(index) = current.fields().iter().position(|f| f.name == part) else {
                let nearest = nearest(part, current.fields().iter().map(|f| &f.name[..]));
                let prefix = if above.is_empty() {
                    above
                } else {
                    format!("{above}.")
                };
                return Err(FieldError::Unknown {
                    type_name: type_name.to_owned(),
                    path: name.to_owned(),
                    nearest: nearest.map(|nearest| format!("{prefix}{nearest}")),
                    fields: current.to_string(),
                });
            };
            let field_type = &current.fields()[index].field_type;
            nullable |= field_type.nullable;
            found = Some(field_type);
            indices.push(index);
            above = if above.is_empty() {
                part.to_owned()
            } else {
                format!("{above}.{part}")
            };
        }
        let kind = found
            .map(|found| found.kind.clone())
            .unwrap_or(FieldKind::Boolean);
        Ok(FieldPath {
            name: name.to_owned(),
            indices,
            field_type: FieldType { nullable, kind },
        })
    }

    /// Its type.
    pub fn field_type(&self) -> &FieldType {
        &self.field_type
    }

    /// Whether a field of this type can hold its values; an error says who needs it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, type_name: &str, wanted: &FieldType, wanted_by: &str) -> Result<(), FieldError> {
        if same(&self.field_type.kind, &wanted.kind) && (wanted.nullable || !self.field_type.nullable) {
            return Ok(());
        }
        Err(FieldError::Type {
            type_name: type_name.to_owned(),
            path: self.name.clone(),
            found: self.field_type.to_string(),
            wanted_by: wanted_by.to_owned(),
            wanted: wanted.to_string(),
        })
    }

    /// The bytes of the field in a row that was taken apart; `None`: null.
    pub(crate) fn bytes<'a>(
        &self,
        schema: &RowSchema,
        row: &[Option<&'a [u8]>],
    ) -> Result<Option<&'a [u8]>, purlin_model::DecodeError> {
        let Some((first, rest)) = self.indices.split_first() else {
            return Ok(None);
        };
        let mut value = row.get(*first).copied().flatten();
        let mut field = schema.fields().get(*first);
        let mut inner;
        for index in rest {
            let (Some(mut bytes), Some(FieldKind::Row(schema))) = (value, field.map(|f| &f.field_type.kind))
            else {
                return Ok(None);
            };
            inner = schema.split(&mut bytes)?;
            value = inner.get(*index).copied().flatten();
            field = schema.fields().get(*index);
        }
        Ok(value)
    }
}

/// Whether two types encode and mean the same. Arrays and iterables do.
fn same(a: &FieldKind, b: &FieldKind) -> bool {
    let same_type = |a: &FieldType, b: &FieldType| a.nullable == b.nullable && same(&a.kind, &b.kind);
    match (a, b) {
        (FieldKind::Array(a) | FieldKind::Iterable(a), FieldKind::Array(b) | FieldKind::Iterable(b)) => {
            same_type(a, b)
        }
        (FieldKind::Map(k, v), FieldKind::Map(l, w)) => same_type(k, l) && same_type(v, w),
        (FieldKind::Row(a), FieldKind::Row(b)) => {
            a.fields().len() == b.fields().len()
                && a.fields()
                    .iter()
                    .zip(b.fields())
                    .all(|(a, b)| a.name == b.name && same_type(&a.field_type, &b.field_type))
        }
        (FieldKind::Logical(a), FieldKind::Logical(b)) => a.urn == b.urn && a.argument == b.argument,
        (a, b) => a == b,
    }
}

/// The name that is most like another, if any is.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| {
            (
                strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
