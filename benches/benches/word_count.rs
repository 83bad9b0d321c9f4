//! Counts the words of a file: a loop over a hash map against a pipeline in this process.
//!
//! Both read the same file, count, and write the counts to a file. `WORDS=5000000` and `ROUNDS=5` change the defaults,
//! `ONLY=pipeline` or `ONLY=loop` runs one of the two, for a profiler.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use purlin::prelude::*;
use purlin_benches::{Numbers, in_turn};

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

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
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
    let rounds = setting("ROUNDS", 5) as usize;
    let only = std::env::var("ONLY").unwrap_or_default();
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let input = at("words.txt");
    write_text(&input, words)?;
    let size = std::fs::metadata(&input)?.len() as f64 / 1e6;

    let mut by_hand = || by_hand(&input, &at("loop.txt")).expect("the loop runs");
    let mut by_pipeline = || {
        by_pipeline(
            &input.display().to_string(),
            &at("pipeline.txt").display().to_string(),
        )
        .expect("the pipeline runs");
    };
    match &only[..] {
        "loop" => {
            in_turn(rounds, &mut [&mut by_hand]);
            return Ok(());
        }
        "pipeline" => {
            let runs = in_turn(rounds, &mut [&mut by_pipeline]);
            println!(
                "pipeline {:.3} s, peak {} MiB",
                runs[0].median(),
                runs[0].peak_kib / 1024
            );
            return Ok(());
        }
        _ => {}
    }
    let runs = in_turn(rounds, &mut [&mut by_hand, &mut by_pipeline]);
    let (expected, counted) = (sorted_lines(&at("loop.txt"))?, sorted_lines(&at("pipeline.txt"))?);
    if expected != counted {
        return Err("the pipeline's counts differ from the loop's".into());
    }
    let threads = std::thread::available_parallelism()?;
    println!(
        "word count: {words} words, {} different, {size:.1} MB; median of {rounds}",
        expected.len()
    );
    for (name, runs) in ["loop, 1 thread", "pipeline"].iter().zip(&runs) {
        let times: Vec<String> = runs
            .times
            .iter()
            .map(|time| format!("{:.3}", time.as_secs_f64()))
            .collect();
        println!(
            "  {name:15} {:.3} s  peak {:4} MiB  ({})",
            runs.median(),
            runs.peak_kib / 1024,
            times.join(" ")
        );
    }
    println!(
        "  the pipeline, on {threads} threads, takes {:.2} times as long",
        runs[1].median() / runs[0].median()
    );
    Ok(())
}
