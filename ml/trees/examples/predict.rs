//! Predicts rows of numbers with a LightGBM model: `predict MODEL [OPTION...] < rows > predictions`.
//!
//! A row is a line of numbers between commas or spaces; `nan` is a missing value. A line of what the model gives comes out for each.
//! Options: `--output=raw|leaves|contributions`, `--start=N` and `--iterations=N` (which iterations count), `--threads=N`,
//! `--any-width`; `--time=N` takes N rows at a time, and writes instead how many seconds each of these batches takes.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use purlin_trees::{Model, Output, PredictOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: predict MODEL [OPTION...] < rows > predictions")?;
    let mut options = PredictOptions::default();
    let mut timed = None;
    for argument in arguments {
        match argument.split_once('=').unwrap_or((&argument, "")) {
            ("--output", "raw") => options.output = Output::RawScore,
            ("--output", "leaves") => options.output = Output::LeafIndices,
            ("--output", "contributions") => options.output = Output::Contributions,
            ("--start", start) => options.start_iteration = start.parse()?,
            ("--iterations", count) => options.num_iteration = Some(count.parse()?),
            ("--threads", threads) => options.threads = threads.parse()?,
            ("--any-width", "") => options.any_width = true,
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
    let width = model.width(&options);
    for row in 0..rows.len() {
        let values = values[row * width..(row + 1) * width].iter();
        let words: Vec<String> = values.map(f64::to_string).collect();
        writeln!(out, "{}", words.join(" "))?;
    }
    Ok(out.flush()?)
}

fn read_rows(input: impl BufRead) -> Result<Vec<Vec<f64>>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let line = line?;
        let words = line.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let row = words
            .map(|word| {
                word.parse()
                    .map_err(|_| format!("row {}: `{word}` is not a number", number + 1))
            })
            .collect::<Result<_, _>>()?;
        rows.push(row);
    }
    Ok(rows)
}
