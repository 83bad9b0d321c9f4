//! ONNX: of its protobuf the messages that tell what a model takes, by the numbers of `onnx.proto`.

use std::fs::File;

use prost::Message;

use super::{BadModel, Input, Inspected, Kind, read_all};

#[derive(Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Message)]
struct OperatorSetIdProto {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Message)]
struct NodeProto {}

#[derive(Message)]
struct TensorProto {
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Message)]
struct Dimension {
    /// Not there for a length that is not fixed.
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
}

/// `TensorProto.DataType`, by its numbers.
const DATATYPES: [&str; 17] = [
    "UNDEFINED",
    "FP32",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "INT64",
    "BYTES",
    "BOOL",
    "FP16",
    "FP64",
    "UINT32",
    "UINT64",
    "COMPLEX64",
    "COMPLEX128",
    "BF16",
];

/// `None`: it is not ONNX.
pub(super) fn inspect(file: File) -> Result<Option<Inspected>, BadModel> {
    let bytes = read_all(file)?;
    // The field 1, ir_version, comes first in what ONNX writes; versions are small.
    if !matches!(bytes[..], [0x08, 1..=0x7f, ..]) {
        return Ok(None);
    }
    let cut = |expected: String| BadModel::CutOff {
        kind: "ONNX",
        expected,
    };
    let model = match ModelProto::decode(&bytes[..]) {
        Ok(model) => model,
        // What begins as a model's fields do, and then breaks off.
        Err(error) if looks_like_one(&bytes) => {
            return Err(cut(format!("its protobuf cannot be read to its end ({error})")));
        }
        Err(_) => return Ok(None),
    };
    if model.ir_version == 0 || (model.graph.is_none() && model.opset_import.is_empty()) {
        return Ok(None);
    }
    let Some(graph) = model.graph else {
        return Err(cut("expected a graph".to_owned()));
    };
    if graph.output.is_empty() || model.opset_import.is_empty() {
        return Err(BadModel::Unusable {
            kind: "ONNX",
            reason: format!(
                "expected a graph with outputs, and the versions of its operators: it has {} nodes, {} outputs and {} versions",
                graph.node.len(),
                graph.output.len(),
                model.opset_import.len()
            ),
        });
    }
    let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().filter(|input| !is_weight(&input.name));
    Ok(Some(Inspected {
        kind: Kind::Onnx,
        inputs: inputs.map(input).collect(),
    }))
}

/// Whether text fields of a model (its producer's name and version) follow the first one.
fn looks_like_one(bytes: &[u8]) -> bool {
    matches!(bytes.get(2), Some(0x12 | 0x1a | 0x22 | 0x3a | 0x42))
}

fn input(value: &ValueInfoProto) -> Input {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let datatype = tensor.map_or(0, |tensor| usize::try_from(tensor.elem_type).unwrap_or(0));
    let dims = tensor.and_then(|tensor| tensor.shape.as_ref());
    let length = |dim: &Dimension| dim.dim_value.filter(|length| *length > 0).unwrap_or(-1);
    Input::new(
        &value.name,
        DATATYPES.get(datatype).copied().unwrap_or("UNDEFINED"),
        dims.map(|shape| shape.dim.iter().map(length).collect())
            .unwrap_or_default(),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn value(name: &str, lengths: &[Option<i64>]) -> ValueInfoProto {
        let dim = lengths
            .iter()
            .map(|length| Dimension { dim_value: *length })
            .collect();
        ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                tensor_type: Some(TensorTypeProto {
                    elem_type: 1,
                    shape: Some(TensorShapeProto { dim }),
                }),
            }),
        }
    }

    /// A model with an input `x`, and a weight that older versions name among the inputs.
    pub fn model() -> Vec<u8> {
        ModelProto {
            ir_version: 8,
            graph: Some(GraphProto {
                node: vec![NodeProto {}],
                initializer: vec![TensorProto { name: "w".to_owned() }],
                input: vec![value("x", &[None, Some(4)]), value("w", &[Some(4)])],
                output: vec![value("y", &[None])],
            }),
            opset_import: vec![OperatorSetIdProto { version: 17 }],
        }
        .encode_to_vec()
    }

    #[test]
    fn a_model_without_outputs_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let mut model = ModelProto::decode(&*model()).unwrap();
        if let Some(graph) = &mut model.graph {
            graph.output.clear();
        }
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        let error = inspect(File::open(&path).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("it has 1 nodes, 0 outputs and 1 versions"),
            "{error}"
        );
    }
}
