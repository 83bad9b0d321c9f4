use clap::{CommandFactory, Parser};
use expect_test::expect;
use prost_types::value::Kind;
use purlin_proto::pipeline as beam;

use super::*;

/// Counts words.
#[derive(Debug, Parser)]
#[command(name = "wordcount", term_width = 100)]
struct Options {
    /// Files to read
    #[arg(long = "input_files", default_value = "*.txt")]
    input: String,
    /// Print less
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    pipeline: PipelineOptions,
}

fn parsed(line: &str) -> Result<Options, clap::Error> {
    try_parse_from(std::iter::once("wordcount").chain(line.split_whitespace()))
}

fn pipeline(line: &str) -> PipelineOptions {
    parsed(line).unwrap().pipeline
}

#[test]
fn dashes_and_underscores_are_the_same_and_values_stand_either_way() {
    for line in [
        "--job_endpoint=h:1 --input_files=a",
        "--job-endpoint=h:1 --input-files=a",
        "--job-endpoint h:1 --input_files a",
    ] {
        let options = parsed(line).unwrap();
        assert_eq!(
            (options.pipeline.job_endpoint.as_deref(), options.input.as_str()),
            (Some("h:1"), "a"),
            "{line}"
        );
    }
    assert_eq!(
        parsed("--input_files=a-b_c").unwrap().input,
        "a-b_c",
        "values stay as they are"
    );
}

#[test]
fn runners_and_environments_are_found_in_any_case() {
    for (line, runner) in [
        ("", RunnerKind::Direct),
        ("--runner=PortableRunner", RunnerKind::Portable),
        ("--runner=FlinkRunner", RunnerKind::Flink),
        ("--runner portablerunner", RunnerKind::Portable),
        ("--runner=PRISMRUNNER", RunnerKind::Prism),
        ("--runner=direct", RunnerKind::Direct),
    ] {
        assert_eq!(pipeline(line).runner, runner, "{line}");
    }
    assert_eq!(
        pipeline("--environment_type=loopback").environment_type,
        Some(EnvironmentType::Loopback)
    );
}

#[test]
fn lists_and_switches() {
    let options = pipeline("--experiments=a,b=2 --experiments c --streaming");
    assert_eq!(options.experiments, ["a", "b=2", "c"]);
    assert_eq!(
        (
            options.experiment("b"),
            options.experiment("c"),
            options.experiment("d")
        ),
        (Some("2"), Some(""), None)
    );
    assert!(options.streaming);
    assert!(!pipeline("--streaming=false").streaming);
}

#[test]
fn an_empty_command_line_gives_the_defaults() {
    let (a, b) = (pipeline(""), PipelineOptions::default());
    let show = |options: &PipelineOptions| {
        format!(
            "{:?}",
            PipelineOptions {
                parsed: Parsed::default(),
                ..options.clone()
            }
        )
    };
    assert_eq!(show(&a), show(&b));
    assert!(b.direct_workers() >= 1);
    assert_eq!(pipeline("--direct_num_workers=3").direct_workers(), 3);
}

/// What the program does not have may be the runner's, which is asked when the pipeline is submitted.
#[test]
fn options_that_are_not_known_are_the_runners() {
    for runner in ["PortableRunner", "prism"] {
        let line = format!(
            "--input_files=a --parallelism=2 --runner={runner} --object-reuse --job_name x --object-reuse"
        );
        let options = parsed(&line).unwrap();
        assert_eq!(
            options.pipeline.runner_options,
            ["parallelism=2", "object-reuse", "object-reuse"]
        );
        assert_eq!(options.input, "a");
        assert_eq!(options.pipeline.job_name.as_deref(), Some("x"));
        // A worker is launched with the same command line.
        let again = crate::harness::grpc::options::launched_with(&options.pipeline.to_struct()).unwrap();
        let again: Options = try_parse_from(std::iter::once("worker".to_owned()).chain(again)).unwrap();
        assert_eq!(again.pipeline.runner_options, options.pipeline.runner_options);
    }
    for line in [
        "--parallelism=2",
        "--runner=DirectRunner --parallelism=2",
        "--runner=portable -p",
        "--runner=portable word",
    ] {
        let error = parsed(line).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "{line}");
    }
}

/// A program that hands arguments on takes all that it is given.
#[test]
fn programs_that_take_any_argument_keep_theirs() {
    #[derive(Debug, Parser)]
    struct Wrapper {
        #[command(flatten)]
        pipeline: PipelineOptions,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    }
    let line = ["wrapper", "--runner=portable", "ls", "--all"];
    let options: Wrapper = try_parse_from(line).unwrap();
    assert_eq!(options.command, ["ls", "--all"]);
    assert!(options.pipeline.runner_options.is_empty());
}

#[test]
fn unknown_options_suggest_the_nearest() {
    let said = |line: &str| parsed(line).unwrap_err().to_string();
    expect![[r#"
        error: unexpected argument '--job-endpont' found

          tip: a similar argument exists: '--job_endpoint'

        Usage: wordcount --job_endpoint <HOST:PORT>

        For more information, try '--help'.
    "#]]
    .assert_eq(&said("--job-endpont=x"));
    expect![[r#"
        error: invalid value 'FlinkRuner' for '--runner <RUNNER>'
          [possible values: DirectRunner, PortableRunner, PrismRunner, FlinkRunner]

          tip: a similar value exists: 'FlinkRunner'

        For more information, try '--help'.
    "#]]
    .assert_eq(&said("--runner=FlinkRuner"));
    assert!(said("--inputfiles=x").contains("--input_files"));
    assert!(said("--job_server_timeout=0").contains("0 is not in 1.."));
    assert_eq!(parsed("--nothing-like-it").unwrap_err().exit_code(), 2);
}

#[test]
fn help_reads_well() {
    let help = Options::command().render_help().to_string();
    expect![[r#"
        Counts words

        Usage: wordcount [OPTIONS]

        Options:
              --input_files <INPUT>  Files to read [default: *.txt]
              --quiet                Print less
          -h, --help                 Print help

        Pipeline options:
              --runner <RUNNER>
                  Who runs the pipeline: DirectRunner (in this process), PortableRunner (a Beam job
                  service), PrismRunner (one that is started for it, unless --job_endpoint names one) or
                  FlinkRunner (a Flink cluster, --flink_master). All but the first may have options of their
                  own, as --NAME=VALUE: what this list does not have is taken for theirs, and refused if
                  they do not have it [default: DirectRunner]
              --job_endpoint <HOST:PORT>
                  Address of the job service as HOST:PORT; PortableRunner's default is localhost:8099
              --artifact_endpoint <HOST:PORT>
                  Address to stage artifacts at; the one that the job service names by default
              --environment_type <TYPE>
                  Where a job service runs this program's code: LOOPBACK (this process, the default),
                  EXTERNAL (a worker pool), PROCESS or DOCKER
              --environment_config <CONFIG>
                  For EXTERNAL the pool's address, for DOCKER the image, for PROCESS a command or JSON with
                  "command", "env", "os" and "arch" (this program by default)
              --environment_options <NAME=VALUE>
                  The same by name, repeatable: external_service_address=, docker_container_image=,
                  process_command= or process_variables=A=1,B=2. Further ones for containers:
                  docker_network= (host or bridge), docker_pull= (missing, always or never), docker_user=,
                  docker_env=A=1, docker_memory=2G, docker_cpus=1.5 [alias: --environment_option]
              --docker_mounts <MOUNTS>
                  Folders and files for DOCKER workers, besides those that the options name:
                  SOURCE[:TARGET][:ro], comma-separated or repeated [alias: --docker_mount]
              --job_name <NAME>
                  Name of the job in the job service; the program's name by default
              --sdk_worker_parallelism <N>
                  Workers that a job service starts per environment; 0 lets it choose [default: 1]
              --max_attempts <N>
                  How often a bundle is tried before the pipeline fails; 0 is endlessly [default: 4]
              --direct_num_workers <N>
                  Threads of the DirectRunner; 0 is one per core [default: 0]
              --state_port <PORT>
                  Port of this machine on which the DirectRunner lets queryable state be read while the
                  pipeline runs; 0 takes a free one
              --experiments <NAMES>
                  Experiments for the runner, comma-separated or repeated [alias: --experiment]
              --streaming[=<BOOL>]
                  Tell the job service that this is a streaming pipeline
              --job_server_timeout <SECONDS>
                  Seconds that a job service may take to answer a request (not: to run the job) [default:
                  300]
              --flink_master <MASTERS>
                  FlinkRunner's cluster: HOST:PORT or URL of its REST API, several with commas between
              --flink_job_server_jar <PATH>
                  Beam's job server for that Flink, which is sent along with the job, or a folder of such;
                  by default the folder in which Beam's Python SDK keeps them
              --prism_location <FILE>
                  The job service that PrismRunner and FlinkRunner start; purlin-job-service, next to this
                  program or on the PATH, by default
    "#]]
    .assert_eq(&help);
}

#[test]
fn a_worker_reads_the_same_options_again() {
    let options =
        parsed("--input-files=a --quiet --runner portable --experiments=x,y --sdk_worker_parallelism=2")
            .unwrap();
    let all = options.pipeline.to_struct();
    let text = |name: &str| match &all.fields[&proto::key(name)].kind {
        Some(Kind::StringValue(text)) => text.clone(),
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(text("input_files"), "a");
    assert_eq!(text("runner"), "PortableRunner");
    assert_eq!(text("sdk_worker_parallelism"), "2");
    assert_eq!(
        all.fields["beam:option:quiet:v1"].kind,
        Some(Kind::BoolValue(true))
    );
    assert_eq!(
        proto::read_strings(&all.fields["beam:option:experiments:v1"]).unwrap(),
        ["x", "y"]
    );

    let again = crate::harness::grpc::options::launched_with(&all).unwrap();
    let again: Options = try_parse_from(std::iter::once("worker".to_owned()).chain(again)).unwrap();
    assert_eq!(
        (again.input.as_str(), again.quiet, again.pipeline.runner),
        ("a", true, RunnerKind::Portable)
    );
    assert_eq!(again.pipeline.to_struct(), all);
}

#[test]
fn changes_by_the_program_travel_too() {
    let mut options = pipeline("--streaming --job_name=a");
    options.streaming = false;
    options.job_name = Some("b".into());
    let all = options.to_struct();
    assert_eq!(
        all.fields["beam:option:streaming:v1"].kind,
        Some(Kind::BoolValue(false))
    );
    assert_eq!(all.fields["beam:option:job_name:v1"], proto::string("b"));
}

#[test]
fn options_without_effect_are_noticed() {
    let said = |line: &str| {
        let options = pipeline(line);
        parse::without_effect(options.runner, &options.parsed.inner).join(" ")
    };
    assert_eq!(said("--job_endpoint=x --streaming"), "job_endpoint streaming");
    assert_eq!(
        said("--runner=portable --job_endpoint=x --direct_num_workers=2"),
        "direct_num_workers"
    );
    assert_eq!(said("--runner=prism --prism_location=x"), "");
    assert_eq!(
        said("--runner=prism --prism_location=x --job_endpoint=y"),
        "prism_location"
    );
}

#[test]
fn environments_are_made_of_options() {
    let environment = |arguments: &[&str]| {
        let arguments = std::iter::once("wordcount").chain(arguments.iter().copied());
        try_parse_from::<Options>(arguments)
            .unwrap()
            .pipeline
            .environment()
    };
    assert_eq!(environment(&[]), Ok(EnvironmentChoice::Loopback));
    let pool = |url: &str, params: &[(&str, &str)]| beam::ExternalPayload {
        endpoint: Some(beam::ApiServiceDescriptor {
            url: url.into(),
            authentication: None,
        }),
        params: params
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    };
    assert_eq!(
        environment(&["--environment_type=EXTERNAL", "--environment_config=h:5000"]),
        Ok(EnvironmentChoice::External(pool("h:5000", &[])))
    );
    assert_eq!(
        environment(&[
            "--environment_type=EXTERNAL",
            r#"--environment_config={"url": "h:1", "params": {"a": "b"}}"#
        ]),
        Ok(EnvironmentChoice::External(pool("h:1", &[("a", "b")])))
    );
    let process = beam::ProcessPayload {
        command: "/boot".into(),
        env: [("A".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    for arguments in [
        &[
            "--environment_type=PROCESS",
            r#"--environment_config={"command": "/boot", "env": {"A": "1"}}"#,
        ][..],
        &[
            "--environment_type=PROCESS",
            "--environment_options=process_command=/boot",
            "--environment_option=process_variables=A=1",
        ],
    ] {
        assert_eq!(
            environment(arguments),
            Ok(EnvironmentChoice::Process(process.clone()))
        );
    }
    assert_eq!(
        environment(&["--environment_type=docker", "--environment_config=image:1"]),
        Ok(EnvironmentChoice::Docker(beam::DockerPayload {
            container_image: "image:1".into()
        }))
    );
}

#[test]
fn environments_that_cannot_be_say_what_to_do() {
    let said = |line: &str| pipeline(line).environment().unwrap_err().to_string();
    let mut all = String::new();
    for line in [
        "--environment_config=h:1",
        "--environment_type=EXTERNAL",
        "--environment_type=DOCKER",
        "--environment_type=PROCESS --environment_config={\"command\":1}",
        "--environment_type=PROCESS --environment_config={\"cmd\":1}",
        "--environment_type=PROCESS --environment_config={",
        "--environment_type=PROCESS --environment_options=process_comand=x",
        "--environment_type=PROCESS --environment_options=process_variables=x",
        "--environment_type=EXTERNAL --environment_config=x --environment_options=external_service_address=y",
    ] {
        all += &said(line);
        all.push('\n');
    }
    expect![[r#"
        --environment_config: LOOPBACK needs none; did you mean another --environment_type?
        --environment_type: EXTERNAL needs the address of a worker pool: --environment_config=HOST:PORT, for example of `purlin-worker-pool`, which listens at localhost:5000
        --environment_type: DOCKER needs an image that has this program: --environment_config=IMAGE
        --environment_config: "command" is a text, not 1
        --environment_config: unknown field "cmd"; known are command, env, os, arch
        --environment_config: this is no JSON: EOF while parsing an object at line 1 column 1
        --environment_options: PROCESS has no "process_comand"; it has process_command and process_variables
        --environment_options: process_variables: "x" is not NAME=VALUE
        --environment_options: give these or --environment_config, not both
    "#]].assert_eq(&all);
}
