//! Predicts rows of numbers with an XGBoost model: `predict_xgboost MODEL [OPTION...] < rows > predictions`.
//!
//! A row is a line of numbers between spaces; `nan` is a missing value. A line of what the model gives comes out for each. Options:
//! `--output=margin|leaves`, `--iterations=FROM..TO` or `--iterations=best` (which rounds count), `--threads=N`; `--time=N` takes N rows
//! at a time, and writes instead how many seconds each of these batches takes.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use purlin_trees::xgboost::{Iterations, Model, Output, PredictOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: predict_xgboost MODEL [OPTION...] < rows > predictions")?;
    let mut options = PredictOptions::default();
    let mut timed = None;
    for argument in arguments {
        match argument.split_once('=').unwrap_or((&argument, "")) {
            ("--output", "margin") => options.output = Output::Margin,
            ("--output", "leaves") => options.output = Output::LeafIndices,
            ("--iterations", "best") => options.iterations = Iterations::Best,
            ("--iterations", range) => {
                let (from, to) = range.split_once("..").ok_or("give --iterations=FROM..TO")?;
                options.iterations = Iterations::Of(from.parse()?..to.parse()?);
            }
            ("--threads", threads) => options.threads = threads.parse()?,
            ("--time", count) => timed = Some(count.parse::<NonZeroUsize>()?),
            _ => return Err(format!("no option {argument}").into()),
        }
    }
    let model = Model::load(path)?;
    let rows = read_rows(io::stdin().lock())?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if let Some(batch) = timed {
        for rows in rows.chunks(batch.get()) {
            let start = Instant::now();
            std::hint::black_box(model.predict(rows, &options)?);
            writeln!(out, "{}", start.elapsed().as_secs_f64())?;
        }
        return Ok(());
    }
    let values = model.predict(&rows, &options)?;
    for row in values.chunks(model.width(&options)?) {
        let words: Vec<String> = row.iter().map(f32::to_string).collect();
        writeln!(out, "{}", words.join(" "))?;
    }
    Ok(out.flush()?)
}

fn read_rows(input: impl BufRead) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let line = line?;
        let row = line
            .split_ascii_whitespace()
            .map(|word| {
                word.parse()
                    .map_err(|_| format!("row {}: `{word}` is not a number", number + 1))
            })
            .collect::<Result<_, _>>()?;
        rows.push(row);
    }
    Ok(rows)
}
