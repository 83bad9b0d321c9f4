//! `purlin-models`: lists, adds, verifies and removes models of a store.
#![forbid(unsafe_code)]
#![warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for people"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use purlin_models::{Input, ModelStore, Record, StoreError};

/// Lists, adds, verifies and removes models of a store: a folder, or an object store by its URL
///
/// A model is NAME:VERSION, NAME:latest or NAME, which is the newest version, too.
#[derive(Parser)]
#[command(name = "purlin-models", version)]
struct Options {
    /// The store: a folder, or a URL such as s3://bucket/models
    #[arg(long, global = true, env = "PURLIN_MODEL_STORE", default_value = "models")]
    store: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists all models, or the versions of one
    List {
        /// Its name
        name: Option<String>,
    },
    /// Adds a model file under a name
    ///
    /// What kind of model it is, is told by what it holds: LightGBM's text, ONNX, TorchScript, an AOTInductor package, safetensors, XGBoost's
    /// JSON or UBJSON, PMML, or a zip file of a folder of sentence-transformers.
    Add {
        /// NAME, for the next version number, or NAME:VERSION
        model: String,
        /// The file
        file: PathBuf,
        /// An input that the model must take, NAME:DATATYPE[LENGTH,...] such as x:FP32[-1,4]; can be given more than once
        #[arg(long = "input", value_name = "INPUT")]
        inputs: Vec<Input>,
    },
    /// Checks that models are what was added: all of them, unless some are named
    Verify {
        /// Which
        models: Vec<String>,
    },
    /// Removes versions of models
    Remove {
        /// NAME:VERSION of each
        #[arg(required = true)]
        models: Vec<String>,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("purlin-models: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, StoreError> {
    let store = ModelStore::open(&options.store)?;
    match &options.command {
        Command::List { name } => {
            let all = store.list()?;
            for record in &all {
                if name.as_ref().is_none_or(|name| *name == record.name) {
                    println!("{}", line(record));
                }
            }
            // That there is none of a name is an error, which says what there is.
            if let Some(name) = name {
                store.find(name)?;
            }
        }
        Command::Add { model, file, inputs } => {
            let (name, version) = match model.split_once(':') {
                Some((name, version)) => (name, Some(version)),
                None => (model.as_str(), None),
            };
            println!("{}", line(&store.add(name, version, file, inputs)?));
        }
        Command::Verify { models } => return verify(&store, models),
        Command::Remove { models } => {
            for model in models {
                store.remove(model)?;
                println!("removed {model}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Each is told; one that is not well makes it fail.
fn verify(store: &ModelStore, models: &[String]) -> Result<ExitCode, StoreError> {
    let all: Vec<String> = match models {
        [] => {
            let records = store.list()?;
            let names = records
                .iter()
                .map(|record| format!("{}:{}", record.name, record.version));
            names.collect()
        }
        some => some.to_vec(),
    };
    let mut code = ExitCode::SUCCESS;
    for model in all {
        match store.verify(&model) {
            Ok(record) => println!("{} is well", line(&record)),
            Err(error) => {
                eprintln!("purlin-models: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn line(record: &Record) -> String {
    let inputs: Vec<String> = record.inputs.iter().map(Input::to_string).collect();
    let inputs = match inputs.is_empty() {
        true => "inputs not told".to_owned(),
        false => inputs.join(" "),
    };
    format!(
        "{}:{}  {}  {} bytes  sha256 {}  {inputs}",
        record.name, record.version, record.kind, record.bytes, record.sha256
    )
}
