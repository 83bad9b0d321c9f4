//! The encoder of BERT: tokens to a row of numbers for each.

use tch::{Kind, TchError, Tensor};

use super::config::Config;
use crate::frozen::Frozen;
use crate::models::TensorSpec;
use crate::weights::{ReadTensorError, StateDict};

/// Tensors that encoders' files hold besides, for other uses.
pub(super) fn is_unused(name: &str) -> bool {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    ["pooler.", "cls.", "embeddings.position_ids"]
        .iter()
        .any(|unused| name.starts_with(unused))
}

/// Before the names of the encoder's tensors in files of models that have more than it.
pub(super) fn prefix(weights: &StateDict) -> &'static str {
    match weights.shape("bert.embeddings.word_embeddings.weight") {
        Some(_) => "bert.",
        None => "",
    }
}

/// All tensors that the encoder reads.
pub(super) fn tensors(config: &Config, prefix: &str) -> Vec<TensorSpec> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let mut specs = Vec::new();
    let mut push = |name: String, shape: &[i64]| {
        specs.push(TensorSpec {
            name: format!("{prefix}{name}"),
            shape: shape.to_vec(),
        });
    };
    for (name, rows) in [
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ] {
        push(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden]);
    }
    let mut pair = |name: String, shape: &[i64]| {
        push(format!("{name}.weight"), shape);
        push(format!("{name}.bias"), &shape[..1]);
    };
    pair("embeddings.LayerNorm".to_owned(), &[hidden]);
    for layer in 0..config.num_hidden_layers {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["query", "key", "value"] {
            pair(at(&format!("attention.self.{part}")), &[hidden, hidden]);
        }
        pair(at("attention.output.dense"), &[hidden, hidden]);
        pair(at("attention.output.LayerNorm"), &[hidden]);
        pair(at("intermediate.dense"), &[inner, hidden]);
        pair(at("output.dense"), &[hidden, inner]);
        pair(at("output.LayerNorm"), &[hidden]);
    }
    specs
}

/// Why weights could not be made into an encoder.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(transparent)]
    Read(#[from] ReadTensorError),
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// An encoder ready for inference.
#[derive(Debug)]
pub(super) struct Bert {
    words: Frozen,
    /// What is added for a token's place, with what is added to all: `[1, places, hidden]`.
    positions: Frozen,
    norm: Norm,
    layers: Vec<Layer>,
    heads: i64,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values at once.
    attention: Linear,
    attended: Linear,
    attended_norm: Norm,
    inner: Linear,
    outer: Linear,
    outer_norm: Norm,
}

#[derive(Debug)]
struct Linear {
    weight: Frozen,
    bias: Frozen,
}

#[derive(Debug)]
struct Norm {
    weight: Frozen,
    bias: Frozen,
    epsilon: f64,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, Some(&*self.bias))
    }
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(
            self.weight.size(),
            Some(&*self.weight),
            Some(&*self.bias),
            self.epsilon,
            true,
        )
    }
}

impl Bert {
    /// Reads the tensors, whose names and shapes the caller has checked.
    pub(super) fn build(
        config: &Config,
        weights: &StateDict,
        prefix: &str,
        device: tch::Device,
        kind: Kind,
    ) -> Result<Bert, BuildError> {
        let loader = Loader {
            weights,
            prefix,
            device,
            kind,
            epsilon: config.layer_norm_eps,
        };
        // Sentences are alone: all tokens are of the first type.
        let of_type = loader
            .read("embeddings.token_type_embeddings.weight")?
            .f_narrow(0, 0, 1)?;
        let positions = loader
            .read("embeddings.position_embeddings.weight")?
            .f_add(&of_type)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| loader.layer(&format!("encoder.layer.{layer}")))
            .collect::<Result<_, _>>()?;
        Ok(Bert {
            words: loader.freeze(loader.read("embeddings.word_embeddings.weight")?)?,
            positions: loader.freeze(positions.f_unsqueeze(0)?)?,
            norm: loader.norm("embeddings.LayerNorm")?,
            layers,
            heads: config.num_attention_heads,
        })
    }

    /// Token ids `[N, T]` to `[N, T, hidden]`. `mask` `[N, T]` is true for tokens and false for filling; none: there is no filling.
    pub(super) fn forward(&self, ids: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        let length = ids.size().get(1).copied().unwrap_or(0);
        let words = Tensor::f_embedding(&self.words, ids, -1, false, false)?;
        let mut x = self
            .norm
            .forward(&words.f_add(&self.positions.f_narrow(1, 0, length)?)?)?;
        let mask = mask.map(|mask| mask.f_unsqueeze(1)?.f_unsqueeze(1)).transpose()?;
        for layer in &self.layers {
            x = layer.forward(&x, mask.as_ref(), self.heads)?;
        }
        Ok(x)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, heads: i64) -> Result<Tensor, TchError> {
        let size = x.size();
        let &[count, length, hidden] = size.as_slice() else {
            return Err(TchError::Shape(format!(
                "tokens of shape {size:?}, not [N, T, hidden]"
            )));
        };
        let split = self
            .attention
            .forward(x)?
            .f_view([count, length, 3, heads, hidden / heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        let [queries, keys, values] = [
            split.f_select(0, 0)?,
            split.f_select(0, 1)?,
            split.f_select(0, 2)?,
        ];
        let attended =
            Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, mask, 0.0, false, None, false)?;
        let attended = attended
            .f_permute([0, 2, 1, 3])?
            .f_reshape([count, length, hidden])?;
        let x = self
            .attended_norm
            .forward(&self.attended.forward(&attended)?.f_add_(x)?)?;
        let inner = self.inner.forward(&x)?.f_gelu_("none")?;
        self.outer_norm.forward(&self.outer.forward(&inner)?.f_add_(&x)?)
    }
}

struct Loader<'a> {
    weights: &'a StateDict,
    prefix: &'a str,
    device: tch::Device,
    kind: Kind,
    epsilon: f64,
}

impl Loader<'_> {
    fn layer(&self, at: &str) -> Result<Layer, BuildError> {
        let part = |part: &str| format!("{at}.{part}");
        let of_all = |field: &str| -> Result<Tensor, BuildError> {
            let [query, key, value] = ["query", "key", "value"]
                .map(|name| self.read(&format!("{at}.attention.self.{name}.{field}")));
            Ok(Tensor::f_cat(&[query?, key?, value?], 0)?)
        };
        Ok(Layer {
            attention: Linear {
                weight: self.freeze(of_all("weight")?)?,
                bias: self.freeze(of_all("bias")?)?,
            },
            attended: self.linear(&part("attention.output.dense"))?,
            attended_norm: self.norm(&part("attention.output.LayerNorm"))?,
            inner: self.linear(&part("intermediate.dense"))?,
            outer: self.linear(&part("output.dense"))?,
            outer_norm: self.norm(&part("output.LayerNorm"))?,
        })
    }

    fn linear(&self, name: &str) -> Result<Linear, BuildError> {
        Ok(Linear {
            weight: self.freeze(self.read(&format!("{name}.weight"))?)?,
            bias: self.freeze(self.read(&format!("{name}.bias"))?)?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, BuildError> {
        let Linear { weight, bias } = self.linear(name)?;
        Ok(Norm {
            weight,
            bias,
            epsilon: self.epsilon,
        })
    }

    fn read(&self, name: &str) -> Result<Tensor, BuildError> {
        let tensor = self.weights.tensor(&format!("{}{name}", self.prefix))?;
        Ok(tensor.f_to_kind(Kind::Float)?)
    }

    fn freeze(&self, tensor: Tensor) -> Result<Frozen, BuildError> {
        let tensor = tensor.f_to_kind(self.kind)?.f_to_device(self.device)?;
        Ok(Frozen::new(tensor.f_contiguous()?.f_detach()?))
    }
}
