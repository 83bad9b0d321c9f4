//! tract: graphs are optimised and run in this process, by code of Rust.

use tract_onnx::Onnx;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, type_proto};
use tract_onnx::prelude::tract_ndarray::ArrayD;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::InferenceModelExt;

use super::{Failure, Loaded, Ready, Source, guarded};
use crate::datatype::{Values, for_each_type};
use crate::error::ParseError;
use crate::file::{ML, is_own};
use crate::operators;
use crate::rows::{Rows, Stack};

const NAME: &str = "tract";
#[cfg(feature = "onnxruntime")]
const ADVICE: &str = "run the model by Engine::OnnxRuntime";
#[cfg(not(feature = "onnxruntime"))]
const ADVICE: &str =
    "build purlin-onnx with the feature `onnxruntime`, and run the model by Engine::OnnxRuntime";

struct Tract {
    plan: TypedSimplePlan<TypedModel>,
}

/// Loads a model.
pub fn load(source: Source<'_>, rows: Rows) -> Result<Loaded, ParseError> {
    let mut onnx = tract_onnx::onnx();
    operators::register(&mut onnx.op_register);
    let has = |node: &NodeProto| {
        (is_own(&node.domain) || node.domain == ML) && onnx.op_register.0.contains_key(&node.op_type)
    };
    let nodes = source.file.nodes_without(has);
    if !nodes.is_empty() {
        return Err(ParseError::Operators {
            engine: NAME,
            nodes,
            advice: ADVICE,
        });
    }
    let opset = source.file.opset();
    let folder = source
        .path
        .map(|path| path.parent().unwrap_or(path).to_string_lossy().into_owned());
    let mut proto = source.file.proto;
    let mut attempt = |rows| {
        let prepared = proto.graph.as_mut().map(|graph| prepare(graph, rows));
        let problem = |problem| ParseError::Graph {
            engine: NAME,
            opset,
            problem,
        };
        prepared.ok_or_else(|| problem("there is none".to_owned()))?;
        guarded(
            || {
                plan(&onnx, &proto, folder.as_deref(), source.outputs)
                    .map_err(|error| problem(format!("{error:#}")))
            },
            problem,
        )
    };
    match (attempt(rows), rows) {
        (Ok(plan), _) => Ok((Box::new(Tract { plan }), rows)),
        // Some graphs are understood only when each length is known.
        (Err(error), Rows::Stacked) => match attempt(Rows::OneByOne) {
            Ok(plan) => {
                tracing::warn!(%error, "tract does not take many rows at a time of this model, so it is given one by one");
                Ok((Box::new(Tract { plan }), Rows::OneByOne))
            }
            Err(_) => Err(error),
        },
        (Err(error), _) => Err(error),
    }
}

/// Gives free dimensions names that tract reads, and forgets shapes within the graph, which exporters are known to get wrong where
/// lengths are free.
fn prepare(graph: &mut GraphProto, rows: Rows) {
    graph.value_info.clear();
    let weights: Vec<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
    let mut names: Vec<String> = Vec::new();
    for (input, value) in graph.input.iter_mut().enumerate() {
        if weights.contains(&&*value.name) {
            continue;
        }
        let kind = value.r#type.as_mut().and_then(|kind| kind.value.as_mut());
        let Some(type_proto::Value::TensorType(tensor)) = kind else {
            continue;
        };
        let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim);
        for (place, dim) in dims.enumerate() {
            let free = match (&dim.value, rows, place) {
                (_, Rows::Stacked, 0) => "rows".to_owned(),
                (_, Rows::OneByOne, 0) => {
                    dim.value = Some(DimValue::DimValue(1));
                    continue;
                }
                (Some(DimValue::DimValue(length)), ..) if *length >= 0 => continue,
                (Some(DimValue::DimParam(name)), ..) if !matches!(&**name, "" | "?" | "None") => {
                    let known = names.iter().position(|known| known == name);
                    let number = known.unwrap_or_else(|| {
                        names.push(name.clone());
                        names.len() - 1
                    });
                    format!("named{number}")
                }
                _ => format!("free{input}x{place}"),
            };
            dim.value = Some(DimValue::DimParam(free));
        }
    }
}

fn plan(
    onnx: &Onnx,
    proto: &ModelProto,
    folder: Option<&str>,
    outputs: &[usize],
) -> TractResult<TypedSimplePlan<TypedModel>> {
    let parsed = onnx.parse(proto, folder)?;
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(TractError::msg(format!(
            "no node gives {name}, which another one asks for"
        )));
    }
    let mut model = parsed.model;
    let all = model.output_outlets()?.to_vec();
    let wanted: Option<Vec<OutletId>> = outputs.iter().map(|output| all.get(*output).copied()).collect();
    model.set_output_outlets(&wanted.unwrap_or(all))?;
    model.into_optimized()?.into_runnable()
}

impl Ready for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&self, inputs: Vec<Stack>) -> Result<Vec<Stack>, Failure> {
        let problem = |error: TractError| Failure::Problem(format!("{error:#}"));
        let run = || {
            let inputs: TractResult<TVec<TValue>> = inputs.into_iter().map(to_tract).collect();
            let outputs = self.plan.run(inputs.map_err(problem)?).map_err(problem)?;
            let outputs = outputs.into_iter().enumerate();
            outputs.map(|(output, value)| from_tract(output, value)).collect()
        };
        guarded(run, Failure::Problem)
    }
}

fn to_tract(stack: Stack) -> TractResult<TValue> {
    macro_rules! tensor {
        ($($type:ty, $kind:ident);*) => {
            match stack.values {
                $(Values::$kind(list) => ArrayD::from_shape_vec(stack.shape, list)?.into_tensor(),)*
            }
        };
    }
    let tensor: Tensor = for_each_type!(tensor);
    Ok(tensor.into_tvalue())
}

fn from_tract(output: usize, value: TValue) -> Result<Stack, Failure> {
    let problem = |error: TractError| Failure::Problem(format!("{error:#}"));
    let mut tensor = value.into_tensor();
    let datatype = tensor.datum_type();
    if datatype.is_tdim() {
        tensor = tensor.cast_to::<i64>().map_err(problem)?.into_owned();
    }
    let shape = tensor.shape().to_vec();
    macro_rules! values {
        ($($type:ty, $kind:ident);*) => {
            $(if tensor.datum_type() == <$type>::datum_type() {
                let list = tensor.as_slice::<$type>().map_err(problem)?.to_vec();
                return Ok(Stack { shape, values: Values::$kind(list) });
            })*
        };
    }
    for_each_type!(values);
    Err(Failure::OutputType {
        output,
        found: format!("{datatype:?}"),
    })
}
