//! Environments against real processes and pools.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_server::{
    BeamFnExternalWorkerPool, BeamFnExternalWorkerPoolServer,
};
use purlin_proto::{fn_execution as fnapi, pipeline, urns};
use tokio::sync::{mpsc, oneshot};

use super::{EnvironmentSettings, Environments};
use crate::fnapi::{FnApiServer, FnApiSettings, WorkerIdentity, WorkerLog};
use crate::worker::{StartWorker, WorkerError, WorkerFactory};

/// An hour, which no test awaits: what has to come before the deadline comes, however busy the machine is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

/// The worker's id: its name and its token.
const WORKER: &str = "w.0123456789abcdef0123456789abcdef";

/// What the users of jobs are told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl WorkerLog for Told {
    fn log(&self, _: &WorkerIdentity, entry: &fnapi::LogEntry) {
        self.0.lock().push(entry.message.clone());
    }
}

async fn reason(environment: pipeline::Environment) -> String {
    failure(environment, false, false, Arc::default())
        .await
        .to_string()
}

/// The error of a start of which no worker can come.
async fn failure(
    environment: pipeline::Environment,
    loopback: bool,
    had_one: bool,
    told: Arc<Told>,
) -> WorkerError {
    let settings = FnApiSettings {
        log: told,
        ..Default::default()
    };
    let server = Arc::new(FnApiServer::bind(settings).await.unwrap());
    let settings = EnvironmentSettings {
        connect_timeout: CONNECT_TIMEOUT,
    };
    let kind = if loopback { "LOOPBACK" } else { "EXTERNAL" };
    let kind = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(kind.into())),
    };
    let request = StartWorker {
        worker_id: WORKER.into(),
        environment_id: "env".into(),
        environment,
        pipeline_options: prost_types::Struct {
            fields: [("beam:option:environment_type:v1".to_owned(), kind)].into(),
        },
        job_id: "job".into(),
        retrieval_token: String::new(),
        had_one,
    };
    let started = Environments::new(server, settings).start(request).await;
    started.err().expect("no worker can come of this")
}

/// Starts a process that writes its last words, then opens a FIFO for writing and holds it. When it has, lets the
/// deadline pass. Returns the reason, and what tells when the FIFO's last writer has ended.
async fn reason_at_the_deadline(
    body: impl Fn(&str) -> String,
    told: Arc<Told>,
) -> (String, oneshot::Receiver<()>) {
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
    let started = failure(process(&boot), false, false, told);
    tokio::pin!(started);
    tokio::select! {
        early = &mut started => panic!("it ended before the deadline: {early}"),
        open = &mut is_open => open.unwrap(),
    }
    // From here on time passes whenever nothing else happens.
    tokio::time::pause();
    let reason = started.await.to_string();
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
    named_script(dir, "boot", body)
}

fn named_script(dir: &tempfile::TempDir, name: &str, body: &str) -> String {
    let path = dir.path().join(name);
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
async fn a_command_is_split_as_a_shell_does() {
    let dir = tempfile::tempdir().unwrap();
    let boot = script(&dir, "for word; do echo \"[$word]\"; done; exit 3");
    let error = reason(process(&format!("{boot} --python='/my venv/python' x\\ y"))).await;
    for part in ["[--python=/my venv/python]", "[x y]", &format!("[--id={WORKER}]")] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    let error = reason(process(&format!("{boot} 'x"))).await;
    assert!(error.contains("single quotes"), "{error}");
}

#[tokio::test]
async fn a_program_that_knows_the_variable_has_no_token_on_its_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let says = "echo \"$1 $PURLIN_WORKER_ID.\"; exit 3";
    let boot = process(&named_script(&dir, "purlin-boot", says));
    // By its name, or by the word of the SDK that made its environment.
    let mut rust = process(&script(&dir, says));
    rust.capabilities.push(purlin_net::READS_WORKER_ID.into());
    for environment in [boot, rust] {
        let error = reason(environment).await;
        assert!(error.contains(&format!("--id=w {WORKER}.")), "{error}");
    }
}

#[tokio::test]
async fn a_process_that_never_connects_meets_a_deadline_and_its_group_ends() {
    // The grandchild holds the FIFO's only writing end, so that reading it to its end awaits the grandchild's.
    let body = |fifo: &str| format!("sleep 1000 > {fifo} & wait");
    let (error, end) = reason_at_the_deadline(body, Arc::default()).await;
    assert!(error.contains("did not connect"), "{error}");
    let end = tokio::time::timeout(Duration::from_secs(120), end).await;
    assert!(end.is_ok(), "the grandchild lives on");
}

#[tokio::test]
async fn a_worker_that_never_connects_is_reported_with_what_it_said() {
    let told = Arc::new(Told::default());
    let body = |fifo: &str| format!("echo waiting for the moon; exec sleep 1000 > {fifo}");
    let (error, _) = reason_at_the_deadline(body, told.clone()).await;
    assert!(
        error.contains("did not connect") && error.contains("waiting for the moon"),
        "{error}"
    );
    // Long before, the user was told what is waited for.
    let told = told.0.lock().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "waiting for worker w (",
        "/boot",
        "for 5 s",
        "waiting for the moon",
    ] {
        assert!(told[0].contains(part), "{part} is missing in {told:?}");
    }
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

fn external(url: &str) -> pipeline::Environment {
    let endpoint = Some(pipeline::ApiServiceDescriptor {
        url: url.into(),
        authentication: None,
    });
    let payload = pipeline::ExternalPayload {
        endpoint,
        ..Default::default()
    };
    environment(urns::environments::EXTERNAL, payload)
}

/// Promises workers, and starts none.
struct Idle(mpsc::UnboundedSender<()>);

#[tonic::async_trait]
impl BeamFnExternalWorkerPool for Idle {
    async fn start_worker(
        &self,
        _: tonic::Request<fnapi::StartWorkerRequest>,
    ) -> Result<tonic::Response<fnapi::StartWorkerResponse>, tonic::Status> {
        let _ = self.0.send(());
        Ok(tonic::Response::new(Default::default()))
    }

    async fn stop_worker(
        &self,
        _: tonic::Request<fnapi::StopWorkerRequest>,
    ) -> Result<tonic::Response<fnapi::StopWorkerResponse>, tonic::Status> {
        Ok(tonic::Response::new(Default::default()))
    }
}

/// The error of a start at a pool that ends once it has promised the worker.
async fn failure_at_a_pool_that_ends(loopback: bool) -> WorkerError {
    let listener = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    // A runtime of its own, whose end closes what it has open, as the end of a process does.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(
        tonic::transport::Server::builder()
            .add_service(BeamFnExternalWorkerPoolServer::new(Idle(asked)))
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)),
    );
    let end = async {
        was_asked.recv().await;
        runtime.shutdown_background();
        std::future::pending::<()>().await;
    };
    let started = failure(external(&address), loopback, false, Arc::default());
    let started = tokio::time::timeout(Duration::from_secs(120), started);
    tokio::select! {
        error = started => error.expect("its end is not noticed"),
        () = end => unreachable!(),
    }
}

#[tokio::test]
async fn a_pool_that_ends_while_its_worker_starts_is_named_at_once() {
    let error = failure_at_a_pool_that_ends(false).await;
    // Another pool, or this one again, may do better.
    assert!(matches!(error, WorkerError::Died { .. }), "{error:?}");
    assert!(
        error.to_string().contains("ended while the worker started"),
        "{error}"
    );
}

#[tokio::test]
async fn the_end_of_the_program_that_submitted_the_job_is_told_as_that() {
    let error = failure_at_a_pool_that_ends(true).await;
    assert!(matches!(error, WorkerError::SubmitterGone(_)), "{error:?}");
    let error = failure(external("localhost:1"), true, true, Arc::default()).await;
    assert!(matches!(error, WorkerError::SubmitterGone(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("submitted the job is gone") && !text.contains("pool"),
        "{text}"
    );
    // It may never have been there: the job fails.
    let error = failure(external("localhost:1"), true, false, Arc::default()).await;
    assert!(matches!(error, WorkerError::Start { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("another machine") && !text.contains("pool"),
        "{text}"
    );
}

#[tokio::test]
async fn what_cannot_be_started_says_what_to_do() {
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
