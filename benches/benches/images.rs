//! Classifies JPEG images: a bare loop over tch against a pipeline in this process.
//!
//! Both load the same network, read and decode the same files with the same decoder, classify batches of the same size on
//! as many threads (so that one decodes while another infers), and write `path,class` rows. `IMAGES=240`, `ROUNDS=3`,
//! `MODEL=resnet18` and `PRECISION=fp32` change the defaults.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use purlin::io::{ReadText, WriteText};
use purlin::prelude::*;
use purlin_benches::{Numbers, in_turn};
use purlin_inference::BatchSizes;
use purlin_torch::classify::Classifier;
use purlin_torch::images::{ClassifiedImage, ClassifyImages, ImageClassifierHandler};
use purlin_torch::models::LoadOptions;
use purlin_torch::preprocess::Pixels;
use purlin_torch::tuning;
use tch::{Device, Kind, Tensor};

const BATCH: usize = 32;

/// Weights that let activations neither vanish nor explode; what they say does not matter.
fn write_weights(options: &LoadOptions, path: &Path) -> Result<()> {
    let architecture = options
        .architecture
        .context("a TorchScript file has no weights to make up")?;
    tch::manual_seed(1);
    let tensors: Vec<(String, Tensor)> = architecture
        .tensors(architecture.default_classes())
        .into_iter()
        .map(|spec| {
            let inputs: i64 = spec.shape.iter().skip(1).product();
            let uniform = Tensor::rand(&spec.shape[..], (Kind::Float, Device::Cpu));
            let tensor = if spec.name.ends_with("running_var") || spec.shape.len() == 1 {
                uniform * 0.5 + 0.5
            } else {
                (uniform - 0.5) * 2.0 * (3.0 / inputs as f64).sqrt()
            };
            (spec.name, tensor)
        })
        .collect();
    Tensor::write_safetensors(&tensors, path)?;
    Ok(())
}

/// Photograph-like JPEG files of 500x375: smooth colours with some noise.
fn write_images(folder: &Path, count: usize) -> Result<Vec<PathBuf>> {
    const WIDTH: usize = 500;
    const HEIGHT: usize = 375;
    let mut numbers = Numbers(7);
    (0..count)
        .map(|number| {
            let mut pixels = Vec::with_capacity(WIDTH * HEIGHT * 3);
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    let noise = (numbers.draw() % 24) as usize;
                    let value = |scale: usize| ((x * scale + y * (number % 7 + 1)) / 4 + noise) % 256;
                    pixels.extend([value(1) as u8, value(2) as u8, value(3) as u8]);
                }
            }
            let image = turbojpeg::Image {
                pixels: &pixels[..],
                width: WIDTH,
                pitch: WIDTH * 3,
                height: HEIGHT,
                format: turbojpeg::PixelFormat::RGB,
            };
            let path = folder.join(format!("{number:04}.jpg"));
            std::fs::write(&path, turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2)?)?;
            Ok(path)
        })
        .collect()
}

fn by_hand(list: &Path, weights: &Path, options: &LoadOptions, threads: usize, output: &Path) -> Result<()> {
    let text = std::fs::read_to_string(list)?;
    let paths: Vec<&str> = text.lines().collect();
    let classifier = Classifier::load(weights, options, None, 1)?;
    let next = AtomicUsize::new(0);
    let classify = || -> Result<String> {
        let mut rows = String::new();
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = paths.get(first..paths.len().min(first + BATCH)) else {
                break;
            };
            if batch.is_empty() {
                break;
            }
            let pixels = batch
                .iter()
                .map(|path| Ok(classifier.prepare(&std::fs::read(path)?)?))
                .collect::<Result<Vec<Pixels>>>()?;
            let classes = classifier.classify_batch(&pixels.iter().collect::<Vec<_>>())?;
            for (path, classes) in batch.iter().zip(classes) {
                writeln!(rows, "{path},{}", classes[0].label)?;
            }
        }
        Ok(rows)
    };
    let rows = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(classify)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<String>>>()
    })?;
    std::fs::write(output, rows.concat())?;
    Ok(())
}

fn by_pipeline(list: &Path, weights: &Path, options: &LoadOptions, output: &Path) -> Result<()> {
    let handler = ImageClassifierHandler {
        weights: weights.to_owned(),
        options: options.clone(),
        labels: None,
        top_k: 1,
        batch_sizes: BatchSizes {
            min: BATCH,
            max: BATCH,
        },
    };
    let pipeline = Pipeline::new();
    let (classified, _) = pipeline
        .apply(ReadText::from(&list.display().to_string()))
        .reshuffle("Spread")
        .apply(ClassifyImages::new(handler).fail_on_error(true));
    classified
        .map("Row", |image: ClassifiedImage| {
            format!("{},{}", image.path, image.classes[0].label)
        })
        .apply(WriteText::to(&output.display().to_string()).without_sharding());
    pipeline.run(&PipelineOptions::default())?;
    Ok(())
}

fn sorted_lines(path: &Path) -> Result<Vec<String>> {
    let mut lines: Vec<String> = std::fs::read_to_string(path)?
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    Ok(lines)
}

fn main() -> Result<()> {
    tuning::tune_allocator();
    tuning::set_intra_op_threads(1);
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let count: usize = setting("IMAGES", "240").parse().context("IMAGES is a number")?;
    let rounds: usize = setting("ROUNDS", "3").parse().context("ROUNDS is a number")?;
    let model = setting("MODEL", "resnet18");
    let mut options = LoadOptions::named(&model)?;
    options.precision = setting("PRECISION", "fp32").parse().map_err(anyhow::Error::msg)?;
    let threads = thread::available_parallelism()?.get();

    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let (weights, list) = (at("weights.safetensors"), at("images.txt"));
    write_weights(&options, &weights)?;
    let images = write_images(folder.path(), count)?;
    std::fs::write(
        &list,
        images
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect::<String>(),
    )?;

    let (loop_rows, pipeline_rows) = (at("loop.csv"), at("pipeline.csv"));
    let mut loop_ = || by_hand(&list, &weights, &options, threads, &loop_rows).expect("the loop runs");
    let mut pipeline = || by_pipeline(&list, &weights, &options, &pipeline_rows).expect("the pipeline runs");
    let runs = in_turn(rounds, &mut [&mut loop_, &mut pipeline]);
    ensure!(
        sorted_lines(&loop_rows)? == sorted_lines(&pipeline_rows)?,
        "the pipeline's rows differ from the loop's"
    );

    println!(
        "images: {count} JPEG of 500x375, {model} {:?}, batches of {BATCH}, {threads} threads; median of {rounds}",
        options.precision
    );
    for (name, runs) in ["loop", "pipeline"].iter().zip(&runs) {
        println!(
            "  {name:10} {:6.1} images/s  peak {} MiB",
            count as f64 / runs.median(),
            runs.peak_kib / 1024
        );
    }
    println!(
        "  the pipeline reaches {:.2} of the loop",
        runs[0].median() / runs[1].median()
    );
    Ok(())
}
