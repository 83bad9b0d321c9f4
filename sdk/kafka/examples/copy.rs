//! Copies the records of topics to another topic, each with its key, headers and time.
//!
//! ```text
//! cargo run --release -p purlin-kafka --example copy -- --brokers=localhost:9092 --from=orders --to=orders-copy --to_end
//! ```

use std::time::Duration;

use purlin::clap;
use purlin::prelude::*;
use purlin_kafka::{KafkaMessage, ReadKafka, WriteKafka};

/// Copies the records of topics to another topic of the same cluster.
#[derive(clap::Parser)]
struct Options {
    /// Addresses of brokers, HOST:PORT, with commas between them
    #[arg(long, default_value = "localhost:9092")]
    brokers: String,
    /// A topic that is read; may be given several times
    #[arg(long, required = true)]
    from: Vec<String>,
    /// The topic that is written
    #[arg(long)]
    to: String,
    /// The group whose offsets are committed, and where the reading begins
    #[arg(long)]
    group: Option<String>,
    /// Copy what is there, and end
    #[arg(long)]
    to_end: bool,
    /// Write each record once, by transactions with names that begin so
    #[arg(long)]
    exactly_once: Option<String>,
    /// So many transactions at a time, where each record is written once
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// How many seconds an answer may take
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// For how many seconds no broker may be reached
    #[arg(long, default_value_t = 300)]
    max_outage: u64,
    /// A setting of the client, NAME=VALUE; may be given several times
    #[arg(long)]
    property: Vec<String>,
    #[command(flatten)]
    pipeline: PipelineOptions,
}

fn main() {
    let options: Options = purlin::options::parse();
    if let Err(error) = copy(&options) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn copy(options: &Options) -> Result<(), BoxError> {
    let mut read = ReadKafka::new(&options.brokers)
        .topics(&options.from)
        .timeout(Duration::from_secs(options.timeout))
        .max_outage(Duration::from_secs(options.max_outage));
    let mut write = WriteKafka::new(&options.brokers).topic(&options.to);
    for property in &options.property {
        let (name, value) = property
            .split_once('=')
            .ok_or_else(|| format!("--property={property} has no \"=\": give NAME=VALUE"))?;
        read = read.property(name, value);
        write = write.property(name, value);
    }
    if let Some(group) = &options.group {
        read = read.group(group);
    }
    if options.to_end {
        read = read.to_end();
    }
    if let Some(id) = &options.exactly_once {
        write = write.exactly_once(id, options.shards);
    }
    let p = Pipeline::new();
    p.apply(read).map("Message", KafkaMessage::from).apply(write);
    let result = p.run(&options.pipeline)?;
    println!("{} records", result.metrics().counter("kafka", "records_written"));
    Ok(())
}
