//! Embeds sentences with a text encoder in a pipeline: `embed MODEL SENTENCES OUTPUT`, a line for each.
//!
//! MODEL is a folder of sentence-transformers, or a zip file of one. SENTENCES has one on a line. A line of OUTPUT is a sentence's
//! number and its embedding, between spaces. The seconds that the pipeline took, loading the model included, go to standard output.
//! Wants the feature `text`.

use std::error::Error;
use std::time::Instant;

use purlin::io::WriteText;
use purlin::prelude::*;
use purlin_inference::RunInference;
use purlin_torch::text::TextEmbedder;
use purlin_torch::tuning;

fn main() -> Result<(), Box<dyn Error>> {
    tuning::tune_allocator();
    tuning::set_intra_op_threads(1);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, sentences, output] = arguments.as_slice() else {
        return Err("usage: embed MODEL SENTENCES OUTPUT".into());
    };
    let sentences = std::fs::read_to_string(sentences)?;
    let numbered: Vec<(u64, String)> = (0..).zip(sentences.lines().map(str::to_owned)).collect();
    let start = Instant::now();
    let p = Pipeline::new();
    p.apply(Create::new(numbered))
        .reshuffle("Spread")
        .apply(RunInference::keyed(TextEmbedder::from_path(model)))
        .map("Line", |(number, result)| {
            let numbers: Vec<String> = result.inference.iter().map(f32::to_string).collect();
            format!("{number} {}", numbers.join(" "))
        })
        .apply(WriteText::to(output).without_sharding());
    p.run(&PipelineOptions::default())?;
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}
