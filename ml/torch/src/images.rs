//! From image paths to classes, as one transform.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use purlin::metrics::{Counter, Distribution};
use purlin::prelude::*;
use serde::{Deserialize, Serialize};

use crate::classify::{Class, Classifier};
use crate::models::LoadOptions;
use crate::preprocess::Pixels;
use purlin_inference::{
    BatchSizes, FailedExample, MemoryEstimate, MemoryPlan, ModelHandler, RunInference, shared_model,
};

/// The namespace of the metrics of [`ClassifyImages`].
pub const METRICS: &str = "ClassifyImages";

/// An image network as a [`ModelHandler`]: prepared images to their best classes.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageClassifierHandler {
    /// The weights file, in any format of [`crate::weights`].
    pub weights: PathBuf,
    /// The network, its device and its number format.
    pub options: LoadOptions,
    /// The class names; numbers stand for them where there are none.
    pub labels: Option<Arc<Vec<String>>>,
    /// How many classes each image gets, best first.
    pub top_k: usize,
    /// How large batches are.
    pub batch_sizes: BatchSizes,
}

impl ModelHandler for ImageClassifierHandler {
    type Example = Pixels;
    type Inference = Vec<Class>;
    type Model = Classifier;

    fn model_id(&self) -> String {
        let name = self
            .options
            .architecture
            .map_or(crate::models::TORCHSCRIPT, |architecture| architecture.name());
        format!("{name} from {}", self.weights.display())
    }

    fn model_key(&self) -> String {
        format!("{:?}", (&self.weights, &self.options, &self.labels, self.top_k))
    }

    fn load(&self) -> Result<Classifier, BoxError> {
        let labels = self.labels.as_ref().map(|labels| labels.to_vec());
        Ok(Classifier::load(
            &self.weights,
            &self.options,
            labels,
            self.top_k,
        )?)
    }

    fn run(&self, batch: &[&Pixels], model: &Classifier) -> Result<Vec<Vec<Class>>, BoxError> {
        Ok(model.classify_batch(batch)?)
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.batch_sizes
    }

    fn num_bytes(&self, batch: &[&Pixels]) -> u64 {
        batch.iter().map(|pixels| pixels.data.len() as u64).sum()
    }

    fn model_hash(&self, model: &Classifier) -> Option<String> {
        model.hash().map(str::to_owned)
    }

    /// Of a network by name. Of another, nothing is known before it runs.
    fn estimate(&self) -> Option<MemoryEstimate> {
        let architecture = self.options.architecture?;
        let classes = self.options.num_classes.unwrap_or(architecture.default_classes());
        let (weights, activations) = architecture.numbers(classes);
        let bytes = self.options.precision.kind().elt_size_in_bytes() as u64;
        // Prepared images are bytes, and floats on their way into the network.
        let image = architecture
            .preprocess()
            .shape()
            .iter()
            .product::<i64>()
            .unsigned_abs();
        Some(MemoryEstimate {
            weights: weights.unsigned_abs() * bytes,
            per_example: activations.unsigned_abs() * bytes + image * 5,
        })
    }
}

/// An image's classes, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, purlin::Element)]
pub struct ClassifiedImage {
    /// The path as it was given.
    pub path: String,
    /// The classes, as many as were asked for.
    pub classes: Vec<Class>,
}

/// An image that could not be classified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, purlin::Element)]
pub struct RejectedImage {
    /// The path as it was given.
    pub path: String,
    /// Why, on one line.
    pub reason: String,
}

/// Reads, decodes, prepares and classifies the images at the paths of a collection.
///
/// Output: the [`ClassifiedImage`]s and the [`RejectedImage`]s. All steps are fused, so one thread decodes while another computes,
/// and pixels never leave the process. The distributions `read_micros`, `decode_micros` and `preprocess_micros` in the namespace
/// [`METRICS`] tell where the time goes, besides those of [`RunInference`]; the counter `rejected` counts bad images.
#[derive(Debug, Clone)]
pub struct ClassifyImages {
    handler: ImageClassifierHandler,
    images_dir: Option<PathBuf>,
    fail_on_error: bool,
}

impl ClassifyImages {
    /// Classifies with this handler's network.
    pub fn new(handler: ImageClassifierHandler) -> ClassifyImages {
        ClassifyImages {
            handler,
            images_dir: None,
            fail_on_error: false,
        }
    }

    /// The folder that relative paths are under.
    #[must_use]
    pub fn images_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.images_dir = Some(folder.into());
        self
    }

    /// What memory the network and its batches take at most in a process: see [`RunInference::memory_plan`].
    pub fn memory_plan(&self) -> MemoryPlan {
        RunInference::keyed::<String>(self.handler.clone()).memory_plan()
    }

    /// Makes an image that cannot be classified fail the pipeline.
    #[must_use]
    pub fn fail_on_error(mut self, fail: bool) -> Self {
        self.fail_on_error = fail;
        self
    }
}

impl PTransform<PCollection<String>> for ClassifyImages {
    type Output = (PCollection<ClassifiedImage>, PCollection<RejectedImage>);

    fn name(&self) -> String {
        "ClassifyImages".into()
    }

    fn expand(self, paths: PCollection<String>) -> Self::Output {
        let unreadable = OutputTag::new("unreadable");
        let rejected = Metrics::counter(METRICS, "rejected");
        let prepare = PrepareImage {
            handler: self.handler.clone(),
            model: None,
            images_dir: self.images_dir,
            fail_on_error: self.fail_on_error,
            unreadable: unreadable.clone(),
            read: Metrics::distribution(METRICS, "read_micros"),
            decode: Metrics::distribution(METRICS, "decode_micros"),
            preprocess: Metrics::distribution(METRICS, "preprocess_micros"),
            rejected,
        };
        let (prepared, unreadable) = paths.apply(ParDo::new("Prepare", prepare).with_outputs(&unreadable));
        let inference = RunInference::keyed::<String>(self.handler);
        let (results, failed) = prepared.apply(inference.with_dead_letters());
        let classified = results.map("Classified", |(path, result)| ClassifiedImage {
            path,
            classes: result.inference,
        });
        let fail_on_error = self.fail_on_error;
        let failed = failed.try_map(
            "Rejected",
            move |FailedExample {
                      example: (path, _),
                      error,
                      ..
                  }: FailedExample<(String, Pixels)>| {
                rejected.inc(1);
                reject(path, &error, fail_on_error)
            },
        );
        (classified, vec![unreadable, failed].apply(Flatten::new()))
    }
}

/// An image's dead letter, or an error where images must not fail.
fn reject(path: String, reason: &str, fail_on_error: bool) -> Result<RejectedImage, BoxError> {
    if fail_on_error {
        return Err(format!("image {path}: {reason}").into());
    }
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(RejectedImage { path, reason })
}

/// A path to the pixels that the network takes.
#[derive(Clone)]
struct PrepareImage {
    handler: ImageClassifierHandler,
    /// It knows how images are prepared for it.
    model: Option<Arc<Classifier>>,
    images_dir: Option<PathBuf>,
    fail_on_error: bool,
    unreadable: OutputTag<RejectedImage>,
    read: Distribution,
    decode: Distribution,
    preprocess: Distribution,
    rejected: Counter,
}

impl PrepareImage {
    fn prepare(&self, path: &str) -> Result<Pixels, BoxError> {
        let preprocess = self
            .model
            .as_ref()
            .ok_or("the model was not loaded: setup was not called")?
            .preprocess();
        let file = match &self.images_dir {
            Some(folder) => folder.join(path),
            None => PathBuf::from(path),
        };
        let bytes = timed(self.read, || read_file(&file))?;
        let decoded = timed(self.decode, || preprocess.decode(&bytes))?;
        Ok(timed(self.preprocess, || preprocess.resize(decoded))?)
    }
}

impl DoFn for PrepareImage {
    type In = String;
    type Out = (String, Pixels);
    const OBSERVES_WINDOW: bool = false;

    fn setup(&mut self) -> DoFnResult {
        self.model = Some(shared_model(&self.handler)?.0);
        Ok(())
    }

    fn process(&mut self, path: String, ctx: &mut Context<'_, (String, Pixels)>) -> DoFnResult {
        match self.prepare(&path) {
            Ok(pixels) => ctx.output((path, pixels)),
            Err(error) => {
                let rejected = reject(path, &error.to_string(), self.fail_on_error)?;
                self.rejected.inc(1);
                ctx.output_to(&self.unreadable, rejected);
            }
        }
        Ok(())
    }
}

/// A folder or a pipe is no image; the latter would never end. A URL is of an object store.
fn read_file(path: &Path) -> Result<Vec<u8>, BoxError> {
    if let Some(url) = path.to_str().filter(|path| path.contains("://")) {
        return purlin::io::read_file(url).map_err(|error| format!("cannot read {url}: {error}").into());
    }
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()).into());
    }
    Ok(std::fs::read(path).map_err(cannot)?)
}

fn timed<T>(distribution: Distribution, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    distribution.update(i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX));
    done
}
