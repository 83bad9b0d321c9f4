//! Reading Avro object container files.

use std::collections::HashMap;
use std::marker::PhantomData;

use apache_avro::schema::{InnerDecimalSchema, Schema as Avro, SchemaKind, UuidSchema};
use apache_avro::types::Value as AvroValue;
use bytes::Bytes;
use purlin_model::schema::{FieldKind, FieldType};
use purlin_model::{Timestamp, Value};

use crate::error::BoxError;
use crate::io::read_records::{FileSource, ReadRecords, SourceFile};
use crate::io::rows::{self, Form};
use crate::schema::{RowSchema, Schema};

/// The rows of Avro files. Fields are found by their names; those that a file lacks are null, where they may be; those that the
/// type lacks are left out. Numbers may be wider in the type than in the file.
///
/// See [`WriteAvro`](crate::io::WriteAvro) for an example and for the types.
pub type ReadAvro<T> = ReadRecords<AvroSource<T>>;

/// The format of [`ReadAvro`].
#[derive(Clone, Debug)]
pub struct AvroSource<T>(PhantomData<fn() -> T>);

impl<T: Schema> ReadRecords<AvroSource<T>> {
    /// The rows of the files that match this pattern.
    pub fn from(pattern: &str) -> Self {
        ReadRecords::with(pattern, AvroSource(PhantomData))
    }

    /// The rows of the files that match the patterns of a collection.
    pub fn all() -> Self {
        ReadRecords::all_with(AvroSource(PhantomData))
    }
}

impl<T: Schema> FileSource for AvroSource<T> {
    type Record = T;
    const NAME: &'static str = "ReadAvro";

    fn read(&self, file: &SourceFile, give: &mut dyn FnMut(T)) -> Result<(), BoxError> {
        let schema = T::schema();
        let coder = rows::coder(&schema);
        let reader = apache_avro::Reader::new(std::io::BufReader::with_capacity(128 << 10, file.reader()?))?;
        let writer = reader.writer_schema().clone();
        let mut names = Names::default();
        names.gather(&writer);
        for (number, row) in reader.enumerate() {
            let row = row
                .map_err(BoxError::from)
                .and_then(|row| convert_row(&schema, row, &writer, &names))
                .and_then(|values| rows::from_values(&coder, values));
            give(row.map_err(|error| format!("row {number}: {}", crate::error::chain(&*error)))?);
        }
        Ok(())
    }
}

/// The types that a schema names once and refers to afterwards.
#[derive(Default)]
struct Names<'a>(HashMap<String, &'a Avro>);

impl<'a> Names<'a> {
    fn gather(&mut self, schema: &'a Avro) {
        match schema {
            Avro::Record(record) => {
                self.0.insert(record.name.to_string(), schema);
                record.fields.iter().for_each(|field| self.gather(&field.schema));
            }
            Avro::Array(array) => self.gather(&array.items),
            Avro::Map(map) => self.gather(&map.types),
            Avro::Union(union) => union.variants().iter().for_each(|variant| self.gather(variant)),
            Avro::Enum(found) => {
                self.0.insert(found.name.to_string(), schema);
            }
            Avro::Fixed(found) | Avro::Duration(found) | Avro::Uuid(UuidSchema::Fixed(found)) => {
                self.0.insert(found.name.to_string(), schema);
            }
            Avro::Decimal(decimal) => {
                if let InnerDecimalSchema::Fixed(found) = &decimal.inner {
                    self.0.insert(found.name.to_string(), schema);
                }
            }
            _ => {}
        }
    }

    fn resolve(&self, schema: &'a Avro) -> &'a Avro {
        match schema {
            Avro::Ref { name } => self.0.get(&name.to_string()).copied().unwrap_or(schema),
            other => other,
        }
    }
}

fn convert_row<'a>(
    schema: &RowSchema,
    row: AvroValue,
    avro: &'a Avro,
    names: &Names<'a>,
) -> Result<Vec<Value>, BoxError> {
    let (AvroValue::Record(found), Avro::Record(record)) = (row, names.resolve(avro)) else {
        return Err("it is not a record".into());
    };
    let mut found: Vec<Option<(String, AvroValue)>> = found.into_iter().map(Some).collect();
    let mut values = Vec::new();
    for field in schema.fields() {
        let at = record
            .lookup
            .get(&field.name)
            .or_else(|| record.lookup.get(&avro_name(&field.name)))
            .copied();
        let value = at.and_then(|at| {
            found
                .get_mut(at)?
                .take()
                .map(|(_, value)| (value, &record.fields[at].schema))
        });
        values.push(match value {
            Some((value, avro)) => convert(&field.field_type, value, avro, names)
                .map_err(|error| format!("field \"{}\": {error}", field.name))?,
            None if field.field_type.nullable => Value::Null,
            None => {
                let fields: Vec<&str> = record.fields.iter().map(|f| &f.name[..]).collect();
                let nearest = crate::schema::fields::nearest(&field.name, fields.iter().copied())
                    .map(|name| format!("; did you mean \"{name}\"?"));
                return Err(format!(
                    "the file has no field \"{}\"{}; its fields are {}",
                    field.name,
                    nearest.unwrap_or_default(),
                    fields.join(", ")
                )
                .into());
            }
        });
    }
    Ok(values)
}

fn avro_name(name: &str) -> String {
    super::write::name(name)
}

fn convert<'a>(
    field: &FieldType,
    value: AvroValue,
    avro: &'a Avro,
    names: &Names<'a>,
) -> Result<Value, BoxError> {
    let avro = names.resolve(avro);
    let value = match (value, avro) {
        (AvroValue::Union(at, inner), Avro::Union(union)) => {
            let variant = union
                .variants()
                .get(at as usize)
                .ok_or("a union of another variant")?;
            return convert(field, *inner, variant, names);
        }
        (value, _) => value,
    };
    if matches!(value, AvroValue::Null) {
        return match field.nullable {
            true => Ok(Value::Null),
            false => {
                Err(format!("it is null in the file, but {field} is never null: make it an Option").into())
            }
        };
    }
    let whole = match &value {
        AvroValue::Int(n) | AvroValue::Date(n) | AvroValue::TimeMillis(n) => Some(i64::from(*n)),
        AvroValue::Long(n)
        | AvroValue::TimeMicros(n)
        | AvroValue::TimestampMillis(n)
        | AvroValue::TimestampMicros(n)
        | AvroValue::TimestampNanos(n)
        | AvroValue::LocalTimestampMillis(n)
        | AvroValue::LocalTimestampMicros(n)
        | AvroValue::LocalTimestampNanos(n) => Some(*n),
        AvroValue::Enum(number, _) => Some(i64::from(*number)),
        _ => None,
    };
    // In microseconds, whatever the file counts in. A number alone does not say what it counts.
    let micros = match &value {
        AvroValue::TimestampMillis(n) | AvroValue::LocalTimestampMillis(n) => n.checked_mul(1000),
        AvroValue::TimestampNanos(n) | AvroValue::LocalTimestampNanos(n) => Some(n.div_euclid(1000)),
        AvroValue::TimestampMicros(n) | AvroValue::LocalTimestampMicros(n) => Some(*n),
        _ => None,
    };
    let kind = SchemaKind::from(&value);
    let mismatch = || {
        format!(
            "it is {} in the file, which is not {field}",
            format!("{kind:?}").to_lowercase()
        )
    };
    Ok(match rows::form(&field.kind) {
        Form::MillisInstant => Value::Timestamp(Timestamp::from_millis(
            micros.ok_or_else(mismatch)?.div_euclid(1000),
        )),
        Form::MicrosInstant => rows::of_micros(micros.ok_or_else(mismatch)?),
        Form::Date => match value {
            AvroValue::Date(day) => Value::Int(i64::from(day)),
            _ => return Err(mismatch().into()),
        },
        Form::Decimal => match (value, avro) {
            (AvroValue::Decimal(decimal), Avro::Decimal(schema)) => Value::Decimal {
                scale: schema.scale as i64,
                unscaled: Bytes::from(Vec::<u8>::try_from(decimal)?),
            },
            _ => return Err(mismatch().into()),
        },
        Form::Fixed(length) => match value {
            AvroValue::Fixed(_, bytes) | AvroValue::Bytes(bytes) if bytes.len() == length => {
                Value::Bytes(bytes.into())
            }
            _ => return Err(mismatch().into()),
        },
        Form::Plain(kind) => match (kind, value) {
            (FieldKind::Byte | FieldKind::Int16 | FieldKind::Int32 | FieldKind::Int64, _) => {
                Value::Int(whole.ok_or_else(mismatch)?)
            }
            (FieldKind::Float, AvroValue::Float(n)) => Value::Float(n),
            (FieldKind::Double, AvroValue::Float(n)) => Value::Double(f64::from(n)),
            (FieldKind::Double, AvroValue::Double(n)) => Value::Double(n),
            (FieldKind::Boolean, AvroValue::Boolean(b)) => Value::Bool(b),
            (FieldKind::String, AvroValue::String(text) | AvroValue::Enum(_, text)) => Value::String(text),
            (FieldKind::String, AvroValue::Uuid(id)) => Value::String(id.to_string()),
            (FieldKind::Bytes, AvroValue::Bytes(bytes) | AvroValue::Fixed(_, bytes)) => {
                Value::Bytes(bytes.into())
            }
            (FieldKind::Array(item) | FieldKind::Iterable(item), AvroValue::Array(items)) => {
                let Avro::Array(schema) = avro else {
                    return Err(mismatch().into());
                };
                let items = items
                    .into_iter()
                    .map(|value| convert(item, value, &schema.items, names));
                Value::Iterable(items.collect::<Result<_, _>>()?)
            }
            (FieldKind::Map(_, item), AvroValue::Map(entries)) => {
                let Avro::Map(schema) = avro else {
                    return Err(mismatch().into());
                };
                let entries = entries.into_iter().map(|(key, value)| {
                    Ok::<_, BoxError>((Value::String(key), convert(item, value, &schema.types, names)?))
                });
                Value::Map(entries.collect::<Result<_, _>>()?)
            }
            (FieldKind::Row(schema), row @ AvroValue::Record(_)) => {
                Value::Row(convert_row(schema, row, avro, names)?)
            }
            _ => return Err(mismatch().into()),
        },
    })
}
