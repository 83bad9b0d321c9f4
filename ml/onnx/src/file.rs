//! A model's file: its graph, what it takes and gives, and where its weights are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use prost_of_tract::Message;
use purlin_inference::hash_bytes;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

use crate::datatype::Datatype;
use crate::error::{Node, ParseError};
use crate::port::{Dim, Port};

/// The domain of scikit-learn's operators.
pub const ML: &str = "ai.onnx.ml";

/// A model's graph, as it is read.
pub struct File {
    pub proto: ModelProto,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Whether the graph is another than the one that was read.
    pub is_changed: bool,
    pub sha256: String,
}

impl File {
    /// `folder` is where files of weights are.
    pub fn read(bytes: &[u8], folder: Option<&Path>) -> Result<File, ParseError> {
        let mut proto = decode(bytes)?;
        let sha256 = hash_all(bytes, &proto, folder)?;
        let is_changed = proto.graph.as_mut().is_some_and(open_zip_maps);
        if is_changed && !proto.opset_import.iter().any(|import| is_own(&import.domain)) {
            proto.opset_import.push(OperatorSetIdProto {
                version: 9,
                ..Default::default()
            });
        }
        let graph = proto
            .graph
            .as_ref()
            .ok_or_else(|| ParseError::CutOff("it has no graph".to_owned()))?;
        let weights: BTreeSet<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
        let inputs: Vec<Port> = graph
            .input
            .iter()
            .filter(|input| !weights.contains(&*input.name))
            .map(port)
            .collect();
        let outputs: Vec<Port> = graph.output.iter().map(port).collect();
        if inputs.is_empty() {
            return Err(ParseError::Missing("inputs: every row would give the same"));
        }
        if outputs.is_empty() {
            return Err(ParseError::Missing("outputs"));
        }
        if let Some(input) = inputs.iter().find(|input| input.datatype.is_none()) {
            return Err(ParseError::InputType {
                name: input.name.clone(),
                found: input.told.to_owned(),
            });
        }
        Ok(File {
            inputs,
            outputs,
            proto,
            is_changed,
            sha256,
        })
    }

    /// The version of ONNX's own operators.
    pub fn opset(&self) -> i64 {
        opset(&self.proto, "")
    }

    /// The first node of each operator that an engine does not have.
    pub fn nodes_without(&self, has: impl Fn(&NodeProto) -> bool) -> Vec<Node> {
        let mut found = BTreeMap::new();
        let mut graphs: Vec<&GraphProto> = self.proto.graph.iter().collect();
        while let Some(graph) = graphs.pop() {
            for node in &graph.node {
                if !has(node) {
                    let told = told(node, &self.proto);
                    found.entry(told.operator.clone()).or_insert(told);
                }
                graphs.extend(node.attribute.iter().flat_map(graphs_of));
            }
        }
        found.into_values().collect()
    }
}

fn graphs_of(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

/// A node as errors name it.
fn told(node: &NodeProto, model: &ModelProto) -> Node {
    let first = node
        .output
        .first()
        .map_or("a node without outputs", |name| &**name);
    Node {
        name: if node.name.is_empty() { first } else { &node.name }.to_owned(),
        operator: match is_own(&node.domain) {
            true => node.op_type.clone(),
            false => format!("{}.{}", node.domain, node.op_type),
        },
        opset: opset(model, &node.domain),
    }
}

/// Whether a domain is that of ONNX's own operators.
pub fn is_own(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn opset(model: &ModelProto, domain: &str) -> i64 {
    let same = |other: &str| other == domain || (is_own(other) && is_own(domain));
    let mut versions = model.opset_import.iter();
    versions
        .find(|import| same(&import.domain))
        .map_or(0, |import| import.version)
}

fn decode(bytes: &[u8]) -> Result<ModelProto, ParseError> {
    if bytes.is_empty() {
        return Err(ParseError::Empty);
    }
    // The field 1, ir_version, comes first in what ONNX writes; versions are small. The producer's name or version follow, or the graph.
    let looks_like_one = matches!(bytes, [0x08, 1..=0x7f, 0x12 | 0x1a | 0x22 | 0x3a | 0x42, ..]);
    let model = ModelProto::decode(bytes).map_err(|error| match looks_like_one {
        true => ParseError::CutOff(format!("its protobuf cannot be read to its end ({error})")),
        false => ParseError::NotOnnx(format!("it begins with {}", begin(bytes))),
    })?;
    match (model.graph.is_some(), model.ir_version > 0) {
        (true, true) => Ok(model),
        (_, true) if looks_like_one => Err(ParseError::CutOff("it has no graph".to_owned())),
        _ => Err(ParseError::NotOnnx(format!("it begins with {}", begin(bytes)))),
    }
}

/// The first bytes as text where they are text.
fn begin(bytes: &[u8]) -> String {
    let begin = &bytes[..bytes.len().min(24)];
    match std::str::from_utf8(begin) {
        Ok(text) if !text.contains('\0') => format!("{text:?}"),
        _ => {
            let bytes: Vec<String> = begin.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("the bytes {}", bytes.join(" "))
        }
    }
}

/// The hash of the file's bytes. Of a model whose weights are in other files, that of the hashes of all of them.
fn hash_all(bytes: &[u8], model: &ModelProto, folder: Option<&Path>) -> Result<String, ParseError> {
    let own = hash_bytes(bytes);
    let external = external_files(model);
    if external.is_empty() {
        return Ok(own);
    }
    let mut hashes = own;
    for (file, tensor) in external {
        let error = |problem: &str| ParseError::ExternalData {
            tensor: tensor.to_owned(),
            file: file.to_owned(),
            problem: problem.to_owned(),
        };
        let folder = folder
            .ok_or_else(|| error("a model that the program holds cannot have files: load it from a path"))?;
        let is_within = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(file).components().all(is_within) {
            return Err(error("expected a path within the model's folder"));
        }
        let path = folder.join(file);
        let weights = std::fs::read(&path)
            .map_err(|source| error(&format!("cannot read {}: {source}", path.display())))?;
        hashes.push_str(&hash_bytes(&weights));
    }
    Ok(hash_bytes(hashes.as_bytes()))
}

/// The files of weights, each with the first tensor that it has.
fn external_files(model: &ModelProto) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    let mut graphs: Vec<&GraphProto> = model.graph.iter().collect();
    while let Some(graph) = graphs.pop() {
        let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
        let of_nodes = attributes().flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
        for tensor in graph.initializer.iter().chain(of_nodes) {
            if let Some(file) = external_file(tensor) {
                found.entry(file).or_insert(&*tensor.name);
            }
        }
        graphs.extend(attributes().flat_map(graphs_of));
    }
    found
}

fn external_file(tensor: &TensorProto) -> Option<&str> {
    let location = tensor.external_data.iter().find(|entry| entry.key == "location");
    (tensor.data_location == Some(1))
        .then_some(location)
        .flatten()
        .map(|entry| &*entry.value)
}

fn port(value: &ValueInfoProto) -> Port {
    let kind = value.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let tensor = kind.map(|type_proto::Value::TensorType(tensor)| tensor);
    let (datatype, told) = match tensor {
        Some(tensor) => match DataType::from_i32(tensor.elem_type) {
            Some(datatype) => (datatype_of(datatype), datatype.as_str_name()),
            None => (None, "of a type that is not known"),
        },
        None => (None, "not a tensor"),
    };
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    Port {
        name: value.name.clone(),
        datatype,
        shape: shape.map(|shape| shape.dim.iter().map(dim).collect()),
        told,
    }
}

fn dim(dim: &tensor_shape_proto::Dimension) -> Dim {
    match &dim.value {
        Some(DimValue::DimValue(length)) => usize::try_from(*length).map_or(Dim::Any, Dim::Fixed),
        Some(DimValue::DimParam(name)) if !matches!(&**name, "" | "?" | "None") => Dim::Named(name.clone()),
        _ => Dim::Any,
    }
}

fn datatype_of(datatype: DataType) -> Option<Datatype> {
    Some(match datatype {
        DataType::Float => Datatype::F32,
        DataType::Uint8 => Datatype::U8,
        DataType::Int8 => Datatype::I8,
        DataType::Uint16 => Datatype::U16,
        DataType::Int16 => Datatype::I16,
        DataType::Int32 => Datatype::I32,
        DataType::Int64 => Datatype::I64,
        DataType::String => Datatype::Text,
        DataType::Bool => Datatype::Bool,
        DataType::Double => Datatype::F64,
        DataType::Uint32 => Datatype::U32,
        DataType::Uint64 => Datatype::U64,
        _ => return None,
    })
}

/// Outputs that scikit-learn's converter makes dictionaries of are the tensors that they are made of: a value for each class, in the
/// order of the classes. Whether there were some.
fn open_zip_maps(graph: &mut GraphProto) -> bool {
    let mut classes = HashMap::new();
    for node in &mut graph.node {
        if node.domain != ML || node.op_type != "ZipMap" {
            continue;
        }
        let labels = node
            .attribute
            .iter()
            .map(|attribute| attribute.ints.len().max(attribute.strings.len()));
        let Some(output) = node.output.first() else {
            continue;
        };
        classes.insert(output.clone(), labels.max().unwrap_or(0));
        "Identity".clone_into(&mut node.op_type);
        node.domain.clear();
        node.attribute.clear();
    }
    for output in &mut graph.output {
        if let Some(classes) = classes.get(&output.name) {
            let dim = |value| tensor_shape_proto::Dimension {
                value,
                ..Default::default()
            };
            let each = i64::try_from(*classes).ok().map(DimValue::DimValue);
            let tensor = type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto {
                    dim: vec![dim(None), dim(each)],
                }),
            };
            output.r#type = Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..Default::default()
            });
        }
    }
    !classes.is_empty()
}
