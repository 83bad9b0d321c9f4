//! Schemas of rows, read from Beam's proto.

use std::sync::Arc;

use prost::Message;
use purlin_model::Schema;
use purlin_model::schema::{Field, FieldKind, FieldType, LogicalArgument, LogicalType};
use purlin_proto::pipeline::{self as beam, AtomicType, field_type::TypeInfo};

/// Why the payload of a row coder is not a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema cannot be read: {0}")]
pub struct ParseSchemaError(String);

/// Reads a serialized `Schema` message: the payload of `beam:coder:row:v1`.
///
/// # Errors
/// When it is none, or says less than a coder needs.
pub fn parse_schema(payload: &bytes::Bytes) -> Result<Schema, ParseSchemaError> {
    let proto = beam::Schema::decode(payload.clone()).map_err(|e| ParseSchemaError(e.to_string()))?;
    let mut schema = schema_of(proto).map_err(ParseSchemaError)?;
    schema.set_payload(payload.clone());
    Ok(schema)
}

fn schema_of(proto: beam::Schema) -> Result<Schema, String> {
    let positions = proto.encoding_positions_set;
    let payload = proto.encode_to_vec();
    let mut fields = Vec::new();
    for field in proto.fields {
        let position = u32::try_from(field.encoding_position)
            .map_err(|_| format!("field \"{}\" has a negative encoding position", field.name));
        let field_type = field
            .r#type
            .ok_or_else(|| format!("field \"{}\" has no type", field.name))?;
        fields.push(Field {
            field_type: type_of(field_type).map_err(|e| format!("field \"{}\": {e}", field.name))?,
            encoding_position: if positions { Some(position?) } else { None },
            name: field.name,
        });
    }
    let mut schema = Schema::new(fields).map_err(|e| e.to_string())?;
    schema.set_payload(payload.into());
    Ok(schema)
}

fn type_of(proto: beam::FieldType) -> Result<FieldType, String> {
    let part = |inner: Option<Box<beam::FieldType>>, what: &str| match inner {
        Some(inner) => type_of(*inner).map(Box::new),
        None => Err(format!("{what} is missing")),
    };
    let kind = match proto.type_info.ok_or("its type is not set")? {
        TypeInfo::AtomicType(atomic) => match AtomicType::try_from(atomic) {
            Ok(AtomicType::Byte) => FieldKind::Byte,
            Ok(AtomicType::Int16) => FieldKind::Int16,
            Ok(AtomicType::Int32) => FieldKind::Int32,
            Ok(AtomicType::Int64) => FieldKind::Int64,
            Ok(AtomicType::Float) => FieldKind::Float,
            Ok(AtomicType::Double) => FieldKind::Double,
            Ok(AtomicType::String) => FieldKind::String,
            Ok(AtomicType::Boolean) => FieldKind::Boolean,
            Ok(AtomicType::Bytes) => FieldKind::Bytes,
            Ok(AtomicType::Unspecified) | Err(_) => return Err(format!("atomic type {atomic} is not known")),
        },
        TypeInfo::ArrayType(array) => FieldKind::Array(part(array.element_type, "the array's item type")?),
        TypeInfo::IterableType(iterable) => {
            FieldKind::Iterable(part(iterable.element_type, "the iterable's item type")?)
        }
        TypeInfo::MapType(map) => FieldKind::Map(
            part(map.key_type, "the map's key type")?,
            part(map.value_type, "the map's value type")?,
        ),
        TypeInfo::RowType(row) => FieldKind::Row(Arc::new(schema_of(
            row.schema.ok_or("the row's schema is missing")?,
        )?)),
        TypeInfo::LogicalType(logical) => FieldKind::Logical(Box::new(LogicalType {
            urn: logical.urn,
            payload: logical.payload,
            representation: *part(logical.representation, "the logical type's representation")?,
            argument: match (logical.argument_type, logical.argument) {
                (Some(field_type), Some(value)) => Some(LogicalArgument {
                    field_type: type_of(*field_type)?,
                    value: value.encode_to_vec().into(),
                }),
                _ => None,
            },
        })),
    };
    Ok(FieldType {
        nullable: proto.nullable,
        kind,
    })
}
