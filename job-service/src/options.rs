//! The command line: Purlin's options, and Prism's under Prism's names and in Go's spelling.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use purlin_net::MAX_MESSAGE_BYTES;

/// In what form log lines go to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// For people.
    #[default]
    Dev,
    /// One JSON object a line, with the fields that Beam's SDKs read of Prism's log.
    Json,
    /// `key=value` pairs.
    Text,
}

/// An environment in which a worker is code of the client's choice, run on the service's own machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum OwnMachine {
    /// A command, with Beam's Python option `SUBPROCESS_SDK` too.
    Process,
    /// A container.
    Docker,
}

#[derive(Debug, Parser)]
#[command(
    name = "purlin-job-service",
    about = "Runs Apache Beam pipelines that any Beam SDK submits.",
    after_help = "Names may be written with dashes or underscores, after one dash or two. With --job_port given, the \
                  other ports are free ones unless given too.",
    version
)]
struct Args {
    /// Port of the Job Service; 0 takes a free one [default: 8099]
    #[arg(long = "job_port", value_name = "PORT")]
    job_port: Option<u16>,
    /// Port of the artifact service; 0 takes a free one [default: 8098]
    #[arg(long = "artifact_port", value_name = "PORT")]
    artifact_port: Option<u16>,
    /// Port of the expansion service; 0 takes a free one [default: 8097]
    #[arg(long = "expansion_port", value_name = "PORT")]
    expansion_port: Option<u16>,
    /// Port of the Fn API, to which workers connect; 0 takes a free one
    #[arg(long = "worker_port", value_name = "PORT", default_value_t = 0)]
    worker_port: u16,
    /// Port of the web page; 0 takes a free one [default: 8074]
    #[arg(long = "web_port", value_name = "PORT")]
    web_port: Option<u16>,
    /// Host or address to listen on; 0.0.0.0 for all
    #[arg(long = "host", default_value = "localhost")]
    host: String,
    /// Host that clients and workers are told, where they cannot reach the service by --host
    #[arg(long = "advertised_host", value_name = "HOST")]
    advertised_host: Option<String>,
    /// Further names under which the web port may be asked, with commas between; addresses, this machine's name, --host and
    /// --advertised_host always are. Others are refused: a page from elsewhere could be asking
    #[arg(long = "allowed_hosts", value_name = "NAMES", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    /// Environments that jobs of clients on other machines may use, though they run what the client names on this one:
    /// PROCESS, DOCKER or both with a comma between [default: none]
    #[arg(
        long = "allow_environments",
        value_name = "NAMES",
        value_delimiter = ',',
        value_enum,
        ignore_case = true
    )]
    allow_environments: Vec<OwnMachine>,
    /// The largest message taken of a client, such as a pipeline with its options: bytes, or with K, M or G. Elements are not
    /// bound by it
    #[arg(long = "max_message_size", value_name = "BYTES", default_value = "64M", value_parser = purlin_net::bytes_of)]
    max_message_size: u64,
    /// How long a job may be prepared without being run (the staging of its artifacts aside), until it is forgotten with its
    /// artifacts; negative: for ever
    #[arg(long = "prepared_job_timeout", default_value = "30m", value_name = "DURATION", value_parser = duration)]
    #[arg(allow_hyphen_values = true)]
    prepared_job_timeout: GoDuration,
    /// Serve the web page, /health and /jobs [default: true]
    #[arg(long = "serve_http", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    serve_http: Option<bool>,
    /// debug, info, warn or error, or a filter such as info,purlin_runner=debug
    #[arg(long = "log_level", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    /// Form of the log
    #[arg(long = "log_kind", value_enum, default_value_t, value_name = "KIND")]
    log_kind: LogKind,
    /// End when no job has run for this long, such as 90s, 5m or 1h30m; negative: never
    #[arg(long = "idle_shutdown_timeout", default_value = "-1ns", value_name = "DURATION", value_parser = duration)]
    #[arg(allow_hyphen_values = true)]
    idle_shutdown_timeout: GoDuration,
    /// How long a worker may take to connect after it was started
    #[arg(long = "worker_connect_timeout", default_value = "2m", value_name = "DURATION", value_parser = duration)]
    worker_connect_timeout: GoDuration,
    /// How long a worker may leave a progress request unanswered, until it counts as lost and its bundles run elsewhere;
    /// negative: for ever
    #[arg(long = "worker_hang_timeout", default_value = "5m", value_name = "DURATION", value_parser = duration)]
    #[arg(allow_hyphen_values = true)]
    worker_hang_timeout: GoDuration,
    /// How long workers are kept when their job has ended, for a next job with the same environment, artifacts and options
    /// (its name aside); 0: not at all
    #[arg(long = "worker_idle_timeout", default_value = "0", value_name = "DURATION", value_parser = duration)]
    worker_idle_timeout: GoDuration,
    /// Folder for staged artifacts; by default one among the temporary files that ends with the service. Built with the feature
    /// object-store, a URL of an object store too, such as s3://bucket/folder; its settings are in the environment (AWS_REGION,
    /// GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME and others)
    #[arg(long = "artifacts_dir", value_name = "FOLDER")]
    artifacts_dir: Option<PathBuf>,
    /// Remove a job's artifacts when it ends, unless another needs them; without it they stay for the next job
    #[arg(long = "clean_artifacts_per_job", num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    clean_artifacts_per_job: bool,
    /// Run jobs on a Flink cluster: HOST:PORT or URL of its REST API, several with commas between. A job's pipeline option
    /// flink_master names another one, or [local], which runs it in this service. A user's name and password may be in the URL;
    /// PURLIN_FLINK_TOKEN is sent as a bearer's token, and PURLIN_FLINK_CA names a file of certificates to trust
    #[arg(long = "flink_master", value_name = "MASTERS")]
    flink_master: Option<String>,
    /// Beam's job server for that Flink (beam-runners-flink-VERSION-job-server-VERSION.jar), or a folder of such, whose newest
    /// for the cluster's version is taken; by default the folder in which Beam's Python SDK keeps them
    #[arg(long = "flink_job_server_jar", value_name = "PATH")]
    flink_job_server_jar: Option<PathBuf>,
    /// Where that jar lies on each machine of the cluster: jobs are sent without it
    #[arg(long = "flink_jar_on_cluster", value_name = "PATH")]
    flink_jar_on_cluster: Option<String>,
}

/// What the service is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of the Job Service; 0 is a free one.
    pub job_port: u16,
    /// Port of the artifact services; 0 is a free one.
    pub artifact_port: u16,
    /// Port of the expansion service; 0 is a free one.
    pub expansion_port: u16,
    /// Port of the Fn API; 0 is a free one.
    pub worker_port: u16,
    /// Port of the web page, if it is served; 0 is a free one.
    pub web_port: Option<u16>,
    /// Host or address to listen on.
    pub host: String,
    /// Host that clients and workers are told, if not `host`.
    pub advertised_host: Option<String>,
    /// Further names under which the web port may be asked.
    pub allowed_hosts: Vec<String>,
    /// What jobs of clients on other machines may run on this one.
    pub allow_environments: Vec<OwnMachine>,
    /// Bytes of the largest message taken of a client.
    pub max_message_size: usize,
    /// How long a job may be prepared without being run; none: for ever.
    pub prepared_job_timeout: Option<Duration>,
    /// A level or filter for the log.
    pub log_level: String,
    /// Form of the log.
    pub log_kind: LogKind,
    /// End after so long without a job.
    pub idle_shutdown: Option<Duration>,
    /// How long a worker may take to connect.
    pub worker_connect_timeout: Duration,
    /// How long a worker may leave a progress request unanswered; none: for ever.
    pub worker_hang_timeout: Option<Duration>,
    /// How long workers are kept for a next job; none: they end with their job.
    pub worker_idle_timeout: Option<Duration>,
    /// Folder for staged artifacts, or URL of an object store, if not a temporary folder.
    pub artifacts_dir: Option<PathBuf>,
    /// Whether a job's artifacts go when it ends.
    pub clean_artifacts_per_job: bool,
    /// The Flink cluster that runs jobs which say nothing else: addresses of its REST API with commas between.
    pub flink_master: Option<String>,
    /// Beam's job server for Flink, or a folder of such.
    pub flink_job_server_jar: Option<PathBuf>,
    /// Where it lies on each machine of the cluster, if it does.
    pub flink_jar_on_cluster: Option<String>,
}

impl Default for Options {
    /// Free ports on localhost, no web page: what a test or an embedding program wants.
    fn default() -> Self {
        Self {
            job_port: 0,
            artifact_port: 0,
            expansion_port: 0,
            worker_port: 0,
            web_port: None,
            host: "localhost".into(),
            advertised_host: None,
            allowed_hosts: Vec::new(),
            allow_environments: Vec::new(),
            max_message_size: 64 << 20,
            prepared_job_timeout: Some(Duration::from_secs(1800)),
            log_level: "info".into(),
            log_kind: LogKind::default(),
            idle_shutdown: None,
            worker_connect_timeout: Duration::from_secs(120),
            worker_hang_timeout: Some(Duration::from_secs(300)),
            worker_idle_timeout: None,
            artifacts_dir: None,
            clean_artifacts_per_job: true,
            flink_master: None,
            flink_job_server_jar: None,
            flink_jar_on_cluster: None,
        }
    }
}

impl Options {
    /// Reads a command line, the program's name first.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args = Args::try_parse_from(spell(args))?;
        let others = if args.job_port.is_some() { None } else { Some(()) };
        let port = |given: Option<u16>, default: u16| given.or(others.map(|()| default)).unwrap_or(0);
        Ok(Self {
            job_port: args.job_port.unwrap_or(8099),
            artifact_port: port(args.artifact_port, 8098),
            expansion_port: port(args.expansion_port, 8097),
            worker_port: args.worker_port,
            web_port: args.serve_http.unwrap_or(true).then(|| port(args.web_port, 8074)),
            host: args.host,
            advertised_host: args.advertised_host,
            allowed_hosts: args.allowed_hosts,
            allow_environments: args.allow_environments,
            // What is more cannot be passed by gRPC.
            max_message_size: usize::try_from(args.max_message_size)
                .map_or(MAX_MESSAGE_BYTES, |bytes| bytes.min(MAX_MESSAGE_BYTES)),
            prepared_job_timeout: args.prepared_job_timeout.0,
            log_level: args.log_level,
            log_kind: args.log_kind,
            idle_shutdown: args.idle_shutdown_timeout.0,
            worker_connect_timeout: args.worker_connect_timeout.0.unwrap_or(Duration::MAX),
            worker_hang_timeout: args.worker_hang_timeout.0,
            worker_idle_timeout: args.worker_idle_timeout.0.filter(|timeout| !timeout.is_zero()),
            artifacts_dir: args.artifacts_dir,
            clean_artifacts_per_job: args.clean_artifacts_per_job,
            flink_master: args.flink_master.filter(|masters| !masters.trim().is_empty()),
            flink_job_server_jar: args.flink_job_server_jar,
            flink_jar_on_cluster: args.flink_jar_on_cluster,
        })
    }
}

/// Makes two dashes of one, and underscores of the dashes within a name.
fn spell(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut after_options = false;
    let spelled = args.into_iter().enumerate().map(|(i, arg)| {
        let Some(text) = arg.to_str() else { return arg };
        if text == "--" {
            after_options = true;
        }
        let Some(rest) = text.strip_prefix('-') else {
            return arg;
        };
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let named = rest.len() > 1 && rest.starts_with(|c: char| c.is_ascii_alphabetic());
        if i == 0 || after_options || !named {
            return arg;
        }
        let (name, value) = rest.split_once('=').map_or((rest, None), |(n, v)| (n, Some(v)));
        let name = name.replace('-', "_");
        match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        }
    });
    spelled.collect()
}

/// A duration as Go writes it; none if negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GoDuration(Option<Duration>);

fn duration(text: &str) -> Result<GoDuration, String> {
    let wrong = || format!("{text:?} is no duration; write one like 90s, 5m or 1h30m");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(GoDuration((!negative).then_some(Duration::ZERO)));
    }
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    Ok(GoDuration((!negative).then_some(duration)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::from_args(
            std::iter::once("purlin-job-service")
                .chain(line.split_whitespace())
                .map(OsString::from),
        )
    }

    #[test]
    fn ports_have_their_defaults_unless_the_job_port_is_given() {
        let o = parse("").unwrap();
        assert_eq!(
            (o.job_port, o.artifact_port, o.expansion_port, o.web_port),
            (8099, 8098, 8097, Some(8074))
        );
        let o = parse("--job_port 5001 --serve_http=false").unwrap();
        assert_eq!(
            (o.job_port, o.artifact_port, o.expansion_port, o.web_port),
            (5001, 0, 0, None)
        );
        let o = parse("--artifact-port=7").unwrap();
        assert_eq!((o.job_port, o.artifact_port, o.expansion_port), (8099, 7, 8097));
    }

    #[test]
    fn prisms_spellings_are_taken() {
        let o = parse("-job_port=5 -serve_http -web_port 9 -log_kind json --log-level debug").unwrap();
        assert_eq!(
            (o.job_port, o.web_port, o.log_kind, o.log_level.as_str()),
            (5, Some(9), LogKind::Json, "debug")
        );
        assert_eq!(
            parse("--idle_shutdown_timeout=1h30m").unwrap().idle_shutdown,
            Some(Duration::from_secs(5400))
        );
        assert_eq!(parse("-idle_shutdown_timeout -1ns").unwrap().idle_shutdown, None);
        let o =
            parse("--allow-environments=process,DOCKER --allowed_hosts a,b --max_message_size=100M").unwrap();
        assert_eq!(o.allow_environments, [OwnMachine::Process, OwnMachine::Docker]);
        assert_eq!((o.allowed_hosts.len(), o.max_message_size), (2, 100 << 20));
        assert!(parse("").unwrap().allow_environments.is_empty());
        assert!(parse("--allow_environments=EXTERNAL").is_err());
        assert_eq!(parse("").unwrap().worker_idle_timeout, None);
        assert_eq!(
            parse("--worker_idle_timeout=10m").unwrap().worker_idle_timeout,
            Some(Duration::from_secs(600))
        );
        assert_eq!(
            parse("-idle-shutdown-timeout=250ms").unwrap().idle_shutdown,
            Some(Duration::from_millis(250))
        );
    }

    #[test]
    fn wrong_options_are_errors_that_help() {
        let error = parse("--jobport=5").unwrap_err().to_string();
        assert!(error.contains("--job_port"), "{error}");
        for wrong in [
            "--job_port=x",
            "--job_port=70000",
            "--log_kind=xml",
            "--idle_shutdown_timeout=5",
            "stray",
        ] {
            assert!(parse(wrong).is_err(), "{wrong} was taken");
        }
    }
}
