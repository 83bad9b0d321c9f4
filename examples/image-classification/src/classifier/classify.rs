//! The pipeline.

use purlin::prelude::*;
use purlin_torch::images::{ClassifiedImage, ClassifyImages, ImageClassifierHandler, RejectedImage};

use crate::input::image_paths;
use crate::options::{Files, Options};
use crate::rows::{self, field};

/// Image paths in, rows out.
pub fn pipeline(options: &Options, handler: ImageClassifierHandler, files: &Files) -> Pipeline {
    let pipeline = Pipeline::new();
    let mut classify = ClassifyImages::new(handler).fail_on_error(options.fail_on_error);
    if let Some(folder) = &options.images_dir {
        classify = classify.images_dir(folder);
    }
    let paths = pipeline
        .apply(Create::new([files.input.clone()]))
        .try_flat_map("ReadPaths", |input: String| image_paths(&input))
        // They come in one bundle; from here on all threads have a share.
        .reshuffle("Spread");
    let (classified, rejected) = paths.apply(classify);
    rows::write(&classified, options.output_format, options.top_k, &files.output);
    classified
        .map("Scores", |image: ClassifiedImage| scores(&image))
        .apply_named("WriteScores", rows::lines(&files.scores));
    rejected
        .map("ErrorRow", |image: RejectedImage| error_row(&image))
        .apply_named("WriteErrors", rows::lines(&files.errors));
    pipeline
}

fn error_row(image: &RejectedImage) -> String {
    format!("{},{}", field(&image.path), field(&image.reason))
}

/// All that the table shows, as JSON.
fn scores(image: &ClassifiedImage) -> String {
    serde_json::to_string(image).unwrap_or_default()
}
