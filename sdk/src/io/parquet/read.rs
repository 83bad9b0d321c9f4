//! Reading Parquet files.

use std::fs::File;
use std::marker::PhantomData;

use bytes::Bytes;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use purlin_model::schema::{FieldKind, FieldType};
use purlin_model::{Timestamp, Value};

use crate::error::BoxError;
use crate::io::read_records::{FileSource, ReadRecords, SourceFile};
use crate::io::rows::{self, Form};
use crate::schema::{RowSchema, Schema};

/// The rows of Parquet files. Columns are found by their names; those that a file lacks are null, where they may be; those that the
/// type lacks are not read. Numbers may be wider in the type than in the file.
///
/// A file that is not local is read into memory first.
///
/// See [`WriteParquet`](crate::io::WriteParquet) for an example and for the types.
pub type ReadParquet<T> = ReadRecords<ParquetSource<T>>;

/// The format of [`ReadParquet`].
#[derive(Clone, Debug)]
pub struct ParquetSource<T>(PhantomData<fn() -> T>);

impl<T: Schema> ReadRecords<ParquetSource<T>> {
    /// The rows of the files that match this pattern.
    pub fn from(pattern: &str) -> Self {
        ReadRecords::with(pattern, ParquetSource(PhantomData))
    }

    /// The rows of the files that match the patterns of a collection.
    pub fn all() -> Self {
        ReadRecords::all_with(ParquetSource(PhantomData))
    }
}

impl<T: Schema> FileSource for ParquetSource<T> {
    type Record = T;
    const NAME: &'static str = "ReadParquet";

    fn read(&self, file: &SourceFile, give: &mut dyn FnMut(T)) -> Result<(), BoxError> {
        match file.local_path() {
            Some(path) => read::<T, _>(SerializedFileReader::new(File::open(path)?)?, give),
            None => read::<T, _>(SerializedFileReader::new(file.bytes()?)?, give),
        }
    }
}

fn read<T: Schema, R: ChunkReader + 'static>(
    reader: SerializedFileReader<R>,
    give: &mut dyn FnMut(T),
) -> Result<(), BoxError> {
    let schema = T::schema();
    let coder = rows::coder(&schema);
    let projection = project(&schema, reader.metadata().file_metadata().schema())?;
    for (number, row) in reader.get_row_iter(projection)?.enumerate() {
        let row = row
            .map_err(BoxError::from)
            .and_then(|row| convert_row(&schema, row))
            .and_then(|values| rows::from_values(&coder, values));
        give(row.map_err(|error| format!("row {number}: {}", crate::error::chain(&*error)))?);
    }
    Ok(())
}

/// The columns of a file that a type has; `None`: all of them are read, since none of them is in the type.
fn project(schema: &RowSchema, file: &Type) -> Result<Option<Type>, BoxError> {
    let columns: Vec<&str> = file.get_fields().iter().map(|column| column.name()).collect();
    for field in schema.fields() {
        if !field.field_type.nullable && !columns.contains(&&field.name[..]) {
            return Err(no_column(&field.name, &columns));
        }
    }
    let wanted = |column: &&TypePtr| schema.fields().iter().any(|field| field.name == column.name());
    let found: Vec<TypePtr> = file.get_fields().iter().filter(wanted).cloned().collect();
    if found.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        Type::group_type_builder(file.name()).with_fields(found).build()?,
    ))
}

fn no_column(name: &str, columns: &[&str]) -> BoxError {
    let nearest = crate::schema::fields::nearest(name, columns.iter().copied())
        .map(|name| format!("; did you mean \"{name}\"?"));
    format!(
        "the file has no column \"{name}\"{}; its columns are {}",
        nearest.unwrap_or_default(),
        columns.join(", ")
    )
    .into()
}

fn convert_row(schema: &RowSchema, row: Row) -> Result<Vec<Value>, BoxError> {
    let mut columns: Vec<(String, Option<Field>)> = row
        .into_columns()
        .into_iter()
        .map(|(name, field)| (name, Some(field)))
        .collect();
    let mut values = Vec::new();
    for field in schema.fields() {
        let value = columns
            .iter_mut()
            .find(|(name, _)| *name == field.name)
            .and_then(|(_, value)| value.take());
        values.push(match value {
            Some(value) => convert(&field.field_type, value)
                .map_err(|error| format!("field \"{}\": {error}", field.name))?,
            None if field.field_type.nullable => Value::Null,
            None => {
                let names: Vec<&str> = columns.iter().map(|(name, _)| &name[..]).collect();
                return Err(no_column(&field.name, &names));
            }
        });
    }
    Ok(values)
}

fn convert(field: &FieldType, value: Field) -> Result<Value, BoxError> {
    if matches!(value, Field::Null) {
        return match field.nullable {
            true => Ok(Value::Null),
            false => {
                Err(format!("it is null in the file, but {field} is never null: make it an Option").into())
            }
        };
    }
    let whole = match &value {
        Field::Byte(n) => Some(i64::from(*n)),
        Field::Short(n) => Some(i64::from(*n)),
        Field::Int(n) | Field::Date(n) | Field::TimeMillis(n) => Some(i64::from(*n)),
        Field::Long(n) | Field::TimeMicros(n) | Field::TimestampMillis(n) | Field::TimestampMicros(n) => {
            Some(*n)
        }
        Field::UByte(n) => Some(i64::from(*n)),
        Field::UShort(n) => Some(i64::from(*n)),
        Field::UInt(n) => Some(i64::from(*n)),
        Field::ULong(n) => i64::try_from(*n).ok(),
        _ => None,
    };
    // A number alone does not say what it counts: nanoseconds come as such.
    let micros = match &value {
        Field::TimestampMillis(n) => n.checked_mul(1000),
        Field::TimestampMicros(n) => Some(*n),
        _ => None,
    };
    let found = match &value {
        Field::Bool(_) => "a boolean",
        Field::Float(_) | Field::Double(_) | Field::Float16(_) => "a float",
        Field::Decimal(_) => "a decimal",
        Field::Str(_) => "a string",
        Field::Bytes(_) => "a byte string",
        Field::Group(_) => "a group",
        Field::ListInternal(_) => "a list",
        Field::MapInternal(_) => "a map",
        _ => "a whole number or a time",
    };
    let mismatch = move || format!("it is {found} in the file, which is not {field}");
    Ok(match rows::form(&field.kind) {
        Form::MillisInstant => Value::Timestamp(Timestamp::from_millis(
            micros.ok_or_else(mismatch)?.div_euclid(1000),
        )),
        Form::MicrosInstant => rows::of_micros(micros.ok_or_else(mismatch)?),
        Form::Date => match value {
            Field::Date(day) => Value::Int(i64::from(day)),
            _ => return Err(mismatch().into()),
        },
        Form::Decimal => match value {
            Field::Decimal(decimal) => Value::Decimal {
                scale: i64::from(decimal.scale()),
                unscaled: Bytes::copy_from_slice(decimal.data()),
            },
            _ => return Err(mismatch().into()),
        },
        Form::Fixed(length) => match value {
            Field::Bytes(bytes) if bytes.data().len() == length => {
                Value::Bytes(Bytes::copy_from_slice(bytes.data()))
            }
            _ => return Err(mismatch().into()),
        },
        Form::Plain(kind) => match (kind, value) {
            (FieldKind::Byte | FieldKind::Int16 | FieldKind::Int32 | FieldKind::Int64, _) => {
                Value::Int(whole.ok_or_else(mismatch)?)
            }
            (FieldKind::Float, Field::Float(n)) => Value::Float(n),
            (FieldKind::Double, Field::Float(n)) => Value::Double(f64::from(n)),
            (FieldKind::Double, Field::Double(n)) => Value::Double(n),
            (FieldKind::Boolean, Field::Bool(b)) => Value::Bool(b),
            (FieldKind::String, Field::Str(text)) => Value::String(text),
            // Writers may leave out that bytes are text.
            (FieldKind::String, Field::Bytes(bytes)) => {
                Value::String(String::from_utf8(bytes.data().to_vec())?)
            }
            (FieldKind::Bytes, Field::Bytes(bytes)) => Value::Bytes(Bytes::copy_from_slice(bytes.data())),
            (FieldKind::Bytes, Field::Str(text)) => Value::Bytes(text.into_bytes().into()),
            (FieldKind::Array(item) | FieldKind::Iterable(item), Field::ListInternal(list)) => {
                let items = list.elements().iter().map(|value| convert(item, value.clone()));
                Value::Iterable(items.collect::<Result<_, _>>()?)
            }
            (FieldKind::Map(key_type, value_type), Field::MapInternal(map)) => {
                let entries = map.entries().iter().map(|(key, value)| {
                    Ok::<_, BoxError>((
                        convert(key_type, key.clone())?,
                        convert(value_type, value.clone())?,
                    ))
                });
                Value::Map(entries.collect::<Result<_, _>>()?)
            }
            (FieldKind::Row(schema), Field::Group(row)) => Value::Row(convert_row(schema, row)?),
            _ => return Err(mismatch().into()),
        },
    })
}
