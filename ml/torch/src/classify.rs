//! Batches of prepared images to labels and scores.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};
use thiserror::Error;

use crate::models::{LoadModelError, LoadOptions, Model, first_line, load_model};
use crate::preprocess::{Pixels, PrepareError, Preprocess};
use purlin_inference::bisect;

/// A class and how sure the model is of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, purlin::Element)]
pub struct Class {
    /// The class's number: its row in the labels file.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Softmax over all classes, 0 to 1.
    pub score: f32,
}

/// Why an image was not classified.
#[derive(Debug, Error)]
pub enum ClassifyError {
    /// libtorch failed on this image alone.
    #[error("inference failed: {0}")]
    Torch(String),
    /// The model's output is not a number for this image.
    #[error("the model's output for this image is not a number")]
    NotANumber,
}

/// Why a classifier cannot be had.
#[derive(Debug, Error)]
pub enum ClassifierError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadModelError),
    /// As many labels as classes are needed.
    #[error(
        "the model has {classes} classes, but there are {labels} labels: the labels file needs one line for each class"
    )]
    Labels {
        /// The model's classes.
        classes: usize,
        /// The labels given.
        labels: usize,
    },
}

/// A model with its preprocessing and labels; shared by all threads.
#[derive(Debug)]
pub struct Classifier {
    model: Arc<dyn Model>,
    labels: Vec<String>,
    top_k: usize,
}

impl Classifier {
    /// Loads the model and matches it with the labels. Without labels, classes are called by their numbers.
    pub fn load(
        weights: &std::path::Path,
        options: &LoadOptions,
        labels: Option<Vec<String>>,
        top_k: usize,
    ) -> Result<Classifier, ClassifierError> {
        let model = load_model(weights, options)?;
        Classifier::new(model, labels, top_k)
    }

    /// From parts. `top_k` is held between 1 and the number of classes.
    pub fn new(
        model: Arc<dyn Model>,
        labels: Option<Vec<String>>,
        top_k: usize,
    ) -> Result<Classifier, ClassifierError> {
        let classes = usize::try_from(model.num_classes()).unwrap_or(0);
        let labels = labels.unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
        if labels.len() != classes {
            return Err(ClassifierError::Labels {
                classes,
                labels: labels.len(),
            });
        }
        Ok(Classifier {
            model,
            labels,
            top_k: top_k.clamp(1, classes.max(1)),
        })
    }

    /// The SHA-256 of the weights file in hexadecimal digits, where there is one.
    pub fn hash(&self) -> Option<&str> {
        self.model.hash()
    }

    /// How images are prepared.
    pub fn preprocess(&self) -> &Preprocess {
        self.model.preprocess()
    }

    /// The model.
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    /// Decodes and resizes one file's bytes.
    pub fn prepare(&self, bytes: &[u8]) -> Result<Pixels, PrepareError> {
        self.preprocess().prepare(bytes)
    }

    /// Classifies a batch: for each image its best classes, best first. One bad image fails the batch.
    pub fn classify_batch(&self, images: &[&Pixels]) -> Result<Vec<Vec<Class>>, ClassifyError> {
        self.run(images)
            .map_err(|error| ClassifyError::Torch(first_line(&error)))?
            .into_iter()
            .collect()
    }

    /// Classifies a batch: for each image its best classes, best first, or why there are none.
    ///
    /// When the batch fails as a whole it is halved until the images at fault stand alone, so that one image costs one row.
    pub fn classify(&self, images: &[&Pixels]) -> Vec<Result<Vec<Class>, ClassifyError>> {
        bisect(images, &mut |images| self.classify_batch(images))
    }

    fn run(&self, images: &[&Pixels]) -> Result<Vec<Result<Vec<Class>, ClassifyError>>, TchError> {
        let _no_grad = tch::no_grad_guard();
        let batch = self
            .preprocess()
            .batch(images, self.model.device(), self.model.kind())?;
        let logits = self.model.forward(&batch)?;
        let (rows, classes) = (images.len(), self.labels.len());
        if logits.size() != [rows as i64, classes as i64] {
            let what = format!(
                "the model gives {:?} for {rows} images of {classes} classes",
                logits.size()
            );
            return Err(TchError::Shape(what));
        }
        let indices = best(&logits, self.top_k as i64)?;
        let scores = logits.f_softmax(-1, Kind::Float)?.f_gather(-1, &indices, false)?;
        let scores = Vec::<f32>::try_from(scores.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
        let indices = Vec::<i64>::try_from(indices.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
        let rows = scores.chunks(self.top_k).zip(indices.chunks(self.top_k));
        Ok(rows.map(|(scores, indices)| self.row(scores, indices)).collect())
    }

    fn row(&self, scores: &[f32], indices: &[i64]) -> Result<Vec<Class>, ClassifyError> {
        let class = |(&score, &index): (&f32, &i64)| {
            let index = usize::try_from(index).map_err(|_| ClassifyError::NotANumber)?;
            match self.labels.get(index) {
                Some(label) if score.is_finite() => Ok(Class {
                    index,
                    label: label.clone(),
                    score,
                }),
                _ => Err(ClassifyError::NotANumber),
            }
        };
        scores.iter().zip(indices).map(class).collect()
    }
}

/// For each row of logits its best classes, best first; of equal ones the first, as torch's argmax has it on a processor.
///
/// The logits decide, not the probabilities: rounding makes many of those equal.
fn best(logits: &Tensor, top_k: i64) -> Result<Tensor, TchError> {
    if top_k == 1 {
        return logits.f_argmax(-1, true);
    }
    let (_, order) = logits.f_sort_stable(true, -1, true)?;
    order.f_narrow(-1, 0, top_k)
}

/// Reads labels: one a line, blank lines at the end left out.
pub fn parse_labels(text: &str) -> Vec<String> {
    text.trim_end()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logits_decide_and_the_first_of_equal_ones_wins() {
        // In single precision all of the first row have the same probability.
        let close: Vec<f32> = (0..4).map(|class| 1e-9 * class as f32).collect();
        let rows: [&[f32]; 3] = [&close, &[1.0, 3.0, 3.0, 2.0], &[-1.0, -1.0, -1.0, -1.0]];
        let logits = Tensor::from_slice(&rows.concat()).reshape([3, 4]);
        let found = |top_k| Vec::<Vec<i64>>::try_from(best(&logits, top_k).unwrap()).unwrap();
        assert_eq!(found(1), [[3], [1], [0]]);
        assert_eq!(found(3), [[3, 2, 1], [1, 2, 3], [0, 1, 2]]);
        let scores = Vec::<Vec<f32>>::try_from(logits.softmax(-1, Kind::Float)).unwrap();
        assert_eq!(scores[0], [0.25; 4]);
    }
}
