//! Counts words.
//!
//! ```text
//! cargo run -p purlin --example wordcount -- --input=README.md --output=counts
//! cargo run -p purlin --example wordcount -- --input=README.md --output=counts --runner=PrismRunner
//! ```

use std::process::ExitCode;

use purlin::io::{ReadText, WriteText};
use purlin::options::{self, PipelineOptions};
use purlin::prelude::*;

/// Counts the words of text files.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Files to read, as a glob
    #[arg(long)]
    input: String,
    /// Path and first part of the names of the files to write
    #[arg(long)]
    output: String,
    #[command(flatten)]
    pipeline: PipelineOptions,
}

fn run(options: &Options) -> Result<PipelineResult, RunError> {
    let p = Pipeline::new();
    p.apply(ReadText::from(&options.input))
        .flat_map("Split", |line: String| {
            let words = line
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty());
            words.map(str::to_owned).collect::<Vec<_>>()
        })
        .map("PairWithOne", |word| {
            Metrics::counter("wordcount", "words").inc(1);
            (word, 1u64)
        })
        .combine_per_key("Sum", Sum::new())
        .map("Format", |(word, count)| format!("{word}: {count}"))
        .apply(WriteText::to(&options.output));
    p.run(&options.pipeline)
}

fn main() -> ExitCode {
    let options: Options = options::parse();
    match run(&options) {
        Ok(result) => {
            println!("{} words", result.metrics().counter("wordcount", "words"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
