//! The command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use purlin::options::{PipelineOptions, RunnerKind};
use purlin_inference::BatchSizes;
use purlin_torch::classify::parse_labels;
use purlin_torch::images::ImageClassifierHandler;
use purlin_torch::models::{Architecture, LoadOptions};
use purlin_torch::preprocess::Fit;
use purlin_torch::tuning::{Device, Precision};

use crate::data;

/// Classifies images with a PyTorch model in a Beam pipeline.
///
/// Writes a row `path,class` for each image, and `path,reason` to OUTPUT.errors for each that cannot be classified; it fails when none can.
/// Without --input it classifies one shipped image and prints the result.
#[derive(Debug, clap::Parser)]
#[command(name = "image-classification", version, args_override_self = true)]
pub struct Options {
    /// The images: a text file with one path a line (blank lines are skipped), a folder, whose images and those of its folders are
    /// taken, a pattern such as 'photos/*.jpg', or a prefix of an object store such as s3://bucket/photos/
    #[arg(long, value_name = "FILE|FOLDER|PATTERN")]
    pub input: Option<String>,

    /// File to write the rows to. One that is there is replaced and keeps its mode; links are followed; pipes and devices get the rows
    #[arg(long, value_name = "FILE", requires = "input")]
    pub output: Option<String>,

    /// What the rows hold: `path,class` by default; csv, jsonl and parquet have column names, scores and all of --top_k
    #[arg(
        long = "output_format",
        value_name = "FORMAT",
        value_enum,
        requires = "output",
        hide_possible_values = true
    )]
    pub output_format: Option<OutputFormat>,

    /// File for the images that cannot be classified: OUTPUT.errors by default
    #[arg(long, value_name = "FILE", requires = "output")]
    pub errors: Option<String>,

    /// Folder that relative paths of --input are under
    #[arg(long = "images_dir", value_name = "FOLDER")]
    pub images_dir: Option<PathBuf>,

    /// The network: mobilenet_v2, resnet18, resnet34, resnet50, resnet101, resnet152, digits_cnn, or torchscript for a
    /// TorchScript file or a compiled package (.pt2) of any network
    #[arg(long = "model_name", value_name = "NAME", default_value = "digits_cnn")]
    pub model_name: String,

    /// Its weights: safetensors, torch.save(model.state_dict(), path), TorchScript, or a package of AOTInductor; the
    /// shipped ones by default, for digits_cnn
    #[arg(long = "model_state_dict_path", value_name = "FILE")]
    pub model_state_dict_path: Option<PathBuf>,

    /// The key of the state dict in a checkpoint that holds several (a.b for one in another); the one under a usual key by default
    #[arg(
        long = "model_state_dict_key",
        value_name = "KEY",
        requires = "model_state_dict_path"
    )]
    pub model_state_dict_key: Option<String>,

    /// Text file with the name of one class a line, or imagenet for the 1000 names that come with this program; rows have class
    /// numbers without it
    #[arg(long, value_name = "FILE|imagenet")]
    pub labels: Option<PathBuf>,

    /// How images get the network's size: resize (to 224x224, as Beam's example does), or center_crop (the shorter side to 256, then the
    /// middle 224x224: what torchvision's published weights want)
    #[arg(long, value_name = "HOW", default_value_t = Fit::Resize)]
    pub preprocess: Fit,

    /// Where the network runs: CPU or GPU
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// The number format it computes in: fp32 or bf16 (faster where the processor has AMX or AVX512-BF16, and on GPUs)
    #[arg(long, value_name = "FORMAT", default_value_t = Precision::Fp32)]
    pub precision: Precision,

    /// The smallest batch
    #[arg(long = "min_batch_size", value_name = "N", default_value_t = 1)]
    pub min_batch_size: usize,

    /// The largest batch; sizes adapt between the two
    #[arg(long = "max_batch_size", value_name = "N", default_value_t = 64)]
    pub max_batch_size: usize,

    /// How many classes the table, and with --output_format the rows, have for each image, best first
    #[arg(long = "top_k", value_name = "N", default_value_t = 1)]
    pub top_k: usize,

    /// Print what memory the network and its batches take at most, and do nothing else
    #[arg(long = "explain_memory")]
    pub explain_memory: bool,

    /// Fail when an image cannot be classified
    #[arg(long = "fail_on_error")]
    pub fail_on_error: bool,

    #[command(flatten)]
    pub pipeline: PipelineOptions,
}

/// What the rows are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    Csv,
    Jsonl,
    Parquet,
}

/// The files of a run.
#[derive(Debug, Clone)]
pub struct Files {
    pub input: String,
    /// The rows.
    pub output: String,
    /// Rows `path,reason`.
    pub errors: String,
    /// What the table is made of; removed after it.
    pub scores: String,
}

impl Options {
    /// The files, if there is an input.
    pub fn files(&self) -> Result<Option<Files>> {
        match (&self.input, &self.output) {
            (None, _)
                if self.pipeline.runner != RunnerKind::Direct || self.pipeline.job_endpoint.is_some() =>
            {
                bail!(
                    "--runner and --job_endpoint are for a pipeline, which needs --input=FILE and --output=FILE: without them one \
                     shipped image is classified in this process"
                )
            }
            (None, _) => Ok(None),
            (Some(input), None) => {
                bail!("--input={input} needs --output=FILE, the file to write the rows to")
            }
            (Some(input), Some(output)) => {
                let errors = match &self.errors {
                    Some(errors) => errors.clone(),
                    // No files belong there.
                    None if ["/dev/", "/proc/"].iter().any(|place| output.starts_with(place)) => {
                        bail!(
                            "--output={output} needs --errors=FILE, a file for the images that cannot be classified"
                        )
                    }
                    None => format!("{output}.errors"),
                };
                Ok(Some(Files {
                    input: input.clone(),
                    output: output.clone(),
                    scores: format!("{errors}.scores"),
                    errors,
                }))
            }
        }
    }

    /// The network and how it is run.
    pub fn handler(&self) -> Result<ImageClassifierHandler> {
        let mut options = LoadOptions::named(&self.model_name).context("--model_name")?;
        options.device = self.device;
        options.precision = self.precision;
        options.state_dict_key = self.model_state_dict_key.clone();
        options.fit = self.preprocess;
        if self.top_k == 0 {
            bail!("--top_k=0: each image has at least one class; give 1 or more");
        }
        if self.min_batch_size == 0 || self.max_batch_size < self.min_batch_size {
            let (min, max) = (self.min_batch_size, self.max_batch_size);
            bail!("--min_batch_size={min} --max_batch_size={max}: 1 <= min <= max is needed");
        }
        let shipped =
            self.model_state_dict_path.is_none() && options.architecture == Some(Architecture::DigitsCnn);
        let weights = match &self.model_state_dict_path {
            Some(path) => path.clone(),
            None if shipped => data::file("digits_cnn.safetensors")?,
            None => bail!(
                "--model_name={} needs --model_state_dict_path=FILE, its weights",
                self.model_name
            ),
        };
        let labels = match &self.labels {
            Some(path) if path == Path::new("imagenet") => Some(Arc::new(parse_labels(data::IMAGENET))),
            Some(path) => Some(read_labels(path)?),
            None if shipped => Some(read_labels(&data::file("labels.txt")?)?),
            None => None,
        };
        let batch_sizes = BatchSizes {
            min: self.min_batch_size,
            max: self.max_batch_size,
        };
        Ok(ImageClassifierHandler {
            weights,
            options,
            labels,
            top_k: self.top_k,
            batch_sizes,
        })
    }
}

fn read_labels(path: &Path) -> Result<Arc<Vec<String>>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("--labels: cannot read {}", path.display()))?;
    Ok(Arc::new(parse_labels(&text)))
}
