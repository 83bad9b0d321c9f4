//! Sentences to embeddings, by encoders of the BERT family (MiniLM and its like) as sentence-transformers saves them.
//!
//! A model is a folder, or a zip file of one: `config.json` and `model.safetensors` (or `pytorch_model.bin`) of the encoder,
//! `tokenizer.json`, and where they are there `modules.json`, `sentence_bert_config.json` and the pooling's `config.json`, which say how tokens become a
//! sentence. The numbers are those of sentence-transformers, to the rounding of the arithmetic.
//!
//! ```no_run
//! use purlin::prelude::*;
//! use purlin_inference::RunInference;
//! use purlin_torch::text::TextEmbedder;
//!
//! let p = Pipeline::new();
//! let sentences = p.apply(Create::new(["A plane takes off.".to_owned(), "Someone plays a flute.".to_owned()]));
//! // 384 numbers for each sentence, with all-MiniLM-L6-v2.
//! let embedded = sentences.apply(RunInference::new(TextEmbedder::from_path("models/all-MiniLM-L6-v2")));
//! # let _ = embedded;
//! ```

mod bert;
mod config;
mod encoder;
mod files;

pub use config::{Pooling, TextModelError};
pub use encoder::{EmbedError, TextEncoder, TextOptions};

use std::path::{Path, PathBuf};

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelHandler};

/// A text encoder as a [`ModelHandler`]: sentences to embeddings, `Vec<f32>` as long as the encoder is wide.
#[derive(Debug, Clone)]
pub struct TextEmbedder {
    path: PathBuf,
    options: TextOptions,
    batch_sizes: BatchSizes,
}

impl TextEmbedder {
    /// The model in a folder, or in a zip file of one, which is read where the sentences are: all workers must have it.
    pub fn from_path(path: impl AsRef<Path>) -> TextEmbedder {
        TextEmbedder {
            path: path.as_ref().to_owned(),
            options: TextOptions::default(),
            // Sentences of about one length are put together within a batch, so larger ones have less filling.
            batch_sizes: BatchSizes { min: 32, max: 256 },
        }
    }

    /// The device, the number format, and what is to differ from what the model says.
    #[must_use]
    pub fn with_options(mut self, options: TextOptions) -> Self {
        self.options = options;
        self
    }

    /// The smallest and the largest batch. 32 and 256, unless told.
    #[must_use]
    pub fn with_batch_sizes(mut self, sizes: BatchSizes) -> Self {
        self.batch_sizes = sizes;
        self
    }
}

impl ModelHandler for TextEmbedder {
    type Example = String;
    type Inference = Vec<f32>;
    type Model = TextEncoder;

    fn model_id(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        format!("text encoder {}", name.to_string_lossy())
    }

    fn model_key(&self) -> String {
        format!("{:?}", (&self.path, &self.options))
    }

    fn load(&self) -> Result<TextEncoder, BoxError> {
        Ok(TextEncoder::load(&self.path, &self.options)?)
    }

    fn run(&self, batch: &[&String], model: &TextEncoder) -> Result<Vec<Vec<f32>>, BoxError> {
        let sentences: Vec<&str> = batch.iter().map(|sentence| sentence.as_str()).collect();
        Ok(model.embed(&sentences)?)
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.batch_sizes
    }

    fn num_bytes(&self, batch: &[&String]) -> u64 {
        batch.iter().map(|sentence| sentence.len() as u64).sum()
    }

    fn model_hash(&self, model: &TextEncoder) -> Option<String> {
        Some(model.hash().to_owned())
    }

    fn update_model_path(&self, path: &str) -> Result<Self, BoxError> {
        Ok(TextEmbedder {
            path: path.into(),
            ..self.clone()
        })
    }
}
