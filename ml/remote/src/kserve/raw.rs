//! Values as bytes: little-endian, one behind the other; texts and bytes with their length (32 bits) before them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::half::F16;
use crate::proto::InferTensorContents;
use crate::tensor::{Datatype, Values};

/// The bytes of values.
pub(crate) fn write(values: &Values) -> Bytes {
    macro_rules! numbers {
        ($list:expr) => {
            $list.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
    }
    match values {
        Values::Bool(list) => list.iter().map(|value| u8::from(*value)).collect(),
        Values::U8(list) => Bytes::copy_from_slice(list),
        Values::U16(list) => numbers!(list),
        Values::U32(list) => numbers!(list),
        Values::U64(list) => numbers!(list),
        Values::I8(list) => numbers!(list),
        Values::I16(list) => numbers!(list),
        Values::I32(list) => numbers!(list),
        Values::I64(list) => numbers!(list),
        Values::F16(list) => list
            .iter()
            .flat_map(|value| value.to_bits().to_le_bytes())
            .collect(),
        Values::F32(list) => numbers!(list),
        Values::F64(list) => numbers!(list),
        Values::Bytes(list) => {
            let mut bytes = BytesMut::new();
            for one in list {
                bytes.put_u32_le(u32::try_from(one.len()).unwrap_or(u32::MAX));
                bytes.extend_from_slice(one);
            }
            bytes.freeze()
        }
    }
}

/// The values of bytes; `None`: they are cut.
pub(crate) fn read(datatype: Datatype, bytes: &[u8]) -> Option<Values> {
    macro_rules! numbers {
        ($kind:ident, $type:ty) => {{
            let (values, []) = bytes.as_chunks::<{ size_of::<$type>() }>() else {
                return None;
            };
            Values::$kind(
                values
                    .iter()
                    .map(|value| <$type>::from_le_bytes(*value))
                    .collect(),
            )
        }};
    }
    Some(match datatype {
        Datatype::Bool => Values::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        Datatype::U8 => Values::U8(bytes.to_vec()),
        Datatype::U16 => numbers!(U16, u16),
        Datatype::U32 => numbers!(U32, u32),
        Datatype::U64 => numbers!(U64, u64),
        Datatype::I8 => numbers!(I8, i8),
        Datatype::I16 => numbers!(I16, i16),
        Datatype::I32 => numbers!(I32, i32),
        Datatype::I64 => numbers!(I64, i64),
        Datatype::F16 => match numbers!(U16, u16) {
            Values::U16(list) => Values::F16(list.into_iter().map(F16::from_bits).collect()),
            _ => return None,
        },
        Datatype::F32 => numbers!(F32, f32),
        Datatype::F64 => numbers!(F64, f64),
        Datatype::Bytes => {
            let (mut rest, mut list) = (bytes, Vec::new());
            while let Some((length, more)) = rest.split_first_chunk() {
                let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                let (one, more) = more.split_at_checked(length)?;
                list.push(one.to_vec());
                rest = more;
            }
            if !rest.is_empty() {
                return None;
            }
            Values::Bytes(list)
        }
    })
}

/// The values of a message's fields; `None`: one is too large for its datatype.
pub(crate) fn contents(datatype: Datatype, contents: InferTensorContents) -> Option<Values> {
    macro_rules! narrow {
        ($kind:ident, $list:expr) => {
            Values::$kind(
                $list
                    .into_iter()
                    .map(|value| value.try_into().ok())
                    .collect::<Option<_>>()?,
            )
        };
    }
    Some(match datatype {
        Datatype::Bool => Values::Bool(contents.bool_contents),
        Datatype::U8 => narrow!(U8, contents.uint_contents),
        Datatype::U16 => narrow!(U16, contents.uint_contents),
        Datatype::U32 => Values::U32(contents.uint_contents),
        Datatype::U64 => Values::U64(contents.uint64_contents),
        Datatype::I8 => narrow!(I8, contents.int_contents),
        Datatype::I16 => narrow!(I16, contents.int_contents),
        Datatype::I32 => Values::I32(contents.int_contents),
        Datatype::I64 => Values::I64(contents.int64_contents),
        // The protocol has no field for them: they are among the bytes.
        Datatype::F16 => return None,
        Datatype::F32 => Values::F32(contents.fp32_contents),
        Datatype::F64 => Values::F64(contents.fp64_contents),
        Datatype::Bytes => Values::Bytes(
            contents
                .bytes_contents
                .into_iter()
                .map(|bytes| bytes.to_vec())
                .collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_and_read() {
        for values in [
            Values::Bool(vec![true, false]),
            Values::U8(vec![1, 255]),
            Values::U16(vec![1, 65535]),
            Values::U32(vec![u32::MAX]),
            Values::U64(vec![u64::MAX]),
            Values::I8(vec![-1]),
            Values::I16(vec![-300]),
            Values::I32(vec![i32::MIN]),
            Values::I64(vec![i64::MIN, 7]),
            Values::F16([f32::INFINITY, 0.1].map(F16::from_f32).to_vec()),
            Values::F32(vec![f32::INFINITY, 0.1]),
            Values::F64(vec![-0.1]),
            Values::Bytes(vec![vec![0xff, 0], vec![], b"text".to_vec()]),
        ] {
            assert_eq!(read(values.datatype(), &write(&values)), Some(values));
        }
        assert_eq!(write(&Values::I16(vec![1, 2])), [1, 0, 2, 0][..]);
        assert_eq!(write(&Values::F16(vec![F16::from_f32(1.0)])), [0, 0x3c][..]);
        assert_eq!(contents(Datatype::F16, InferTensorContents::default()), None);
        assert_eq!(
            write(&Values::Bytes(vec![b"ab".to_vec()])),
            [2, 0, 0, 0, b'a', b'b'][..]
        );
    }

    #[test]
    fn bytes_that_are_cut_are_none() {
        assert_eq!(read(Datatype::F32, &[0; 7]), None);
        assert_eq!(read(Datatype::Bytes, &[2, 0, 0, 0, 1]), None);
        assert_eq!(read(Datatype::Bytes, &[0, 0, 0]), None);
        assert_eq!(read(Datatype::Bytes, &[255; 8]), None);
        let fields = InferTensorContents {
            int_contents: vec![300],
            ..InferTensorContents::default()
        };
        assert_eq!(contents(Datatype::I8, fields.clone()), None);
        assert_eq!(contents(Datatype::I16, fields), Some(Values::I16(vec![300])));
    }
}
