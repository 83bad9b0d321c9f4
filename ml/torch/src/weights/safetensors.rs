//! Hugging Face's safetensors format.

use safetensors::{Dtype, SafeTensors};
use tch::Kind;

use super::state_dict::{Entry, StateDict, Stored};

/// Locates the tensors; the error says what is wrong with the file.
pub(super) fn open(bytes: Vec<u8>) -> Result<StateDict, String> {
    let mut entries = Vec::new();
    let mut others = Vec::new();
    {
        let file = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
        let base = bytes.as_ptr() as usize;
        for (name, view) in file.iter() {
            let Some(kind) = kind(view.dtype()) else {
                others.push((
                    name.to_owned(),
                    format!("a tensor of {:?} numbers, which are not read", view.dtype()),
                ));
                continue;
            };
            let shape = view
                .shape()
                .iter()
                .map(|&dim| i64::try_from(dim))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| format!("tensor {name} has the shape {:?}", view.shape()))?;
            // The view borrows from `bytes`, so its address tells where it lies.
            let start = view.data().as_ptr() as usize - base;
            let mut strides = vec![1i64; shape.len()];
            for dim in (1..shape.len()).rev() {
                strides[dim - 1] = strides[dim].saturating_mul(shape[dim]);
            }
            let storage = Stored::Plain(start..start + view.data().len());
            entries.push((
                name.to_owned(),
                Entry {
                    kind,
                    shape,
                    strides,
                    offset: 0,
                    storage,
                    negated: false,
                },
            ));
        }
    }
    Ok(StateDict::new(bytes, entries, others))
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
