//! Classifies images with a PyTorch model in a Beam pipeline.
//!
//! In this process (`--runner=DirectRunner`), or on a Beam job service (`--runner=PortableRunner`); see `--help`. Without `--input` it
//! classifies one shipped image.

mod checks;
mod classify;
mod data;
mod input;
mod options;
mod report;
mod rows;

use std::process::ExitCode;

use anyhow::{Context, Result};
use purlin_inference::shared_model;
use purlin_torch::images::ClassifyImages;
use purlin_torch::tuning;

use crate::options::Options;

fn main() -> ExitCode {
    // Before anything allocates and before threads start.
    tuning::tune_allocator();
    let options: Options = purlin::options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let handler = options.handler()?;
    if options.explain_memory {
        println!("{}", ClassifyImages::new(handler).memory_plan());
        return Ok(());
    }
    let Some(files) = options.files()? else {
        return report::one_image(&handler, options.images_dir.as_deref());
    };
    // Bundles run on all cores at once, each computing on its own: decoding of one overlaps inference of another.
    tuning::set_intra_op_threads(1);
    if purlin::options::in_worker() {
        // This process serves a runner: building the pipeline again is all that is asked of it.
        classify::pipeline(options, handler, &files)
            .run(&options.pipeline)
            .context("the worker failed")?;
        return Ok(());
    }
    let paths = input::image_paths(&files.input)?;
    checks::images_dir(options.images_dir.as_deref())?;
    checks::output(&files)?;
    // Loaded here already, so that weights that do not fit are an error before the pipeline starts; its threads share it.
    let (_model, _) = shared_model(&handler)?;
    report::run_and_report(options, handler, &files, &paths)
}

/// The error and its causes; a cause that the text names already is not said again.
fn describe(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |text, cause| match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        })
}
