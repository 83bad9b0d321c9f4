//! ONNX Runtime, whose library is loaded when the first model is.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ort::logging::LogLevel;
use ort::session::{Session, SessionInputValue};
use ort::tensor::TensorElementType;
use ort::value::{DynValue, Value, ValueType};
use prost_of_tract::Message;

use super::{Failure, Loaded, Ready, Source, guarded};
use crate::datatype::Values;
use crate::error::ParseError;
use crate::rows::{Rows, Stack};

const NAME: &str = "ONNX Runtime";

/// How ONNX Runtime is had, and how it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxRuntime {
    /// Its library, `libonnxruntime.so`, of version 1.22 or newer. Where the environment's `ORT_DYLIB_PATH` says, unless told, or where
    /// the system finds it. A process has one: the first.
    pub library: Option<PathBuf>,
    /// So many threads share a batch. As many as the machine has cores, unless told.
    pub threads: Option<NonZeroUsize>,
}

struct Runtime {
    // A session runs one batch at a time, with its threads.
    session: Mutex<Session>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

/// Loads a model.
pub fn load(source: Source<'_>, rows: Rows, options: &OnnxRuntime) -> Result<Loaded, ParseError> {
    find_library(options)?;
    let opset = source.file.opset();
    let problem = |problem| ParseError::Graph {
        engine: NAME,
        opset,
        problem,
    };
    let file = &source.file;
    let session = guarded(
        || {
            // What goes wrong is told by errors.
            let mut builder = Session::builder()?.with_log_level(LogLevel::Fatal)?;
            if let Some(threads) = options.threads {
                builder = builder.with_intra_threads(threads.get())?;
            }
            match (file.is_changed, source.path) {
                (true, _) => builder.commit_from_memory(&file.proto.encode_to_vec()),
                (false, Some(path)) => builder.commit_from_file(path),
                (false, None) => builder.commit_from_memory(source.bytes),
            }
            .map_err(|error| problem(error.to_string()))
        },
        |text| ParseError::Engine {
            engine: NAME,
            problem: text,
        },
    )?;
    let outputs = source
        .outputs
        .iter()
        .filter_map(|output| file.outputs.get(*output));
    let runtime = Runtime {
        session: Mutex::new(session),
        inputs: file.inputs.iter().map(|input| input.name.clone()).collect(),
        outputs: outputs.map(|output| output.name.clone()).collect(),
    };
    Ok((Box::new(runtime), rows))
}

impl From<ort::Error> for ParseError {
    fn from(error: ort::Error) -> ParseError {
        ParseError::Engine {
            engine: NAME,
            problem: error.to_string(),
        }
    }
}

/// Says where the library is, before anything else is asked of it.
fn find_library(options: &OnnxRuntime) -> Result<(), ParseError> {
    /// What a process has once asked for stays, also where it could not be loaded.
    static CHOSEN: Mutex<Option<PathBuf>> = Mutex::new(None);
    let error = |problem: String| ParseError::Engine {
        engine: NAME,
        problem,
    };
    let environment = || std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    let told = match &options.library {
        Some(library) => Some(library.clone()),
        None => environment().map(PathBuf::from),
    };
    let told = told.map(|path| {
        let found = path.canonicalize();
        found.map_err(|source| error(format!("its library {} cannot be read: {source}", path.display())))
    });
    let told = told.transpose()?;
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match (&*chosen, told) {
        (Some(chosen), Some(told)) if *chosen != told => {
            return Err(error(format!(
                "this process uses {} already, so it cannot use {}: give one library to all models",
                chosen.display(),
                told.display()
            )));
        }
        (Some(chosen), _) => chosen.clone(),
        // Where the system finds it.
        (None, told) => told.unwrap_or_else(|| PathBuf::from("libonnxruntime.so")),
    };
    *chosen = Some(library.clone());
    let advice = |text: String| {
        error(format!(
            "{text}; say where libonnxruntime.so of version 1.22 or newer is, by OnnxRuntime::library or by ORT_DYLIB_PATH: Python's \
             package onnxruntime has it in onnxruntime/capi"
        ))
    };
    guarded(
        || {
            let started = ort::init_from(library.display()).commit();
            started.map(|_| ()).map_err(|error| advice(error.to_string()))
        },
        advice,
    )
}

impl Ready for Runtime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&self, inputs: Vec<Stack>) -> Result<Vec<Stack>, Failure> {
        let problem = |error: ort::Error| Failure::Problem(error.to_string());
        guarded(
            || {
                let mut values = Vec::with_capacity(inputs.len());
                for (name, stack) in self.inputs.iter().zip(inputs) {
                    values.push((name.as_str(), to_runtime(stack).map_err(problem)?));
                }
                // A panic under the lock is an error of that batch, and leaves the session as it was.
                let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                let outputs = session.run(values).map_err(problem)?;
                let wanted = self.outputs.iter().enumerate();
                wanted
                    .map(|(place, name)| {
                        let value = outputs
                            .get(name)
                            .ok_or_else(|| Failure::Problem(format!("it gave no output {name}")))?;
                        from_runtime(place, value)
                    })
                    .collect()
            },
            Failure::Problem,
        )
    }
}

fn to_runtime(stack: Stack) -> ort::Result<SessionInputValue<'static>> {
    macro_rules! value {
        ($($kind:ident),*) => {
            match stack.values {
                $(Values::$kind(list) => Value::from_array((stack.shape, list))?.into_dyn(),)*
                Values::Text(list) => ort::value::Tensor::from_string_array((stack.shape, &*list))?.into_dyn(),
            }
        };
    }
    let value: DynValue = value!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F32, F64);
    Ok(value.into())
}

fn from_runtime(output: usize, value: &DynValue) -> Result<Stack, Failure> {
    let problem = |error: ort::Error| Failure::Problem(error.to_string());
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(Failure::OutputType {
            output,
            found: value.dtype().to_string(),
        });
    };
    macro_rules! stack {
        ($($kind:ident, $type:ty, $element:ident);*) => {
            match ty {
                $(TensorElementType::$element => {
                    let (shape, list) = value.try_extract_tensor::<$type>().map_err(problem)?;
                    (shape.clone(), Values::$kind(list.to_vec()))
                })*
                TensorElementType::String => {
                    let (shape, list) = value.try_extract_strings().map_err(problem)?;
                    (shape.clone(), Values::Text(list))
                }
                other => return Err(Failure::OutputType { output, found: other.to_string() }),
            }
        };
    }
    let (shape, values) = stack!(
        Bool, bool, Bool; U8, u8, Uint8; U16, u16, Uint16; U32, u32, Uint32; U64, u64, Uint64; I8, i8, Int8; I16, i16, Int16;
        I32, i32, Int32; I64, i64, Int64; F32, f32, Float32; F64, f64, Float64
    );
    let shape = shape.iter().map(|length| usize::try_from(*length).unwrap_or(0));
    Ok(Stack {
        shape: shape.collect(),
        values,
    })
}
