//! What a model's files say of the encoder and of what follows it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::TchError;
use thiserror::Error;

use super::files::ModelFiles;
use crate::models::first_line;
use crate::tuning::DeviceError;
use crate::weights::{Mismatch, OpenWeightsError, ReadTensorError};

/// How the tokens of a sentence become one row of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token, `[CLS]`.
    Cls,
    /// The largest number of any token, at each place.
    Max,
}

/// Why a text model cannot be had.
#[derive(Debug, Error)]
pub enum TextModelError {
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file that does not say what it should.
    #[error("{} is not what it should be: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A model of a kind that is not built here.
    #[error("{} asks for {what}, which is not known here; known are {known}", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// What it asks for.
        what: String,
        /// What there is.
        known: &'static str,
    },
    /// The model has no weights.
    #[error("{} holds neither model.safetensors nor pytorch_model.bin", path.display())]
    NoWeights {
        /// The folder, or the zip file.
        path: PathBuf,
    },
    /// The weights file cannot be read, or is none.
    #[error(transparent)]
    Open(#[from] OpenWeightsError),
    /// The file's tensors are not the encoder's.
    #[error("the weights in {} do not fit its config.json:\n{mismatch}", path.display())]
    DoesNotFit {
        /// The weights file.
        path: PathBuf,
        /// The tensors that differ.
        mismatch: Box<Mismatch>,
    },
    /// A tensor's data cannot be read.
    #[error("cannot read the weights in {}: {source}", path.display())]
    Tensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor, and why.
        source: ReadTensorError,
    },
    /// libtorch failed while weights were moved to the device.
    #[error("libtorch cannot take the weights in {}: {}", path.display(), first_line(source))]
    Torch {
        /// The weights file.
        path: PathBuf,
        /// libtorch's answer.
        source: TchError,
    },
}

/// The encoder: `config.json`, as Hugging Face's transformers write it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    model_type: String,
    pub hidden_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub vocab_size: i64,
    pub max_position_embeddings: i64,
    #[serde(default = "two")]
    pub type_vocab_size: i64,
    #[serde(default = "small")]
    pub layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn two() -> i64 {
    2
}

fn small() -> f64 {
    1e-12
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Config {
    fn check(&self, path: &Path) -> Result<(), TextModelError> {
        let unsupported = |what: String, known| {
            Err(TextModelError::Unsupported {
                path: path.to_owned(),
                what,
                known,
            })
        };
        if self.model_type != "bert" {
            return unsupported(
                format!("an encoder of the type {:?}", self.model_type),
                "encoders of the type \"bert\"",
            );
        }
        if self.hidden_act != "gelu" {
            return unsupported(format!("the activation {:?}", self.hidden_act), "\"gelu\"");
        }
        if self.position_embedding_type != "absolute" {
            return unsupported(
                format!("positions of the type {:?}", self.position_embedding_type),
                "\"absolute\" ones",
            );
        }
        let sizes = [
            self.hidden_size,
            self.num_attention_heads,
            self.intermediate_size,
            self.vocab_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ];
        if sizes.iter().any(|size| *size <= 0) || self.hidden_size % self.num_attention_heads != 0 {
            return Err(TextModelError::Malformed {
                path: path.to_owned(),
                reason: "its sizes must be above 0, and hidden_size a multiple of num_attention_heads"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

/// All that they say.
#[derive(Debug)]
pub(super) struct Described {
    pub encoder: Config,
    pub pooling: Pooling,
    pub normalize: bool,
    /// Tokens of a sentence, with the special ones; what is longer is cut off.
    pub max_length: usize,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PoolingConfig {
    /// Since sentence-transformers 6; the others before.
    pooling_mode: String,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// Where the longest sentence is told: `sentence_bert_config.json`, or since sentence-transformers 6 `tokenizer_config.json`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Lengths {
    max_seq_length: Option<f64>,
    model_max_length: Option<f64>,
}

/// Reads what a model's files say. Without `modules.json` it is an encoder alone: sentences are the mean of their tokens.
pub(super) fn describe(files: &mut ModelFiles) -> Result<Described, TextModelError> {
    let encoder: Config = required(files, "config.json")?;
    encoder.check(&files.path("config.json"))?;
    let mut described = Described {
        max_length: usize::try_from(encoder.max_position_embeddings).unwrap_or(usize::MAX),
        encoder,
        pooling: Pooling::Mean,
        normalize: false,
    };
    for (file, told) in [
        (
            "sentence_bert_config.json",
            (|lengths| lengths.max_seq_length) as fn(Lengths) -> Option<f64>,
        ),
        ("tokenizer_config.json", |lengths| lengths.model_max_length),
    ] {
        if let Some(length) = optional::<Lengths>(files, file)?.and_then(told) {
            // Tokenizers without a limit write a huge number.
            described.max_length = described.max_length.min(length as usize);
            break;
        }
    }
    for module in optional::<Vec<Module>>(files, "modules.json")?.unwrap_or_default() {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => {
                let folder = module.path.trim_end_matches('/');
                described.pooling = pooling(files, &format!("{folder}/config.json"))?;
            }
            "Normalize" => described.normalize = true,
            _ => {
                return Err(TextModelError::Unsupported {
                    path: files.path("modules.json"),
                    what: format!("the module {}", module.kind),
                    known: "Transformer, Pooling and Normalize",
                });
            }
        }
    }
    Ok(described)
}

fn pooling(files: &mut ModelFiles, name: &str) -> Result<Pooling, TextModelError> {
    let config: PoolingConfig = required(files, name)?;
    let modes = [
        (
            config.pooling_mode_mean_tokens || config.pooling_mode == "mean",
            Some(Pooling::Mean),
        ),
        (
            config.pooling_mode_cls_token || config.pooling_mode == "cls",
            Some(Pooling::Cls),
        ),
        (
            config.pooling_mode_max_tokens || config.pooling_mode == "max",
            Some(Pooling::Max),
        ),
        (config.pooling_mode_mean_sqrt_len_tokens, None),
        (config.pooling_mode_weightedmean_tokens, None),
        (config.pooling_mode_lasttoken, None),
    ];
    let chosen: Vec<Option<Pooling>> = modes
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, mode)| mode)
        .collect();
    match chosen.as_slice() {
        [Some(only)] => Ok(*only),
        _ => Err(TextModelError::Unsupported {
            path: files.path(name),
            what: "another pooling, or several at once".to_owned(),
            known: "one of mean, CLS and max",
        }),
    }
}

fn required<T: DeserializeOwned>(files: &mut ModelFiles, name: &str) -> Result<T, TextModelError> {
    let bytes = files.read(name)?;
    parse(files, name, &bytes)
}

fn optional<T: DeserializeOwned>(files: &mut ModelFiles, name: &str) -> Result<Option<T>, TextModelError> {
    let found = files.find(name)?;
    found.map(|bytes| parse(files, name, &bytes)).transpose()
}

fn parse<T: DeserializeOwned>(files: &ModelFiles, name: &str, bytes: &[u8]) -> Result<T, TextModelError> {
    serde_json::from_slice(bytes).map_err(|error| TextModelError::Malformed {
        path: files.path(name),
        reason: error.to_string(),
    })
}
