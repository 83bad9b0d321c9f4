//! Counts words that workers make of numbers, so that nothing is read: what `benches/flink.py` does in Python, too.
//!
//! ```text
//! cargo run --release -p purlin --example count_words -- --words=5000000
//! ```

use std::process::ExitCode;

use purlin::options::{self, PipelineOptions};
use purlin::prelude::*;

const WORDS_A_LINE: u64 = 5;
const LINES_A_BLOCK: u64 = 1000;

/// Counts words, five to a line, and checks how many are distinct.
#[derive(Debug, clap::Parser)]
struct Options {
    /// How many; a multiple of 5,000 from 10,000 on
    #[arg(long, default_value_t = 5_000_000)]
    words: u64,
    /// How many of them are distinct, at least 1,009: five million words of English text have about 100,000
    #[arg(long, default_value_t = 100_000)]
    distinct: u64,
    #[command(flatten)]
    pipeline: PipelineOptions,
}

/// The lines of a block: one of 7, 101, 1009 and of all words, and one word that each line has.
fn block(start: u64, distinct: u64) -> impl Iterator<Item = String> {
    let lines = start * LINES_A_BLOCK..(start + 1) * LINES_A_BLOCK;
    lines.map(move |i| format!("w{} w{} w{} w{} common", i % 7, i % 101, i % 1009, i % distinct))
}

fn run(options: &Options) -> Result<PipelineResult, RunError> {
    let lines = options.words / WORDS_A_LINE;
    let distinct = options.distinct;
    // And 'common'.
    let expected = lines.min(distinct) + 1;
    let p = Pipeline::new();
    p.apply(Create::new(0..lines / LINES_A_BLOCK))
        .reshuffle("Reshuffle")
        .flat_map("Lines", move |start| block(start, distinct))
        .flat_map("Split", |line: String| {
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .map("Pair", |word| (word, 1i64))
        .combine_per_key("Sum", Sum::new())
        .apply(Count::globally())
        .par_do_with("Check", move |found: u64, _: &mut Context<'_, ()>| {
            if found == expected {
                return Ok(());
            }
            Err(format!("{found} distinct words were counted, not {expected}").into())
        });
    p.run(&options.pipeline)
}

fn main() -> ExitCode {
    let options: Options = options::parse();
    if options.words < 10_000 || !options.words.is_multiple_of(WORDS_A_LINE * LINES_A_BLOCK) {
        eprintln!("--words must be a multiple of 5,000, from 10,000 on");
        return ExitCode::FAILURE;
    }
    if options.distinct < 1009 {
        eprintln!("--distinct must be at least 1009");
        return ExitCode::FAILURE;
    }
    match run(&options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
