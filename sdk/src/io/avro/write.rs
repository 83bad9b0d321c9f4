//! Writing Avro object container files.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;

use purlin_model::schema::{FieldKind, FieldType};
use purlin_model::{Coder, Value};
use sha2::{Digest, Sha256};

use crate::error::BoxError;
use crate::io::rows::{self, Form, PRECISION, SCALE};
use crate::io::write::{FileSink, WriteFiles};
use crate::schema::{RowSchema, Schema};

/// Rows are gathered into blocks of about so many bytes.
const BLOCK: usize = 64 << 10;

/// Writes rows as Avro files: see [`WriteFiles`]. The Avro schema is that of the rows.
///
/// | field | Avro |
/// |---|---|
/// | BYTE, INT16, INT32 | `int` |
/// | `Timestamp`, `MicrosInstant`, `Date` | `timestamp-millis`, `timestamp-micros`, `date` |
/// | `Decimal` | `decimal` of 38 digits, 9 of them behind the point |
/// | `[u8; N]` | `fixed` |
/// | enumerations, one-ofs | their representation: a number, a record of which one field is not null |
/// | nullable | a union with `null` |
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct User {
///     id: i64,
///     name: Option<String>,
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let output = format!("{}/users.avro", folder.path().display());
/// let p = TestPipeline::new();
/// let users = [User { id: 1, name: Some("Ann".into()) }, User { id: 2, name: None }];
/// let written = p.apply(Create::new(users.clone())).apply(WriteAvro::<User>::to(&output).without_sharding());
/// PAssert::that(&written.apply(ReadAvro::<User>::all())).contains_in_any_order(users);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
pub type WriteAvro<T> = WriteFiles<AvroSink<T>>;

/// How the blocks of Avro files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AvroCodec {
    /// Not at all.
    Null,
    /// By deflate.
    #[default]
    Deflate,
    /// By Zstandard.
    Zstandard,
}

impl AvroCodec {
    fn name(self) -> &'static str {
        match self {
            AvroCodec::Null => "null",
            AvroCodec::Deflate => "deflate",
            AvroCodec::Zstandard => "zstandard",
        }
    }

    fn compress(self, data: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            AvroCodec::Null => Ok(data.to_vec()),
            AvroCodec::Deflate => {
                let mut encoder =
                    flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(data)?;
                encoder.finish()
            }
            AvroCodec::Zstandard => zstd::encode_all(data, 0),
        }
    }
}

/// The format of [`WriteAvro`].
#[derive(Clone, Debug)]
pub struct AvroSink<T> {
    schema: Arc<RowSchema>,
    coder: Coder,
    codec: AvroCodec,
    text: Arc<str>,
    marker: [u8; 16],
    block: Vec<u8>,
    rows: i64,
    row: PhantomData<fn(T)>,
}

impl<T: Schema> WriteFiles<AvroSink<T>> {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteAvro<T> {
        let schema = T::schema();
        let text = avro_schema(&schema);
        // The same in all files of this schema, so that their blocks may follow each other.
        let mut marker = [0; 16];
        marker.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
        WriteFiles::with(
            prefix,
            AvroSink {
                coder: rows::coder(&schema),
                schema,
                codec: AvroCodec::default(),
                text: text.into(),
                marker,
                block: Vec::new(),
                rows: 0,
                row: PhantomData,
            },
        )
    }
}

impl<T, D> WriteFiles<AvroSink<T>, D> {
    /// How blocks are compressed: by deflate, unless told otherwise.
    #[must_use]
    pub fn codec(mut self, codec: AvroCodec) -> Self {
        self.sink_mut().codec = codec;
        self
    }
}

fn long(value: i64, out: &mut Vec<u8>) {
    purlin_model::wire::write_varint(((value << 1) ^ (value >> 63)) as u64, out);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

impl<T> AvroSink<T> {
    fn flush(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        if self.rows > 0 {
            long(self.rows, out);
            bytes(&self.codec.compress(&self.block)?, out);
            out.extend_from_slice(&self.marker);
            self.block.clear();
            self.rows = 0;
        }
        Ok(())
    }
}

impl<T: Schema> FileSink<T> for AvroSink<T> {
    const NAME: &'static str = "WriteAvro";
    const CONCATENATES: bool = true;

    fn check(&self) -> Vec<String> {
        check(&self.schema)
    }

    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let values = rows::to_values(&self.coder, &element)?;
        let start = self.block.len();
        if let Err(error) = encode_row(&self.schema, &values, &mut self.block) {
            self.block.truncate(start);
            return Err(error);
        }
        self.rows += 1;
        if self.block.len() >= BLOCK {
            self.flush(out)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(self.flush(out)?)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"Obj\x01".to_vec();
        long(2, &mut out);
        for (key, value) in [("avro.schema", &*self.text), ("avro.codec", self.codec.name())] {
            bytes(key.as_bytes(), &mut out);
            bytes(value.as_bytes(), &mut out);
        }
        long(0, &mut out);
        out.extend_from_slice(&self.marker);
        out
    }
}

fn encode_row(schema: &RowSchema, values: &[Value], out: &mut Vec<u8>) -> Result<(), BoxError> {
    for (field, value) in schema.fields().iter().zip(values) {
        encode(&field.field_type, value, out)
            .map_err(|error| format!("field \"{}\": {error}", field.name))?;
    }
    Ok(())
}

fn encode(field: &FieldType, value: &Value, out: &mut Vec<u8>) -> Result<(), BoxError> {
    if field.nullable {
        // Null comes first in the union.
        long(i64::from(*value != Value::Null), out);
        if *value == Value::Null {
            return Ok(());
        }
    }
    let mismatch = || format!("{} cannot be written as {field}", value.kind());
    match (form(field), value) {
        (Form::MillisInstant, Value::Timestamp(at)) => long(at.millis(), out),
        (Form::MicrosInstant, instant) => long(rows::micros(instant).ok_or_else(mismatch)?, out),
        (Form::Date, Value::Int(day)) => long(i64::from(i32::try_from(*day)?), out),
        (Form::Decimal, Value::Decimal { scale, unscaled }) => {
            bytes(&rows::decimal(*scale, unscaled)?.to_be_bytes(), out);
        }
        (Form::Fixed(_), Value::Bytes(fixed)) => out.extend_from_slice(fixed),
        (Form::Plain(kind), value) => match (kind, value) {
            (_, Value::Int(value)) => long(*value, out),
            (_, Value::Float(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (_, Value::Double(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (_, Value::Bool(value)) => out.push(u8::from(*value)),
            (_, Value::String(text)) => bytes(text.as_bytes(), out),
            (_, Value::Bytes(data)) => bytes(data, out),
            (FieldKind::Array(item) | FieldKind::Iterable(item), Value::Iterable(items)) => {
                if !items.is_empty() {
                    long(items.len() as i64, out);
                    items.iter().try_for_each(|value| encode(item, value, out))?;
                }
                long(0, out);
            }
            (FieldKind::Map(_, item), Value::Map(entries)) => {
                if !entries.is_empty() {
                    long(entries.len() as i64, out);
                    for (key, value) in entries {
                        let Value::String(key) = key else {
                            return Err(mismatch().into());
                        };
                        bytes(key.as_bytes(), out);
                        encode(item, value, out)?;
                    }
                }
                long(0, out);
            }
            (FieldKind::Row(schema), Value::Row(values)) => encode_row(schema, values, out)?,
            _ => return Err(mismatch().into()),
        },
        _ => return Err(mismatch().into()),
    }
    Ok(())
}

fn form(field: &FieldType) -> Form<'_> {
    rows::form(&field.kind)
}

/// What is wrong with the types and names of fields: the keys of Avro's maps are strings, and its names have few characters.
fn check(schema: &RowSchema) -> Vec<String> {
    let mut problems = Vec::new();
    check_row("", schema, &mut problems);
    problems
}

fn check_row(path: &str, schema: &RowSchema, problems: &mut Vec<String>) {
    let mut names: HashMap<String, &str> = HashMap::new();
    for field in schema.fields() {
        let path = format!("{path}{}", field.name);
        if let Some(other) = names.insert(name(&field.name), &field.name) {
            problems.push(format!(
                "field \"{path}\" and field \"{other}\" are both \"{}\" in Avro, whose names are letters, digits and _: rename \
                 one of them",
                name(&field.name)
            ));
        }
        check_type(&path, &field.field_type, problems);
    }
}

fn check_type(path: &str, field: &FieldType, problems: &mut Vec<String>) {
    match form(field) {
        Form::Plain(FieldKind::Map(key, value)) => {
            if !matches!(key.kind, FieldKind::String) {
                problems.push(format!(
                    "field \"{path}\" is {field}, but the keys of a map in Avro are strings: use String keys, or an array of rows"
                ));
            }
            check_type(path, value, problems);
        }
        Form::Plain(FieldKind::Array(item) | FieldKind::Iterable(item)) => check_type(path, item, problems),
        Form::Plain(FieldKind::Row(schema)) => check_row(&format!("{path}."), schema, problems),
        _ => {}
    }
}

/// The schema of rows as Avro's JSON.
fn avro_schema(schema: &RowSchema) -> String {
    let mut text = String::new();
    let mut types = 0;
    record(schema, &mut types, &mut text);
    text
}

/// A name that Avro takes.
pub(super) fn name(name: &str) -> String {
    let mut valid: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect();
    if valid.starts_with(|c: char| c.is_ascii_digit()) || valid.is_empty() {
        valid.insert(0, '_');
    }
    valid
}

// Writing to a String does not fail.
fn record(schema: &RowSchema, types: &mut usize, text: &mut String) {
    let _ = write!(text, r#"{{"type":"record","name":"Row{types}","fields":["#);
    *types += 1;
    for (i, field) in schema.fields().iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(text, r#"{comma}{{"name":"{}","type":"#, name(&field.name));
        avro_type(&field.field_type, types, text);
        text.push('}');
    }
    text.push_str("]}");
}

fn avro_type(field: &FieldType, types: &mut usize, text: &mut String) {
    if field.nullable {
        text.push_str(r#"["null","#);
    }
    match form(field) {
        Form::MillisInstant => text.push_str(r#"{"type":"long","logicalType":"timestamp-millis"}"#),
        Form::MicrosInstant => text.push_str(r#"{"type":"long","logicalType":"timestamp-micros"}"#),
        Form::Date => text.push_str(r#"{"type":"int","logicalType":"date"}"#),
        Form::Decimal => {
            let _ = write!(
                text,
                r#"{{"type":"bytes","logicalType":"decimal","precision":{PRECISION},"scale":{SCALE}}}"#
            );
        }
        Form::Fixed(length) => {
            let _ = write!(
                text,
                r#"{{"type":"fixed","name":"Fixed{types}","size":{length}}}"#
            );
            *types += 1;
        }
        Form::Plain(kind) => match kind {
            FieldKind::Byte | FieldKind::Int16 | FieldKind::Int32 => text.push_str(r#""int""#),
            FieldKind::Int64 => text.push_str(r#""long""#),
            FieldKind::Float => text.push_str(r#""float""#),
            FieldKind::Double => text.push_str(r#""double""#),
            FieldKind::String => text.push_str(r#""string""#),
            FieldKind::Boolean => text.push_str(r#""boolean""#),
            FieldKind::Bytes | FieldKind::Logical(_) => text.push_str(r#""bytes""#),
            FieldKind::Array(item) | FieldKind::Iterable(item) => {
                text.push_str(r#"{"type":"array","items":"#);
                avro_type(item, types, text);
                text.push('}');
            }
            FieldKind::Map(_, item) => {
                text.push_str(r#"{"type":"map","values":"#);
                avro_type(item, types, text);
                text.push('}');
            }
            FieldKind::Row(schema) => record(schema, types, text),
        },
    }
    if field.nullable {
        text.push(']');
    }
}
