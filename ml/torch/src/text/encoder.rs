//! Sentences to embeddings: tokens, the encoder, pooling.

use std::path::{Path, PathBuf};

use purlin_inference::hash_bytes;
use tch::{Kind, TchError, Tensor};
use thiserror::Error;
use tokenizers::{Tokenizer, TruncationParams};

use super::bert::{self, Bert, BuildError};
use super::config::{Described, Pooling, TextModelError, describe};
use super::files::ModelFiles;
use crate::models::first_line;
use crate::tuning::{Device, Precision};
use crate::weights::{OpenWeightsError, WeightsFile};

/// So many sentences of about one length go through the encoder at once.
const AT_ONCE: usize = 32;

/// Where an encoder runs, and what is to differ from what the model says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Where it runs.
    pub device: Device,
    /// The number format it computes in. Embeddings are `f32` in any case.
    pub precision: Precision,
    /// Tokens of a sentence, with the two special ones; what is longer is cut off. `None`: as the model says.
    pub max_length: Option<usize>,
    /// How tokens become a sentence. `None`: as the model says, else the mean.
    pub pooling: Option<Pooling>,
    /// Whether embeddings are made as long as 1. `None`: as the model says, else not.
    pub normalize: Option<bool>,
}

/// Why sentences were not embedded.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// The tokenizer refused a sentence.
    #[error("cannot make tokens of a sentence: {0}")]
    Tokens(String),
    /// libtorch failed.
    #[error("inference failed: {}", first_line(.0))]
    Torch(#[from] TchError),
    /// The model's numbers are none.
    #[error(
        "the embedding of a sentence is not a number: its weights are damaged, or too large for the number format"
    )]
    NotANumber,
}

/// A text model, loaded; shared by all threads.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    encoder: Bert,
    pooling: Pooling,
    normalize: bool,
    width: usize,
    device: tch::Device,
    hash: String,
}

impl std::fmt::Debug for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextEncoder")
            .field("width", &self.width)
            .field("pooling", &self.pooling)
            .field("normalize", &self.normalize)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl TextEncoder {
    /// Loads the model in a folder, or in a zip file of one.
    ///
    /// # Errors
    /// When a file is missing or malformed, the model is of a kind that is not known, or its weights do not fit.
    pub fn load(path: &Path, options: &TextOptions) -> Result<TextEncoder, TextModelError> {
        let device = options.device.open()?;
        let _no_grad = tch::no_grad_guard();
        let mut files = ModelFiles::open(path)?;
        let described = describe(&mut files)?;
        let max_length = options
            .max_length
            .unwrap_or(described.max_length)
            .min(described.max_length);
        let tokenizer = tokenizer(&mut files, max_length)?;
        let (weights, bytes) = weights(&mut files, path)?;
        let hash = hash_bytes(&bytes);
        let encoder = build(&weights, bytes, &described, device, options.precision.kind())?;
        Ok(TextEncoder {
            tokenizer,
            encoder,
            pooling: options.pooling.unwrap_or(described.pooling),
            normalize: options.normalize.unwrap_or(described.normalize),
            width: usize::try_from(described.encoder.hidden_size).unwrap_or(0),
            device,
            hash,
        })
    }

    /// The SHA-256 of the weights file in hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How many numbers an embedding has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The embeddings of sentences, in their order.
    ///
    /// Sentences of about one length go through the encoder together. What a sentence gives depends on the others by the rounding of
    /// its arithmetic only.
    ///
    /// # Errors
    /// When libtorch fails, or an embedding is not a number: of all sentences.
    pub fn embed(&self, sentences: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let _no_grad = tch::no_grad_guard();
        let tokens = sentences
            .iter()
            .map(|sentence| self.tokens(sentence))
            .collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&index| tokens[index].len());
        let mut embeddings = vec![Vec::new(); tokens.len()];
        for together in order.chunks(AT_ONCE) {
            let batch: Vec<&[i64]> = together.iter().map(|&index| tokens[index].as_slice()).collect();
            for (&index, row) in together.iter().zip(self.batch(&batch)?) {
                embeddings[index] = row;
            }
        }
        Ok(embeddings)
    }

    fn tokens(&self, sentence: &str) -> Result<Vec<i64>, EmbedError> {
        let encoding = self
            .tokenizer
            .encode_fast(sentence, true)
            .map_err(|error| EmbedError::Tokens(error.to_string()))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    fn batch(&self, tokens: &[&[i64]]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let length = tokens.iter().map(|tokens| tokens.len()).max().unwrap_or(0).max(1);
        let is_filled = tokens.iter().any(|tokens| tokens.len() < length);
        let mut ids = vec![0i64; tokens.len() * length];
        let mut mask = vec![false; ids.len()];
        for (row, tokens) in tokens.iter().enumerate() {
            let start = row * length;
            ids[start..start + tokens.len()].copy_from_slice(tokens);
            mask[start..start + tokens.len()].fill(true);
        }
        let shape = [tokens.len() as i64, length as i64];
        let ids = Tensor::f_from_slice(&ids)?
            .f_view(shape)?
            .f_to_device(self.device)?;
        let mask = Tensor::f_from_slice(&mask)?
            .f_view(shape)?
            .f_to_device(self.device)?;
        let states = self
            .encoder
            .forward(&ids, is_filled.then_some(&mask))?
            .f_to_kind(Kind::Float)?;
        let mut pooled = self.pool(&states, &mask)?;
        if self.normalize {
            let length = pooled
                .f_square()?
                .f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)?
                .f_sqrt()?;
            pooled = pooled.f_div(&length.f_clamp_min(1e-12)?)?;
        }
        let numbers = Vec::<f32>::try_from(pooled.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(EmbedError::NotANumber);
        }
        Ok(numbers.chunks(self.width.max(1)).map(<[f32]>::to_vec).collect())
    }

    /// `[N, T, hidden]` and `[N, T]` to `[N, hidden]`.
    fn pool(&self, states: &Tensor, mask: &Tensor) -> Result<Tensor, TchError> {
        let token = mask.f_unsqueeze(-1)?;
        match self.pooling {
            Pooling::Cls => states.f_select(1, 0),
            Pooling::Max => states
                .f_masked_fill(&token.f_logical_not()?, f64::NEG_INFINITY)?
                .f_amax([1i64].as_slice(), false),
            Pooling::Mean => {
                let token = token.f_to_kind(Kind::Float)?;
                let sum = states
                    .f_mul(&token)?
                    .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
                let count = token.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
                sum.f_div(&count.f_clamp_min(1e-9)?)
            }
        }
    }
}

fn tokenizer(files: &mut ModelFiles, max_length: usize) -> Result<Tokenizer, TextModelError> {
    let bytes = files.read("tokenizer.json")?;
    let malformed = |error: tokenizers::Error| TextModelError::Malformed {
        path: files.path("tokenizer.json"),
        reason: error.to_string(),
    };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(malformed)?;
    let truncation = TruncationParams {
        // The two special tokens at least.
        max_length: max_length.max(2),
        ..TruncationParams::default()
    };
    tokenizer.with_truncation(Some(truncation)).map_err(malformed)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The weights file of a model, by its path and with all that is in it.
fn weights(files: &mut ModelFiles, path: &Path) -> Result<(PathBuf, Vec<u8>), TextModelError> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if let Some(bytes) = files.find(name)? {
            return Ok((files.path(name), bytes));
        }
    }
    Err(TextModelError::NoWeights {
        path: path.to_owned(),
    })
}

fn build(
    path: &Path,
    bytes: Vec<u8>,
    described: &Described,
    device: tch::Device,
    kind: Kind,
) -> Result<Bert, TextModelError> {
    let weights = match WeightsFile::parse(bytes, path, None)? {
        WeightsFile::StateDict(weights) => weights,
        WeightsFile::TorchScript(_) | WeightsFile::Package => {
            return Err(OpenWeightsError::UnknownFormat {
                path: path.to_owned(),
                start: "a program, not tensors".to_owned(),
            }
            .into());
        }
    };
    let config = &described.encoder;
    let prefix = bert::prefix(&weights);
    weights
        .check_without(&bert::tensors(config, prefix), bert::is_unused)
        .map_err(|mismatch| TextModelError::DoesNotFit {
            path: path.to_owned(),
            mismatch: Box::new(mismatch),
        })?;
    Bert::build(config, &weights, prefix, device, kind).map_err(|error| match error {
        BuildError::Read(source) => TextModelError::Tensor {
            path: path.to_owned(),
            source,
        },
        BuildError::Torch(source) => TextModelError::Torch {
            path: path.to_owned(),
            source,
        },
    })
}
