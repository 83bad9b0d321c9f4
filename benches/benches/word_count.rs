//! Counts the words of a file: a loop over a hash map against a pipeline in this process.
//!
//! All read the same file, count, and write the counts to a file. `WORDS=5000000` and `ROUNDS=5` change the defaults,
//! `ONLY=NAME` runs one of the programs, for a profiler. With `--features peers` the crate ironbeam takes part.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use purlin::prelude::*;
use purlin_benches::{Numbers, Program, compare, setting};

/// Text whose words are as often as in a language: the k-th of them about 1/k as often as the first.
fn write_text(path: &Path, words: u64) -> std::io::Result<()> {
    const VOCABULARY: f64 = 100_000.0;
    let mut numbers = Numbers(42);
    let mut out = BufWriter::new(File::create(path)?);
    for i in 0..words {
        let rank = VOCABULARY.powf(numbers.fraction()) as u64;
        let end = if i % 10 == 9 { "\n" } else { " " };
        // Letters that depend on the rank: 2 for the commonest, up to 8.
        let mut letters = Numbers(rank).draw();
        for _ in 0..2 + rank.ilog2() / 3 + (letters % 2) as u32 {
            out.write_all(&[b'a' + (letters % 26) as u8])?;
            letters /= 26;
        }
        out.write_all(end.as_bytes())?;
    }
    out.flush()
}

fn by_hand(input: &Path, output: &Path) -> std::io::Result<()> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for line in BufReader::new(File::open(input)?).lines() {
        for word in line?.split_whitespace() {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.to_owned(), 1);
                }
            }
        }
    }
    let mut out = BufWriter::new(File::create(output)?);
    for (word, count) in &counts {
        writeln!(out, "{word}: {count}")?;
    }
    out.flush()
}

fn by_pipeline(input: &str, output: &str) -> Result<PipelineResult, RunError> {
    let p = Pipeline::new();
    p.apply(ReadText::from(input))
        .par_do_with("Split", |line: String, ctx: &mut Context<'_, String>| {
            line.split_whitespace()
                .for_each(|word| ctx.output(word.to_owned()));
            Ok(())
        })
        .apply(Count::per_element())
        .map("Format", |(word, count): (String, u64)| {
            format!("{word}: {count}")
        })
        .apply(WriteText::to(output).without_sharding());
    p.run(&PipelineOptions::default())
}

#[cfg(feature = "peers")]
fn by_ironbeam(input: &Path, output: &Path, parallel: bool) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<String> = BufReader::new(File::open(input)?)
        .lines()
        .collect::<std::io::Result<_>>()?;
    let p = ironbeam::Pipeline::default();
    let counts = ironbeam::from_vec(&p, lines)
        .flat_map(|line: &String| line.split_whitespace().map(str::to_owned).collect())
        .count_per_element();
    let counts = match parallel {
        true => counts.collect_par(None, None)?,
        false => counts.collect_seq()?,
    };
    let mut out = BufWriter::new(File::create(output)?);
    for (word, count) in &counts {
        writeln!(out, "{word}: {count}")?;
    }
    Ok(out.flush()?)
}

fn sorted_lines(path: &Path) -> std::io::Result<Vec<String>> {
    let mut lines: Vec<String> = std::fs::read_to_string(path)?
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    Ok(lines)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words = setting("WORDS", 5_000_000);
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let input = at("words.txt");
    write_text(&input, words)?;
    let size = std::fs::metadata(&input)?.len() as f64 / 1e6;

    #[allow(unused_mut)]
    let mut programs: Vec<Program<'_>> = vec![
        (
            "loop, 1 thread",
            Box::new(|| by_hand(&input, &at("loop.txt")).expect("the loop runs")),
        ),
        (
            "pipeline",
            Box::new(|| {
                let (input, output) = (
                    input.display().to_string(),
                    at("pipeline.txt").display().to_string(),
                );
                by_pipeline(&input, &output).expect("the pipeline runs");
            }),
        ),
    ];
    #[cfg(feature = "peers")]
    programs.extend([
        (
            "ironbeam, sequential",
            Box::new(|| by_ironbeam(&input, &at("sequential.txt"), false).expect("ironbeam runs"))
                as Box<dyn FnMut()>,
        ),
        (
            "ironbeam, parallel",
            Box::new(|| by_ironbeam(&input, &at("parallel.txt"), true).expect("ironbeam runs")),
        ),
    ]);
    compare(&format!("count of {words} words, {size:.1} MB"), programs);

    let mut counted: Option<Vec<String>> = None;
    for name in ["loop.txt", "pipeline.txt", "sequential.txt", "parallel.txt"] {
        if at(name).exists() {
            let lines = sorted_lines(&at(name))?;
            if counted.as_ref().is_some_and(|counted| *counted != lines) {
                return Err(format!("the counts in {name} differ from the others").into());
            }
            counted = Some(lines);
        }
    }
    Ok(())
}
