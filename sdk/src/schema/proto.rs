//! Schemas as Beam's proto. The runner reads them.

use prost::Message;
use purlin_model::schema::{FieldKind, FieldType};
use purlin_proto::pipeline::{self as beam, AtomicType, field_type::TypeInfo};
use sha2::{Digest, Sha256};

use super::RowSchema;

/// A schema's proto. Its id is made from the fields: equal schemas have equal ids, in each run of each program.
pub(super) fn schema_proto(schema: &RowSchema) -> beam::Schema {
    let fields = schema.fields().iter().zip(0..).map(|(field, id)| beam::Field {
        name: field.name.clone(),
        r#type: Some(type_proto(&field.field_type)),
        id,
        encoding_position: id,
        ..Default::default()
    });
    let mut proto = beam::Schema {
        fields: fields.collect(),
        ..Default::default()
    };
    let hash = Sha256::digest(proto.encode_to_vec());
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    proto.id = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    );
    proto
}

fn type_proto(field_type: &FieldType) -> beam::FieldType {
    let boxed = |inner: &FieldType| Some(Box::new(type_proto(inner)));
    let atomic = |atomic: AtomicType| TypeInfo::AtomicType(atomic.into());
    let info = match &field_type.kind {
        FieldKind::Byte => atomic(AtomicType::Byte),
        FieldKind::Int16 => atomic(AtomicType::Int16),
        FieldKind::Int32 => atomic(AtomicType::Int32),
        FieldKind::Int64 => atomic(AtomicType::Int64),
        FieldKind::Float => atomic(AtomicType::Float),
        FieldKind::Double => atomic(AtomicType::Double),
        FieldKind::String => atomic(AtomicType::String),
        FieldKind::Boolean => atomic(AtomicType::Boolean),
        FieldKind::Bytes => atomic(AtomicType::Bytes),
        FieldKind::Array(item) => TypeInfo::ArrayType(Box::new(beam::ArrayType {
            element_type: boxed(item),
        })),
        FieldKind::Iterable(item) => TypeInfo::IterableType(Box::new(beam::IterableType {
            element_type: boxed(item),
        })),
        FieldKind::Map(key, value) => TypeInfo::MapType(Box::new(beam::MapType {
            key_type: boxed(key),
            value_type: boxed(value),
        })),
        FieldKind::Row(schema) => TypeInfo::RowType(beam::RowType {
            schema: Some(schema_proto(schema)),
        }),
        FieldKind::Logical(logical) => TypeInfo::LogicalType(Box::new(beam::LogicalType {
            urn: logical.urn.clone(),
            payload: logical.payload.clone(),
            representation: boxed(&logical.representation),
            argument_type: logical.argument.as_ref().and_then(|a| boxed(&a.field_type)),
            // Made by this SDK or read from a proto: it can be read.
            argument: logical
                .argument
                .as_ref()
                .and_then(|a| beam::FieldValue::decode(a.value.clone()).ok()),
        })),
    };
    beam::FieldType {
        nullable: field_type.nullable,
        type_info: Some(info),
    }
}
