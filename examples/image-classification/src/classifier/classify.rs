//! The pipeline.

use std::borrow::Cow;

use purlin::io::{ReadText, WriteText};
use purlin::prelude::*;
use purlin_ml::images::{ClassifiedImage, ClassifyImages, ImageClassifierHandler, RejectedImage};

use crate::options::{Files, Options};

/// Image paths in, rows out.
pub fn pipeline(options: &Options, handler: ImageClassifierHandler, files: &Files) -> Pipeline {
    let pipeline = Pipeline::new();
    let mut classify = ClassifyImages::new(handler).fail_on_error(options.fail_on_error);
    if let Some(folder) = &options.images_dir {
        classify = classify.images_dir(folder);
    }
    let paths = pipeline
        .apply_named("ReadPaths", ReadText::from(&glob::Pattern::escape(&files.input)))
        .map("Trim", |line: String| line.trim().to_owned())
        .filter("SkipBlankLines", |line: &String| !line.is_empty())
        // One file's lines come in one bundle; from here on all threads have a share.
        .reshuffle("Spread");
    let (classified, rejected) = paths.apply(classify);
    classified
        .map("Row", |image: ClassifiedImage| row(&image))
        .apply_named("WriteRows", to(&files.output));
    classified
        .map("Scores", |image: ClassifiedImage| scores(&image))
        .apply_named("WriteScores", to(&files.scores));
    rejected
        .map("ErrorRow", |image: RejectedImage| error_row(&image))
        .apply_named("WriteErrors", to(&files.errors));
    pipeline
}

/// One file of this very name.
fn to(path: &str) -> WriteText {
    WriteText::to(path).without_sharding()
}

fn row(image: &ClassifiedImage) -> String {
    let class = image.classes.first().map_or("", |class| class.label.as_str());
    format!("{},{}", field(&image.path), field(class))
}

fn error_row(image: &RejectedImage) -> String {
    format!("{},{}", field(&image.path), field(&image.reason))
}

/// All that the table shows, as JSON.
fn scores(image: &ClassifiedImage) -> String {
    serde_json::to_string(image).unwrap_or_default()
}

/// A field of CSV: quoted only if it must be.
fn field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_only_if_they_must_be() {
        assert_eq!(field("images/a b.png"), "images/a b.png");
        assert_eq!(field("tench, Tinca tinca"), "\"tench, Tinca tinca\"");
        assert_eq!(field("a \"b\""), "\"a \"\"b\"\"\"");
    }
}
