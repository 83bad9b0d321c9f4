//! Sends rows of numbers through a model behind a server: `ask PROTOCOL URL MODEL [OPTION...] < rows > answers`.
//!
//! A row is a line of numbers between spaces. For each row comes a line: its number from 0, and the answer, or `failed:` and the error.
//! The last line tells the seconds that the pipeline took. The protocols take and give FP64: `kserve`, `kserve-grpc`, and `bento`, whose
//! API has an argument `rows`. Options: `--token=VARIABLE`, `--certificates=FILE`, `--rows=N` in a request, `--concurrency=N`,
//! `--input=NAME`, `--never-on=STATUS`.

use std::error::Error;
use std::io::{self, BufRead};
use std::time::Instant;

use purlin::prelude::*;
use purlin_inference::RunInference;
use purlin_remote::{BentoMl, KServe, Protocol, Remote, Retries, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: ask PROTOCOL URL MODEL [OPTION...] < rows > answers";
    let (Some(protocol), Some(url), Some(name)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(usage.into());
    };
    let (mut server, mut retries, mut rows, mut input) = (Server::at(url), Retries::default(), 32, None);
    for argument in arguments {
        match argument.split_once('=').unwrap_or((&argument, "")) {
            ("--token", variable) => server = server.bearer_from_env(variable),
            ("--certificates", file) => server = server.certificates(file),
            ("--concurrency", count) => server = server.concurrency(count.parse()?),
            ("--rows", count) => rows = count.parse()?,
            ("--input", name) => input = Some(name.to_owned()),
            ("--never-on", status) => retries.never_on.push(status.parse()?),
            _ => return Err(format!("no option {argument}").into()),
        }
    }
    server = server.retries(retries);
    let mut kserve = KServe::<Vec<f64>, Vec<f64>>::model(&name).rows(rows);
    if let Some(input) = input {
        kserve = kserve.input(input);
    }
    match &*protocol {
        "kserve" => ask(Remote::new(server, kserve)),
        "kserve-grpc" => ask(Remote::new(server, kserve.grpc())),
        "bento" => ask(Remote::new(
            server,
            BentoMl::<Vec<f64>, f64>::api(name, "rows").rows(rows),
        )),
        _ => Err(format!("no protocol {protocol}").into()),
    }
}

fn ask<P>(model: Remote<P>) -> Result<(), Box<dyn Error>>
where
    P: Protocol<Example = Vec<f64>>,
    P::Inference: std::fmt::Debug,
{
    let p = Pipeline::new();
    let rows = p.apply(Create::new(read_rows(io::stdin().lock())?));
    let (results, failed) = rows.apply(RunInference::keyed(model).with_dead_letters());
    results.map("Show", |(number, result): (u64, _)| {
        println!("{number} {:?}", result.inference);
    });
    failed.map("ShowFailed", |failed| {
        println!("{} failed: {}", failed.example.0, failed.error);
    });
    let begin = Instant::now();
    p.run(&PipelineOptions::default())?;
    println!("seconds {:.3}", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Rows with their numbers.
type Rows = Vec<(u64, Vec<f64>)>;

fn read_rows(input: impl BufRead) -> Result<Rows, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (number, line) in (0..).zip(input.lines()) {
        let line = line?;
        let row: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        rows.push((number, row?));
    }
    Ok(rows)
}
