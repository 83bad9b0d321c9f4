//! Environments against real processes and pools.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use purlin_proto::{pipeline, urns};
use tokio::sync::oneshot;

use super::{EnvironmentSettings, Environments};
use crate::fnapi::{FnApiServer, FnApiSettings};
use crate::worker::{StartWorker, WorkerFactory};

/// An hour, which no test awaits: what has to come before the deadline comes, however busy the machine is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

async fn reason(environment: pipeline::Environment) -> String {
    let server = Arc::new(FnApiServer::bind(FnApiSettings::default()).await.unwrap());
    let settings = EnvironmentSettings {
        connect_timeout: CONNECT_TIMEOUT,
    };
    let request = StartWorker {
        worker_id: "w".into(),
        environment_id: "env".into(),
        environment,
        pipeline_options: Default::default(),
        job_id: "job".into(),
        retrieval_token: String::new(),
    };
    let started = Environments::new(server, settings).start(request).await;
    started.err().expect("no worker can come of this").to_string()
}

/// Starts a process that writes its last words, then opens a FIFO for writing and holds it. When it has, lets the
/// deadline pass. Returns the reason, and what tells when the FIFO's last writer has ended.
async fn reason_at_the_deadline(body: impl Fn(&str) -> String) -> (String, oneshot::Receiver<()>) {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let boot = script(&dir, &body(fifo.to_str().unwrap()));
    let (opened, mut is_open) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    // A thread of its own: one of tokio's would keep time from passing.
    std::thread::spawn(move || {
        let mut file = std::fs::File::open(fifo).unwrap();
        let _ = opened.send(());
        file.read_to_end(&mut Vec::new()).unwrap();
        let _ = ended.send(());
    });
    let started = reason(process(&boot));
    tokio::pin!(started);
    tokio::select! {
        early = &mut started => panic!("it ended before the deadline: {early}"),
        open = &mut is_open => open.unwrap(),
    }
    // From here on time passes whenever nothing else happens.
    tokio::time::pause();
    let reason = started.await;
    tokio::time::resume();
    (reason, end)
}

fn environment(urn: &str, payload: impl Message) -> pipeline::Environment {
    pipeline::Environment {
        urn: urn.into(),
        payload: payload.encode_to_vec().into(),
        ..Default::default()
    }
}

fn process(command: &str) -> pipeline::Environment {
    environment(
        urns::environments::PROCESS,
        pipeline::ProcessPayload {
            command: command.into(),
            ..Default::default()
        },
    )
}

fn script(dir: &tempfile::TempDir, body: &str) -> String {
    let path = dir.path().join("boot");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_process_that_ends_is_reported_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let error = reason(process(&script(
        &dir,
        "echo boot: $1 >&2; echo no module beam; exit 3",
    )))
    .await;
    for part in ["env", "exit status 3", "no module beam", "boot: --id=w"] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
}

#[tokio::test]
async fn a_process_that_never_connects_meets_a_deadline_and_its_group_ends() {
    // The grandchild holds the FIFO's only writing end, so that reading it to its end awaits the grandchild's.
    let (error, end) = reason_at_the_deadline(|fifo| format!("sleep 1000 > {fifo} & wait")).await;
    assert!(error.contains("did not connect"), "{error}");
    let end = tokio::time::timeout(Duration::from_secs(120), end).await;
    assert!(end.is_ok(), "the grandchild lives on");
}

#[tokio::test]
async fn a_worker_that_never_connects_is_reported_with_what_it_said() {
    let (error, _) =
        reason_at_the_deadline(|fifo| format!("echo waiting for the moon; exec sleep 1000 > {fifo}")).await;
    assert!(
        error.contains("did not connect") && error.contains("waiting for the moon"),
        "{error}"
    );
}

#[tokio::test]
async fn several_pools_are_tried_in_turn() {
    let payload = pipeline::ExternalPayload {
        endpoint: Some(pipeline::ApiServiceDescriptor {
            url: "localhost:1, localhost:2".into(),
            authentication: None,
        }),
        ..Default::default()
    };
    let error = reason(environment(urns::environments::EXTERNAL, payload)).await;
    assert!(
        error.contains("localhost:1") && error.contains("localhost:2"),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_started_says_what_to_do() {
    let external = |url: &str| {
        let endpoint = Some(pipeline::ApiServiceDescriptor {
            url: url.into(),
            authentication: None,
        });
        environment(
            urns::environments::EXTERNAL,
            pipeline::ExternalPayload {
                endpoint,
                ..Default::default()
            },
        )
    };
    let docker = pipeline::DockerPayload {
        container_image: "img:1".into(),
    };
    let docker = environment(urns::environments::DOCKER, docker);
    let other_os = pipeline::ProcessPayload {
        command: "x".into(),
        os: "plan9".into(),
        ..Default::default()
    };
    let any = pipeline::AnyOfEnvironmentPayload {
        environments: vec![docker.clone(), process("/no/such/boot")],
    };
    let garbage = pipeline::Environment {
        urn: urns::environments::PROCESS.into(),
        payload: bytes::Bytes::from_static(b"\xff\xff"),
        ..Default::default()
    };
    let cases: Vec<(pipeline::Environment, &[&str])> = vec![
        (external(""), &["--environment_config=HOST:PORT"]),
        (external("localhost:1"), &["localhost:1", "purlin-worker-pool"]),
        (external("a b"), &["HOST:PORT"]),
        (process(""), &["command"]),
        (
            process("/no/such/boot"),
            &["/no/such/boot", "--environment_config"],
        ),
        (environment(urns::environments::PROCESS, other_os), &["plan9"]),
        // Whether this is built with Docker or not, and whether an engine runs or not.
        (docker, &["LOOPBACK"]),
        (
            environment(urns::environments::ANYOF, any),
            &[
                "none of its environments",
                "beam:env:docker:v1: ",
                "/no/such/boot",
            ],
        ),
        (garbage, &["no valid beam:env:process:v1"]),
        (environment("beam:env:moon:v1", ()), &["beam:env:moon:v1"]),
        (pipeline::Environment::default(), &["no URN"]),
    ];
    for (environment, parts) in cases {
        let error = reason(environment).await;
        for part in parts {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
    }
}
