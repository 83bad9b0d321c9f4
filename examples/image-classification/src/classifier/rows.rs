//! The rows that are written, in each format.

use std::borrow::Cow;

use purlin::io::WriteText;
use purlin::prelude::*;
use purlin_torch::images::ClassifiedImage;
use serde::{Deserialize, Serialize};

use crate::options::OutputFormat;

/// A row of JSON lines and of Parquet.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Schema)]
struct Row {
    path: String,
    /// The best class, and the model's score of it, 0 to 1.
    class: String,
    score: f32,
    /// All classes that were asked for, best first, and their scores.
    classes: Vec<String>,
    scores: Vec<f32>,
}

impl Row {
    fn new(image: ClassifiedImage) -> Row {
        let best = image.classes.first();
        Row {
            class: best.map_or_else(String::new, |class| class.label.clone()),
            score: best.map_or(0.0, |class| class.score),
            scores: image.classes.iter().map(|class| class.score).collect(),
            classes: image.classes.into_iter().map(|class| class.label).collect(),
            path: image.path,
        }
    }
}

/// Writes the rows to one file of this very name.
pub fn write(
    images: &PCollection<ClassifiedImage>,
    format: Option<OutputFormat>,
    top_k: usize,
    output: &str,
) {
    match format {
        None => {
            images
                .map("Row", |image: ClassifiedImage| best_row(&image))
                .apply_named("WriteRows", lines(output));
        }
        Some(OutputFormat::Csv) => {
            images
                .map("Row", move |image: ClassifiedImage| scored_row(&image, top_k))
                .apply_named("WriteRows", lines(output).header(&header(top_k)));
        }
        Some(OutputFormat::Jsonl) => {
            let write = WriteJson::to(output).without_sharding();
            images.map("Row", Row::new).apply_named("WriteRows", write);
        }
        Some(OutputFormat::Parquet) => {
            let write = WriteParquet::to(output).without_sharding();
            images.map("Row", Row::new).apply_named("WriteRows", write);
        }
    }
}

/// Lines to one file of this very name.
pub fn lines(path: &str) -> WriteText {
    WriteText::to(path).without_sharding()
}

fn best_row(image: &ClassifiedImage) -> String {
    let class = image.classes.first().map_or("", |class| class.label.as_str());
    format!("{},{}", field(&image.path), field(class))
}

fn header(top_k: usize) -> String {
    let more = (2..=top_k).map(|rank| format!(",class_{rank},score_{rank}"));
    "path,class,score".to_owned() + &more.collect::<String>()
}

fn scored_row(image: &ClassifiedImage, top_k: usize) -> String {
    let mut row = field(&image.path).into_owned();
    for rank in 0..top_k.max(1) {
        match image.classes.get(rank) {
            Some(class) => row += &format!(",{},{}", field(&class.label), class.score),
            // The network has fewer classes.
            None => row += ",,",
        }
    }
    row
}

/// A field of CSV: quoted only if it must be.
pub fn field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use purlin_torch::classify::Class;

    use super::*;

    fn image(path: &str) -> ClassifiedImage {
        let class = |index, label: &str, score| Class {
            index,
            label: label.to_owned(),
            score,
        };
        ClassifiedImage {
            path: path.to_owned(),
            classes: vec![class(3, "tench, Tinca", 0.75), class(1, "crane", 0.1)],
        }
    }

    #[test]
    fn fields_are_quoted_only_if_they_must_be() {
        assert_eq!(field("images/a b.png"), "images/a b.png");
        assert_eq!(field("tench, Tinca tinca"), "\"tench, Tinca tinca\"");
        assert_eq!(field("a \"b\""), "\"a \"\"b\"\"\"");
    }

    #[test]
    fn a_path_with_a_line_end_is_one_row() {
        assert_eq!(best_row(&image("a\nb")), "\"a\nb\",\"tench, Tinca\"");
    }

    #[test]
    fn rows_have_scores_and_as_many_classes_as_the_header() {
        assert_eq!(header(1), "path,class,score");
        assert_eq!(scored_row(&image("a"), 1), "a,\"tench, Tinca\",0.75");
        assert_eq!(header(3), "path,class,score,class_2,score_2,class_3,score_3");
        assert_eq!(scored_row(&image("a"), 3), "a,\"tench, Tinca\",0.75,crane,0.1,,");
        let row = serde_json::to_string(&Row::new(image("a\nb"))).unwrap();
        let expected = r#"{"path":"a\nb","class":"tench, Tinca","score":0.75,"classes":["tench, Tinca","crane"],"scores":[0.75,0.1]}"#;
        assert_eq!(row, expected);
    }
}
