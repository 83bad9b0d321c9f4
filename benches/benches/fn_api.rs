//! An identity ParDo over the Fn API: what it costs the worker and the job service to pass elements on.
//!
//! Elements go from stage to stage over gRPC, through the job service, with LOOPBACK workers in this process. The same
//! pipeline runs with one identity ParDo and with five: what the other four cost is told, as elements for a second of
//! CPU. `ELEMENTS=5000000` and `ROUNDS=3` change the defaults. The job service is taken from the folder above this
//! program's (`cargo build --release -p purlin-job-service`), the PATH, or `JOB_SERVICE`.

use purlin::options::{PipelineOptions, RunnerKind};
use purlin::prelude::*;
use purlin_benches::{Cpu, median, setting};

const PARTS: i64 = 64;
const FEW: usize = 1;
const MANY: usize = 5;

fn run(elements: i64, steps: usize, options: &PipelineOptions) -> Result<i64, RunError> {
    let passed = Metrics::counter("fn_api", "passed");
    let p = Pipeline::new();
    let mut numbers = p
        .apply(Create::new(0..PARTS))
        .reshuffle("Spread")
        .flat_map("Number", move |part: i64| {
            elements * part / PARTS..elements * (part + 1) / PARTS
        })
        .reshuffle("Pass");
    for step in 0..steps {
        numbers = numbers
            .map(&format!("Identity{step}"), |n| n)
            .reshuffle(&format!("Pass{step}"));
    }
    numbers.map("Count", move |_| passed.inc(1));
    Ok(p.run(options)?.metrics().counter("fn_api", "passed"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (elements, rounds) = (setting("ELEMENTS", 5_000_000) as i64, setting("ROUNDS", 3));
    let options = PipelineOptions {
        runner: RunnerKind::Prism,
        prism_location: std::env::var_os("JOB_SERVICE").map(Into::into),
        ..PipelineOptions::default()
    };
    let mut cpu = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let mut both = Vec::new();
        for steps in [FEW, MANY] {
            let before = Cpu::now().ok_or("this system does not tell CPU times")?;
            let passed = run(elements, steps, &options)?;
            if passed != elements {
                return Err(format!("{passed} of {elements} elements have come").into());
            }
            // The service has ended by now.
            both.push(
                Cpu::now()
                    .ok_or("this system does not tell CPU times")?
                    .since(&before),
            );
        }
        let steps = (MANY - FEW) as f64;
        cpu[0].push((both[1].own - both[0].own) / steps);
        cpu[1].push((both[1].children - both[0].children) / steps);
    }
    println!("identity ParDo over the Fn API, {elements} elements; median of {rounds}");
    let [worker, service] = cpu.map(median);
    for (name, seconds) in [
        ("worker", worker),
        ("job service", service),
        ("both", worker + service),
    ] {
        println!(
            "  {name:12} {:6.0} ns of CPU an element, {:5.2} million elements a second and core",
            seconds / elements as f64 * 1e9,
            elements as f64 / seconds / 1e6
        );
    }
    Ok(())
}
