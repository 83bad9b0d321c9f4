//! Rows as columns: each value with its repetition and definition level.
//!
//! A definition level counts the nullable and repeated steps on the way to a leaf that are there; a repetition level says at which
//! list a new item begins, 0 being a new row.

use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};
use purlin_model::Value;
use purlin_model::schema::{FieldKind, FieldType};

use crate::error::BoxError;
use crate::io::rows::{self, Form, PRECISION, SCALE};
use crate::schema::RowSchema;

/// The values of a leaf, in one of Parquet's types.
#[derive(Debug)]
pub(super) enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

/// A leaf's values of many rows.
#[derive(Debug)]
pub(super) struct Column {
    pub definition: Vec<i16>,
    pub repetition: Vec<i16>,
    pub values: Values,
}

impl Column {
    fn new(values: Values) -> Column {
        Column {
            definition: Vec::new(),
            repetition: Vec::new(),
            values,
        }
    }

    fn level(&mut self, at: Level) {
        self.definition.push(at.definition);
        self.repetition.push(at.repetition);
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Level {
    repetition: i16,
    definition: i16,
    /// How many lists it is in.
    lists: i16,
}

/// The columns of a schema, depth first.
pub(super) fn columns(schema: &RowSchema) -> Vec<Column> {
    let mut columns = Vec::new();
    for field in schema.fields() {
        add_columns(&field.field_type, &mut columns);
    }
    columns
}

fn add_columns(field: &FieldType, columns: &mut Vec<Column>) {
    columns.push(Column::new(match rows::form(&field.kind) {
        Form::MillisInstant | Form::MicrosInstant => Values::Int64(Vec::new()),
        Form::Date => Values::Int32(Vec::new()),
        Form::Decimal | Form::Fixed(_) => Values::Fixed(Vec::new()),
        Form::Plain(kind) => match kind {
            FieldKind::Byte | FieldKind::Int16 | FieldKind::Int32 => Values::Int32(Vec::new()),
            FieldKind::Int64 => Values::Int64(Vec::new()),
            FieldKind::Float => Values::Float(Vec::new()),
            FieldKind::Double => Values::Double(Vec::new()),
            FieldKind::Boolean => Values::Bool(Vec::new()),
            FieldKind::String | FieldKind::Bytes | FieldKind::Logical(_) => Values::Bytes(Vec::new()),
            FieldKind::Array(item) | FieldKind::Iterable(item) => return add_columns(item, columns),
            FieldKind::Map(key, value) => {
                add_columns(key, columns);
                return add_columns(value, columns);
            }
            FieldKind::Row(schema) => {
                schema
                    .fields()
                    .iter()
                    .for_each(|field| add_columns(&field.field_type, columns));
                return;
            }
        },
    }));
}

/// Adds a row to the columns.
pub(super) fn row(schema: &RowSchema, values: &[Value], columns: &mut [Column]) -> Result<(), BoxError> {
    let level = Level {
        repetition: 0,
        definition: 0,
        lists: 0,
    };
    fields(schema, values, level, columns, &mut 0)
}

fn fields(
    schema: &RowSchema,
    values: &[Value],
    level: Level,
    columns: &mut [Column],
    at: &mut usize,
) -> Result<(), BoxError> {
    for (field, value) in schema.fields().iter().zip(values) {
        put(&field.field_type, value, level, columns, at)
            .map_err(|error| format!("field \"{}\": {error}", field.name))?;
    }
    Ok(())
}

/// Nothing, in all leaves of a type.
fn nothing(field: &FieldType, level: Level, columns: &mut [Column], at: &mut usize) {
    let mut leaves = Vec::new();
    add_columns(field, &mut leaves);
    for column in &mut columns[*at..*at + leaves.len()] {
        column.level(level);
    }
    *at += leaves.len();
}

fn put(
    field: &FieldType,
    value: &Value,
    mut level: Level,
    columns: &mut [Column],
    at: &mut usize,
) -> Result<(), BoxError> {
    if field.nullable {
        if *value == Value::Null {
            nothing(field, level, columns, at);
            return Ok(());
        }
        level.definition += 1;
    }
    let form = rows::form(&field.kind);
    match (&form, value) {
        (Form::Plain(FieldKind::Row(schema)), Value::Row(values)) => {
            return fields(schema, values, level, columns, at);
        }
        (Form::Plain(FieldKind::Array(item) | FieldKind::Iterable(item)), Value::Iterable(items)) => {
            if items.is_empty() {
                nothing(item, level, columns, at);
                return Ok(());
            }
            let start = *at;
            for (number, value) in items.iter().enumerate() {
                *at = start;
                put(item, value, in_list(level, number), columns, at)?;
            }
            return Ok(());
        }
        (Form::Plain(FieldKind::Map(key_type, value_type)), Value::Map(entries)) => {
            if entries.is_empty() {
                nothing(key_type, level, columns, at);
                nothing(value_type, level, columns, at);
                return Ok(());
            }
            let start = *at;
            for (number, (key, value)) in entries.iter().enumerate() {
                *at = start;
                put(key_type, key, in_list(level, number), columns, at)?;
                put(value_type, value, in_list(level, number), columns, at)?;
            }
            return Ok(());
        }
        _ => {}
    }
    let column = columns.get_mut(*at).ok_or("there are more values than columns")?;
    leaf(&form, value, &mut column.values)
        .map_err(|()| format!("{} cannot be written as {field}", value.kind()))??;
    column.level(level);
    *at += 1;
    Ok(())
}

/// The level of an item of a list at this level.
fn in_list(level: Level, number: usize) -> Level {
    let lists = level.lists + 1;
    Level {
        repetition: if number == 0 { level.repetition } else { lists },
        definition: level.definition + 1,
        lists,
    }
}

/// `Err(())`: the value is of another kind.
fn leaf(form: &Form<'_>, value: &Value, values: &mut Values) -> Result<Result<(), BoxError>, ()> {
    match (form, value, values) {
        (Form::MillisInstant, Value::Timestamp(at), Values::Int64(all)) => all.push(at.millis()),
        (Form::MicrosInstant, instant, Values::Int64(all)) => all.push(rows::micros(instant).ok_or(())?),
        (Form::Decimal, Value::Decimal { scale, unscaled }, Values::Fixed(all)) => {
            match rows::decimal(*scale, unscaled) {
                Ok(unscaled) => all.push(unscaled.to_be_bytes().to_vec().into()),
                Err(error) => return Ok(Err(error)),
            }
        }
        (Form::Fixed(_), Value::Bytes(bytes), Values::Fixed(all)) => all.push(bytes.to_vec().into()),
        (_, Value::Int(n), Values::Int32(all)) => match i32::try_from(*n) {
            Ok(n) => all.push(n),
            Err(error) => return Ok(Err(error.into())),
        },
        (_, Value::Int(n), Values::Int64(all)) => all.push(*n),
        (_, Value::Float(n), Values::Float(all)) => all.push(*n),
        (_, Value::Double(n), Values::Double(all)) => all.push(*n),
        (_, Value::Bool(b), Values::Bool(all)) => all.push(*b),
        (_, Value::String(text), Values::Bytes(all)) => all.push(ByteArray::from(&text[..])),
        (_, Value::Bytes(bytes), Values::Bytes(all)) => all.push(ByteArray::from(bytes.clone())),
        _ => return Err(()),
    }
    Ok(Ok(()))
}

/// The schema of rows as Parquet's.
pub(super) fn parquet_schema(schema: &RowSchema) -> Result<TypePtr, ParquetError> {
    Ok(Arc::new(
        Type::group_type_builder("row")
            .with_fields(group(schema)?)
            .build()?,
    ))
}

fn group(schema: &RowSchema) -> Result<Vec<TypePtr>, ParquetError> {
    schema
        .fields()
        .iter()
        .map(|field| parquet_type(&field.name, &field.field_type))
        .collect()
}

fn parquet_type(name: &str, field: &FieldType) -> Result<TypePtr, ParquetError> {
    let repetition = if field.nullable {
        Repetition::OPTIONAL
    } else {
        Repetition::REQUIRED
    };
    let primitive = |physical, converted| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_converted_type(converted)
    };
    let none = ConvertedType::NONE;
    let repeated = |name: &str, fields: Vec<TypePtr>| {
        Type::group_type_builder(name)
            .with_repetition(Repetition::REPEATED)
            .with_fields(fields)
            .build()
            .map(Arc::new)
    };
    let outer = |converted, inner: TypePtr| {
        Type::group_type_builder(name)
            .with_repetition(repetition)
            .with_converted_type(converted)
            .with_fields(vec![inner])
            .build()
            .map(Arc::new)
    };
    let built = match rows::form(&field.kind) {
        Form::MillisInstant => primitive(Physical::INT64, ConvertedType::TIMESTAMP_MILLIS),
        Form::MicrosInstant => primitive(Physical::INT64, ConvertedType::TIMESTAMP_MICROS),
        Form::Date => primitive(Physical::INT32, ConvertedType::DATE),
        Form::Decimal => primitive(Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::DECIMAL)
            .with_length(16)
            .with_precision(PRECISION as i32)
            .with_scale(SCALE as i32),
        Form::Fixed(length) => primitive(Physical::FIXED_LEN_BYTE_ARRAY, none)
            .with_length(i32::try_from(length).map_err(|e| ParquetError::External(Box::new(e)))?),
        Form::Plain(kind) => match kind {
            FieldKind::Byte => primitive(Physical::INT32, ConvertedType::INT_8),
            FieldKind::Int16 => primitive(Physical::INT32, ConvertedType::INT_16),
            FieldKind::Int32 => primitive(Physical::INT32, none),
            FieldKind::Int64 => primitive(Physical::INT64, none),
            FieldKind::Float => primitive(Physical::FLOAT, none),
            FieldKind::Double => primitive(Physical::DOUBLE, none),
            FieldKind::Boolean => primitive(Physical::BOOLEAN, none),
            FieldKind::String => primitive(Physical::BYTE_ARRAY, ConvertedType::UTF8),
            FieldKind::Bytes | FieldKind::Logical(_) => primitive(Physical::BYTE_ARRAY, none),
            FieldKind::Array(item) | FieldKind::Iterable(item) => {
                return outer(
                    ConvertedType::LIST,
                    repeated("list", vec![parquet_type("element", item)?])?,
                );
            }
            FieldKind::Map(key, value) => {
                let entry = vec![parquet_type("key", key)?, parquet_type("value", value)?];
                return outer(ConvertedType::MAP, repeated("key_value", entry)?);
            }
            FieldKind::Row(schema) => {
                return Type::group_type_builder(name)
                    .with_repetition(repetition)
                    .with_fields(group(schema)?)
                    .build()
                    .map(Arc::new);
            }
        },
    };
    built.build().map(Arc::new)
}
