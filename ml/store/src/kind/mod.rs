//! What kind of model a file is, told by what it holds.

mod lightgbm;
mod onnx;
mod pmml;
mod safetensors;
mod xgboost;
mod zipped;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A kind of model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A text model of LightGBM.
    LightGbm,
    /// ONNX's protobuf.
    Onnx,
    /// PyTorch's TorchScript, a zip file.
    TorchScript,
    /// What PyTorch's AOTInductor compiles, a zip file (`.pt2`).
    AotInductor,
    /// Weights in safetensors.
    Safetensors,
    /// A model of XGBoost in JSON or UBJSON.
    XgBoost,
    /// PMML, which is XML.
    Pmml,
    /// The folder of a text model of sentence-transformers, in a zip file.
    #[serde(rename = "sentence-transformers")]
    SentenceTransformers,
}

impl Kind {
    /// The name, as in `model.json`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LightGbm => "lightgbm",
            Kind::Onnx => "onnx",
            Kind::TorchScript => "torchscript",
            Kind::AotInductor => "aotinductor",
            Kind::Safetensors => "safetensors",
            Kind::XgBoost => "xgboost",
            Kind::Pmml => "pmml",
            Kind::SentenceTransformers => "sentence-transformers",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An input of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its datatype by the names of the Open Inference Protocol: `FP32`, `INT64`, `BYTES` (texts) and so on.
    pub datatype: String,
    /// The length of each dimension; -1 stands for any. The first counts rows.
    pub shape: Vec<i64>,
}

impl Input {
    fn new(name: impl Into<String>, datatype: &str, shape: Vec<i64>) -> Input {
        Input {
            name: name.into(),
            datatype: datatype.to_owned(),
            shape,
        }
    }

    /// Whether this is what another says: -1 on either side is any length.
    pub fn fits(&self, other: &Input) -> bool {
        let lengths = |(one, other): (&i64, &i64)| one == other || *one == -1 || *other == -1;
        self.name == other.name
            && self.datatype == other.datatype
            && self.shape.len() == other.shape.len()
            && self.shape.iter().zip(&other.shape).all(lengths)
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(i64::to_string).collect();
        write!(f, "{}:{}[{}]", self.name, self.datatype, shape.join(","))
    }
}

/// As it prints: `NAME:DATATYPE[LENGTH,...]`.
impl std::str::FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no input: give NAME:DATATYPE[LENGTH,...], such as x:FP32[-1,4]");
        let (name, rest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (datatype, lengths) = rest.split_once('[').ok_or_else(wrong)?;
        let lengths = lengths.strip_suffix(']').ok_or_else(wrong)?;
        let lengths = lengths.split(',').filter(|length| !length.is_empty());
        let shape: Result<Vec<i64>, _> = lengths.map(|length| length.trim().parse::<i64>()).collect();
        let shape = shape.map_err(|_| wrong())?;
        if name.is_empty() || datatype.is_empty() || shape.iter().any(|length| *length < -1) {
            return Err(wrong());
        }
        Ok(Input::new(name, datatype, shape))
    }
}

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its kind.
    pub kind: Kind,
    /// Its inputs; none where the file does not tell.
    pub inputs: Vec<Input>,
}

/// Why a file is no model that can be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BadModel {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Nothing is in it.
    #[error("it has 0 bytes: expected {EXPECTED}")]
    Empty,
    /// It is something else.
    #[error("it is not a model: it begins with {begin}; expected {EXPECTED}")]
    NotAModel {
        /// Its first bytes.
        begin: String,
    },
    /// The end is missing.
    #[error("it is a {kind} file that was cut off: {expected}")]
    CutOff {
        /// What it was.
        kind: &'static str,
        /// What was expected.
        expected: String,
    },
    /// It is of a kind that is known, but cannot be used.
    #[error("it is a {kind} file that cannot be used: {reason}")]
    Unusable {
        /// What it is.
        kind: &'static str,
        /// Why not, and what was expected.
        reason: String,
    },
}

const EXPECTED: &str = "a LightGBM text model, ONNX, TorchScript, an AOTInductor package, safetensors, XGBoost's JSON or UBJSON, PMML, or a zip file of a folder of sentence-transformers";

/// The first bytes of a file, by which kinds are told apart.
const BEGIN: usize = 4096;

/// Tells what kind of model a file is, and checks that all of it is there.
///
/// # Errors
/// When it is none, or a part of it is missing: which, and what was expected.
pub fn inspect(path: &Path) -> Result<Inspected, BadModel> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Err(BadModel::Empty);
    }
    let mut begin = Vec::new();
    Read::by_ref(&mut file)
        .take(BEGIN as u64)
        .read_to_end(&mut begin)?;
    file.seek(SeekFrom::Start(0))?;
    if lightgbm::is_one(&begin) {
        return lightgbm::inspect(file);
    }
    if zipped::is_one(&begin) {
        return zipped::inspect(file);
    }
    if safetensors::is_one(&begin) {
        return safetensors::inspect(file, length);
    }
    if pmml::is_one(&begin) {
        return pmml::inspect(file);
    }
    if xgboost::is_one(&begin) {
        return xgboost::inspect(file);
    }
    // Protobuf has no mark of its own: it is tried last.
    match onnx::inspect(file)? {
        Some(inspected) => Ok(inspected),
        None => Err(BadModel::NotAModel { begin: shown(&begin) }),
    }
}

/// The first bytes as text where they are text.
fn shown(begin: &[u8]) -> String {
    let begin = &begin[..begin.len().min(24)];
    match std::str::from_utf8(begin) {
        Ok(text) if !text.contains('\0') => format!("{text:?}"),
        _ => {
            let bytes: Vec<String> = begin.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("the bytes {}", bytes.join(" "))
        }
    }
}

fn read_all(mut file: File) -> Result<Vec<u8>, BadModel> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
