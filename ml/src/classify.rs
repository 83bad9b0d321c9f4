//! Batches of prepared images to labels and scores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tch::{Kind, TchError};
use thiserror::Error;

use crate::models::{LoadModelError, LoadOptions, Model, first_line, load_model};
use crate::preprocess::{Pixels, PrepareError, Preprocess};

/// A class and how sure the model is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// The class's number: its row in the labels file.
    pub index: usize,
    /// Its name.
    pub label: Arc<str>,
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

/// Time spent, summed over all threads.
#[derive(Debug, Default)]
pub struct Timings {
    decode: AtomicU64,
    preprocess: AtomicU64,
    inference: AtomicU64,
}

/// Where time is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// File bytes to pixels.
    Decode,
    /// Converting channels and resizing.
    Preprocess,
    /// Making the batch, running the model, sorting the scores.
    Inference,
}

impl Timings {
    /// Adds to a phase.
    pub fn add(&self, phase: Phase, spent: Duration) {
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.counter(phase).fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sum of a phase so far.
    pub fn get(&self, phase: Phase) -> Duration {
        Duration::from_nanos(self.counter(phase).load(Ordering::Relaxed))
    }

    /// Runs `work` and adds its time to a phase.
    pub fn time<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(phase, start.elapsed());
        done
    }

    fn counter(&self, phase: Phase) -> &AtomicU64 {
        match phase {
            Phase::Decode => &self.decode,
            Phase::Preprocess => &self.preprocess,
            Phase::Inference => &self.inference,
        }
    }
}

/// A model with its preprocessing and labels; shared by all threads.
#[derive(Debug)]
pub struct Classifier {
    model: Arc<dyn Model>,
    preprocess: Preprocess,
    labels: Vec<Arc<str>>,
    top_k: usize,
    timings: Timings,
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
        Classifier::new(model, options.preprocess(), labels, top_k)
    }

    /// From parts. `top_k` is held between 1 and the number of classes.
    pub fn new(
        model: Arc<dyn Model>,
        preprocess: Preprocess,
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
        let labels = labels.into_iter().map(Arc::from).collect();
        Ok(Classifier {
            model,
            preprocess,
            labels,
            top_k: top_k.clamp(1, classes.max(1)),
            timings: Timings::default(),
        })
    }

    /// How images are prepared.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The model.
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    /// Time spent so far.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Decodes and resizes one file's bytes.
    pub fn prepare(&self, bytes: &[u8]) -> Result<Pixels, PrepareError> {
        let decoded = self
            .timings
            .time(Phase::Decode, || self.preprocess.decode(bytes))?;
        Ok(self
            .timings
            .time(Phase::Preprocess, || self.preprocess.resize(decoded))?)
    }

    /// Classifies a batch: for each image its best classes, best first, or why there are none.
    ///
    /// When the batch fails as a whole it is halved until the images at fault stand alone, so that one image costs one row.
    pub fn classify(&self, images: &[&Pixels]) -> Vec<Result<Vec<Class>, ClassifyError>> {
        let start = Instant::now();
        let mut results = Vec::with_capacity(images.len());
        self.classify_into(images, &mut results);
        self.timings.add(Phase::Inference, start.elapsed());
        results
    }

    fn classify_into(&self, images: &[&Pixels], results: &mut Vec<Result<Vec<Class>, ClassifyError>>) {
        if images.is_empty() {
            return;
        }
        match self.run(images) {
            Ok(rows) => results.extend(rows),
            Err(error) if images.len() == 1 => results.push(Err(ClassifyError::Torch(first_line(&error)))),
            Err(error) => {
                tracing::debug!(
                    batch = images.len(),
                    error = first_line(&error),
                    "halving a batch that failed"
                );
                let (left, right) = images.split_at(images.len() / 2);
                self.classify_into(left, results);
                self.classify_into(right, results);
            }
        }
    }

    fn run(&self, images: &[&Pixels]) -> Result<Vec<Result<Vec<Class>, ClassifyError>>, TchError> {
        let _no_grad = tch::no_grad_guard();
        let batch = self
            .preprocess
            .batch(images, self.model.device(), self.model.kind())?;
        let logits = self.model.forward(&batch)?;
        let (rows, classes) = (images.len(), self.labels.len());
        if logits.size() != [rows as i64, classes as i64] {
            return Err(TchError::Shape(format!(
                "the model gives {:?} for {rows} images of {classes} classes",
                logits.size()
            )));
        }
        let scores = logits.f_softmax(-1, Kind::Float)?;
        let (scores, indices) = scores.f_topk(self.top_k as i64, -1, true, true)?;
        let scores = Vec::<f32>::try_from(scores.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
        let indices = Vec::<i64>::try_from(indices.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
        Ok(scores
            .chunks(self.top_k)
            .zip(indices.chunks(self.top_k))
            .map(|(scores, indices)| self.row(scores, indices))
            .collect())
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

/// Reads labels: one a line, blank lines at the end left out.
pub fn parse_labels(text: &str) -> Vec<String> {
    text.trim_end()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect()
}
