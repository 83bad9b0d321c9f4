//! Counts for ever, in state that can be read meanwhile.
//!
//! ```text
//! cargo run -p purlin --example queryable -- --state_port=8074
//! curl 'localhost:8074/jobs/direct/state/Tally/tally?key=even'
//! ```

use std::process::ExitCode;
use std::time::Duration;

use purlin::options::{self, PipelineOptions};
use purlin::prelude::*;

/// Counts for ever.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Numbers in a second
    #[arg(long, default_value_t = 100)]
    rate: u64,
    #[command(flatten)]
    pipeline: PipelineOptions,
}

/// Keeps how many numbers there were, and the last one.
#[derive(Clone)]
struct Tally {
    tally: ValueState<(u64, i64)>,
}

impl StatefulDoFn for Tally {
    type Key = String;
    type Value = i64;
    type Out = i64;
    purlin::fields!(tally);

    fn process(&mut self, _key: String, number: i64, ctx: &mut KeyedContext<'_, i64>) -> DoFnResult {
        let (count, _) = self.tally.read(ctx)?.unwrap_or_default();
        self.tally.write(ctx, &(count + 1, number))
    }
}

fn run(options: &Options) -> Result<PipelineResult, RunError> {
    let p = Pipeline::new();
    p.apply(GenerateSequence::from(0).with_rate(options.rate, Duration::from_secs(1)))
        .map("Key", |number| {
            let key = if number % 2 == 0 { "even" } else { "odd" };
            (key.to_owned(), number)
        })
        .stateful_par_do(
            "Tally",
            Tally {
                tally: ValueState::queryable("tally"),
            },
        );
    p.run(&options.pipeline)
}

fn main() -> ExitCode {
    let options: Options = options::parse();
    match run(&options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
