//! What the user sees: progress, the table, the summary.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use purlin::metrics::MetricResults;
use purlin_inference::shared_model;
use purlin_torch::classify::Class;
use purlin_torch::images::{ClassifiedImage, ImageClassifierHandler, METRICS};

use crate::classify;
use crate::data;
use crate::options::{Files, Options};

/// The table's rows; the rest is counted.
const SHOWN: usize = 20;

/// Classifies one shipped image and prints the result.
pub fn one_image(handler: &ImageClassifierHandler, images_dir: Option<&Path>) -> Result<()> {
    let list = data::file("images.txt")?;
    let names = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let name = names
        .lines()
        .find(|line| !line.is_empty())
        .with_context(|| format!("{} is empty", list.display()))?;
    let path = match images_dir {
        Some(folder) => folder.join(name),
        None => data::file("images")?.join(name),
    };
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (classifier, _) = shared_model(handler)?;
    let pixels = classifier
        .prepare(&bytes)
        .with_context(|| path.display().to_string())?;
    let mut rows = classifier
        .classify_batch(&[&pixels])
        .with_context(|| path.display().to_string())?;
    let classes = rows.pop().unwrap_or_default();
    print_table(&[ClassifiedImage {
        path: name.to_owned(),
        classes,
    }]);
    println!("\nGive --input=FILE --output=FILE to classify images of your own, and --help for all options.");
    Ok(())
}

/// Runs the pipeline, and reports.
pub fn run_and_report(
    options: &Options,
    handler: ImageClassifierHandler,
    files: &Files,
    paths: &[String],
) -> Result<()> {
    let cleanup = RemoveOnDrop(&files.scores);
    // Of a run before this one.
    remove(&files.errors)?;
    let pipeline = classify::pipeline(options, handler, files);
    let start = Instant::now();
    let running = pipeline
        .start(&options.pipeline)
        .with_context(|| format!("cannot start the {}", runner(options)))?;
    let bar = progress_bar(paths.len());
    while !running.wait_for(Duration::from_millis(100)) {
        bar.set_position(done(&running.metrics()));
    }
    bar.finish_and_clear();
    let result = running.wait()?;
    let elapsed = start.elapsed();

    let mut images = read_scores(&files.scores)?;
    drop(cleanup);
    let place: HashMap<&str, usize> = paths
        .iter()
        .enumerate()
        .map(|(place, path)| (path.as_str(), place))
        .collect();
    images.sort_by_key(|image| place.get(image.path.as_str()).copied());
    let errors = usize::try_from(result.metrics().counter(METRICS, "rejected")).unwrap_or(0);
    if errors == 0 {
        remove(&files.errors)?;
    }
    print_table(&images);
    print_summary(images.len(), errors, elapsed, result.metrics(), files);
    if images.is_empty() && errors > 0 {
        bail!(
            "none of the {errors} images could be classified; {} says why",
            files.errors
        );
    }
    Ok(())
}

fn runner(options: &Options) -> String {
    use clap::ValueEnum;
    options
        .pipeline
        .runner
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn progress_bar(total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} images, {per_sec}, {eta} to go")
    {
        bar.set_style(style);
    }
    bar
}

/// Images that are through.
fn done(metrics: &MetricResults) -> u64 {
    let count = metrics.counter("RunInference", "num_inferences") + metrics.counter(METRICS, "rejected");
    u64::try_from(count).unwrap_or(0)
}

fn read_scores(path: &str) -> Result<Vec<ClassifiedImage>> {
    let text = fs::read_to_string(path).with_context(|| format!("the pipeline did not write {path}"))?;
    let image = |line: &str| serde_json::from_str(line).with_context(|| format!("{path} is damaged"));
    text.lines().map(image).collect()
}

/// Removes a file of a run before this one, or one that stayed empty. What is no regular file stays.
fn remove(path: &str) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        fs::remove_file(path).with_context(|| format!("cannot remove {path}"))?;
    }
    Ok(())
}

/// Also when the pipeline fails.
struct RemoveOnDrop<'a>(&'a str);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

fn print_table(images: &[ClassifiedImage]) {
    let shown: Vec<(String, &[Class])> = images
        .iter()
        .take(SHOWN)
        .map(|image| (one_line(&image.path), image.classes.as_slice()))
        .collect();
    let width = |heading: &str, texts: &mut dyn Iterator<Item = &str>| {
        texts
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0)
            .max(heading.len())
    };
    let image_width = width("image", &mut shown.iter().map(|(path, _)| path.as_str()));
    let classes = || shown.iter().flat_map(|(_, classes)| *classes);
    let label_width = width("label", &mut classes().map(|class| class.label.as_str()));
    println!("{:image_width$}  {:label_width$}  score", "image", "label");
    for (path, classes) in &shown {
        for (rank, class) in classes.iter().enumerate() {
            let path = if rank == 0 { path.as_str() } else { "" };
            println!(
                "{path:image_width$}  {:label_width$}  {:.4}",
                class.label, class.score
            );
        }
    }
    if images.len() > SHOWN {
        println!("... {} more", images.len() - SHOWN);
    }
}

/// A path as one line of the table.
fn one_line(path: &str) -> String {
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    path.chars().map(shown).collect()
}

fn print_summary(rows: usize, errors: usize, elapsed: Duration, metrics: &MetricResults, files: &Files) {
    let seconds = elapsed.as_secs_f64();
    println!("\nrows      {rows}, in {}", files.output);
    match errors {
        0 => println!("errors    0"),
        _ => println!("errors    {errors}, in {}", files.errors),
    }
    println!(
        "images/s  {:.1}, {seconds:.2} s in all",
        (rows + errors) as f64 / seconds.max(1e-9)
    );
    let spent = |namespace: &str, name: &str| metrics.distribution(namespace, name).sum as f64 / 1e6;
    let times = [
        ("read", spent(METRICS, "read_micros")),
        ("decode", spent(METRICS, "decode_micros")),
        ("preprocess", spent(METRICS, "preprocess_micros")),
        (
            "inference",
            spent("RunInference", "inference_batch_latency_micro_secs"),
        ),
        (
            "write",
            ["WriteText", "WriteJson", "WriteParquet"]
                .iter()
                .map(|sink| spent(sink, "write_micros"))
                .sum(),
        ),
    ];
    let times: Vec<String> = times
        .iter()
        .map(|(name, seconds)| format!("{name} {seconds:.3} s"))
        .collect();
    println!("time      {} (summed over threads)", times.join(", "));
}
