//! A pool, its harnesses, and a runner of this test.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;
use purlin_proto::fn_execution::beam_fn_logging_server::{BeamFnLogging, BeamFnLoggingServer};
use purlin_proto::fn_execution::provision_service_server::{ProvisionService, ProvisionServiceServer};
use purlin_proto::job_management as jobs;
use purlin_proto::job_management::artifact_retrieval_service_server::{
    ArtifactRetrievalService, ArtifactRetrievalServiceServer,
};
use purlin_proto::pipeline::{self, ApiServiceDescriptor};
use purlin_proto::urns;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::{PoolSettings, WorkerPool};

fn boot(dir: &tempfile::TempDir, body: &str) -> Vec<String> {
    let path = dir.path().join("boot");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    vec![path.display().to_string()]
}

fn settings(dir: &tempfile::TempDir, command: Vec<String>) -> PoolSettings {
    PoolSettings {
        allowed_hosts: Vec::new(),
        host: "localhost".into(),
        port: 0,
        command,
        programs: Default::default(),
        folder: dir.path().join("artifacts"),
        max_workers: 2,
        worker_memory: None,
        worker_cpus: None,
        runner_timeout: None,
    }
}

async fn pool(settings: PoolSettings) -> (WorkerPool, BeamFnExternalWorkerPoolClient<Channel>) {
    let pool = WorkerPool::start(settings).await.unwrap();
    let url = format!("http://{}", pool.address());
    let client = BeamFnExternalWorkerPoolClient::connect(url).await.unwrap();
    (pool, client)
}

fn at(url: &str) -> Option<ApiServiceDescriptor> {
    Some(ApiServiceDescriptor {
        url: url.into(),
        authentication: None,
    })
}

fn start(id: &str) -> api::StartWorkerRequest {
    api::StartWorkerRequest {
        worker_id: id.into(),
        control_endpoint: at("runner:1"),
        ..Default::default()
    }
}

async fn started(
    client: &mut BeamFnExternalWorkerPoolClient<Channel>,
    request: api::StartWorkerRequest,
) -> String {
    client.start_worker(request).await.unwrap().into_inner().error
}

async fn stopped(client: &mut BeamFnExternalWorkerPoolClient<Channel>, id: &str) -> String {
    let stop = api::StopWorkerRequest { worker_id: id.into() };
    client.stop_worker(stop).await.unwrap().into_inner().error
}

/// Reading the FIFO to its end awaits the end of whoever writes to it.
/// The receiver tells when someone has opened it for writing.
fn fifo(dir: &tempfile::TempDir) -> (String, oneshot::Receiver<()>, tokio::task::JoinHandle<String>) {
    let path = dir.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let shown = path.display().to_string();
    let (opened, is_open) = oneshot::channel();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path).unwrap();
        // Not every test waits for it.
        let _ = opened.send(());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    });
    (shown, is_open, read)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

#[tokio::test]
async fn a_worker_gets_its_flags_and_ends_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, opened, said) = fifo(&dir);
    let command = boot(&dir, &format!("(echo $@; exec sleep 100) > {fifo} & wait"));
    let (_pool, mut client) = pool(settings(&dir, command)).await;
    assert_eq!(started(&mut client, start("w")).await, "");
    let again = started(&mut client, start("w")).await;
    assert!(again.contains("already"), "{again}");
    within("the worker", opened).await.unwrap();
    assert_eq!(stopped(&mut client, "w").await, "");
    let said = within("the worker's end", said).await.unwrap();
    assert!(
        said.contains("--id=w") && said.contains("--control_endpoint=runner:1"),
        "{said}"
    );
    let again = stopped(&mut client, "w").await;
    assert!(again.contains("no worker \"w\""), "{again}");
}

#[tokio::test]
async fn a_program_that_knows_the_variable_has_no_token_on_its_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = boot(&dir, "echo \"$1 $PURLIN_WORKER_ID.\"; exit 3");
    let id = "w.0123456789abcdef0123456789abcdef";
    let (_pool, mut client) = pool(settings(&dir, command.clone())).await;
    let error = started(&mut client, start(id)).await;
    assert!(error.contains(&format!("--id={id} .")), "{error}");
    let known = dir.path().join("purlin-boot");
    std::fs::rename(&command[0], &known).unwrap();
    command[0] = known.display().to_string();
    let (_pool, mut client) = pool(settings(&dir, command)).await;
    let error = started(&mut client, start(id)).await;
    assert!(error.contains(&format!("--id=w {id}.")), "{error}");
}

#[tokio::test]
async fn the_pools_end_is_its_workers_end() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, opened, said) = fifo(&dir);
    let (pool, mut client) = pool(settings(&dir, boot(&dir, &format!("exec sleep 100 > {fifo}")))).await;
    assert_eq!(started(&mut client, start("w")).await, "");
    within("the worker", opened).await.unwrap();
    pool.shutdown().await;
    within("the worker's end", said).await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (vec![], "--harness_command"),
        (vec!["/no/such/harness".to_owned()], "/no/such/harness"),
        (boot(&dir, "echo no beam here; exit 4"), "no beam here"),
    ];
    for (command, expected) in cases {
        let (_pool, mut client) = pool(settings(&dir, command)).await;
        let error = started(&mut client, start("w")).await;
        assert!(error.contains(expected), "{expected} is missing in {error}");
    }
    let (_pool, mut client) = pool(settings(&dir, vec!["true".into()])).await;
    let request = api::StartWorkerRequest {
        provision_endpoint: at("localhost:1"),
        ..start("w")
    };
    let error = started(&mut client, request).await;
    assert!(
        error.contains("cannot be reached") && error.contains("localhost:1"),
        "{error}"
    );
}

#[tokio::test]
async fn no_more_workers_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let (_pool, mut client) = pool(settings(&dir, boot(&dir, "exec sleep 100"))).await;
    assert_eq!(started(&mut client, start("a")).await, "");
    assert_eq!(started(&mut client, start("b")).await, "");
    let error = started(&mut client, start("c")).await;
    assert!(error.contains("--max_workers"), "{error}");
    assert_eq!(stopped(&mut client, "a").await, "");
    assert_eq!(started(&mut client, start("c")).await, "");
}

#[tokio::test]
async fn a_lost_runners_worker_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, opened, said) = fifo(&dir);
    let mut settings = settings(&dir, boot(&dir, &format!("exec sleep 100 > {fifo}")));
    settings.runner_timeout = Some(Duration::from_secs(2));
    let (_pool, mut client) = pool(settings).await;
    // Reachable until the worker is there.
    let control = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let request = api::StartWorkerRequest {
        control_endpoint: at(&control.local_addr().unwrap().to_string()),
        ..start("w")
    };
    assert_eq!(started(&mut client, request).await, "");
    within("the worker", opened).await.unwrap();
    drop(control);
    within("the worker's end", said).await.unwrap();
}

/// The runner's side of a worker.
#[derive(Clone)]
struct Runner {
    info: api::ProvisionInfo,
    /// Contents by path.
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    gets: Arc<Mutex<usize>>,
    log: mpsc::UnboundedSender<api::LogEntry>,
}

#[tonic::async_trait]
impl ProvisionService for Runner {
    async fn get_provision_info(
        &self,
        request: Request<api::GetProvisionInfoRequest>,
    ) -> Result<Response<api::GetProvisionInfoResponse>, Status> {
        assert!(request.metadata().contains_key("worker_id"));
        Ok(Response::new(api::GetProvisionInfoResponse {
            info: Some(self.info.clone()),
        }))
    }
}

#[tonic::async_trait]
impl ArtifactRetrievalService for Runner {
    type GetArtifactStream = ReceiverStream<Result<jobs::GetArtifactResponse, Status>>;

    async fn resolve_artifacts(
        &self,
        request: Request<jobs::ResolveArtifactsRequest>,
    ) -> Result<Response<jobs::ResolveArtifactsResponse>, Status> {
        let replacements = request.into_inner().artifacts;
        Ok(Response::new(jobs::ResolveArtifactsResponse { replacements }))
    }

    async fn get_artifact(
        &self,
        request: Request<jobs::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        *self.gets.lock() += 1;
        let payload = request.into_inner().artifact.unwrap().type_payload;
        let path = pipeline::ArtifactFilePayload::decode(payload).unwrap().path;
        let data = self.files.lock().get(&path).cloned();
        let data = data.ok_or_else(|| Status::not_found(format!("no file {path}")))?;
        let (chunks, rx) = mpsc::channel(data.len() + 1);
        for piece in data.chunks(3) {
            let data = piece.to_vec().into();
            chunks.send(Ok(jobs::GetArtifactResponse { data })).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

#[tonic::async_trait]
impl BeamFnLogging for Runner {
    type LoggingStream = ReceiverStream<Result<api::LogControl, Status>>;

    async fn logging(
        &self,
        request: Request<Streaming<api::log_entry::List>>,
    ) -> Result<Response<Self::LoggingStream>, Status> {
        let (mut inbound, log) = (request.into_inner(), self.log.clone());
        let (open, rx) = mpsc::channel(1);
        tokio::spawn(async move {
            let _open = open;
            while let Ok(Some(list)) = inbound.message().await {
                for entry in list.log_entries {
                    let _ = log.send(entry);
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

fn sha256(data: &[u8]) -> String {
    let mut hash = purlin_artifacts::Hasher::new();
    hash.update(data);
    hash.finish()
}

fn artifact(role: &str, path: &str, name: &str, sha256: &str) -> pipeline::ArtifactInformation {
    pipeline::ArtifactInformation {
        role_urn: role.into(),
        ..purlin_artifacts::file(path, sha256, name)
    }
}

/// Serves a runner; returns its address and what is logged to it.
async fn runner(
    dependencies: Vec<pipeline::ArtifactInformation>,
    files: &[(&str, &[u8])],
) -> (String, Runner, mpsc::UnboundedReceiver<api::LogEntry>) {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let url = format!("localhost:{}", listener.local_addr().unwrap().port());
    let (log, entries) = mpsc::unbounded_channel();
    let files = files
        .iter()
        .map(|(path, data)| ((*path).to_owned(), data.to_vec()));
    let runner = Runner {
        info: api::ProvisionInfo {
            dependencies,
            control_endpoint: at(&url),
            logging_endpoint: at(&url),
            artifact_endpoint: at(&url),
            ..Default::default()
        },
        files: Arc::new(Mutex::new(files.collect())),
        gets: Arc::default(),
        log,
    };
    let serve = Server::builder()
        .add_service(ProvisionServiceServer::new(runner.clone()))
        .add_service(ArtifactRetrievalServiceServer::new(runner.clone()))
        .add_service(BeamFnLoggingServer::new(runner.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(serve);
    (url, runner, entries)
}

fn provisioned(id: &str, url: &str) -> api::StartWorkerRequest {
    api::StartWorkerRequest {
        worker_id: id.into(),
        provision_endpoint: at(url),
        params: [("color".to_owned(), "red".to_owned())].into(),
        ..Default::default()
    }
}

async fn logged(entries: &mut mpsc::UnboundedReceiver<api::LogEntry>, text: &str) -> api::LogEntry {
    within(text, async {
        loop {
            let entry = entries.recv().await.expect("the log goes on");
            if entry.message.contains(text) {
                return entry;
            }
        }
    })
    .await
}

#[tokio::test]
async fn the_staged_program_is_fetched_once_and_its_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    // One that ends at once would be told as one that did not start.
    let program = format!(
        "#!/bin/sh\necho here $PURLIN_WORKER_PARAMS; cat $(dirname $0)/more.txt; read _ < {}; echo bye; exit 7\n",
        fifo.display()
    );
    let program = program.as_bytes();
    let let_it_end = async || {
        let fifo = fifo.clone();
        let written = tokio::task::spawn_blocking(move || std::fs::write(fifo, "\n"));
        within("the program", written).await.unwrap().unwrap();
    };
    let dependencies = vec![
        artifact(
            purlin_artifacts::WORKER_BINARY_ROLE,
            "/p",
            "worker",
            &sha256(program),
        ),
        artifact(
            urns::artifact_roles::STAGING_TO,
            "/m",
            "more.txt",
            &sha256(b"more\n"),
        ),
    ];
    let (url, runner, mut entries) = runner(dependencies, &[("/p", program), ("/m", b"more\n")]).await;
    // The job's own program comes first.
    let (_pool, mut client) = pool(settings(&dir, vec!["false".into()])).await;
    for id in ["a", "b"] {
        assert_eq!(started(&mut client, provisioned(id, &url)).await, "");
        let params = logged(&mut entries, "here").await;
        assert!(
            params.message.contains(r#"{"color":"red"}"#),
            "{}",
            params.message
        );
        logged(&mut entries, "more").await;
        let_it_end().await;
        let end = logged(&mut entries, "exit status 7").await;
        assert_eq!(end.log_location, crate::runner_log::ENDED);
        assert!(end.message.contains("bye"), "{}", end.message);
        let late = stopped(&mut client, id).await;
        assert!(late.contains("exit status 7"), "{late}");
    }
    assert_eq!(*runner.gets.lock(), 2);
    // A file of the cache that has been changed is fetched again.
    let kept = dir.path().join("artifacts/cache").join(sha256(program));
    std::fs::remove_file(&kept).unwrap();
    std::fs::write(&kept, "changed").unwrap();
    assert_eq!(started(&mut client, provisioned("c", &url)).await, "");
    assert_eq!(*runner.gets.lock(), 3);
    let_it_end().await;
    logged(&mut entries, "exit status 7").await;
    // Workers' own folders end with them.
    let pools_own = || {
        let entries = std::fs::read_dir(dir.path().join("artifacts")).unwrap().flatten();
        let mut pools = entries.filter(|e| e.file_name().to_string_lossy().starts_with(".pool-"));
        pools.next().unwrap().path().join("files")
    };
    within("an empty folder", async {
        while std::fs::read_dir(pools_own()).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_that_changed_on_its_way_starts_nothing() {
    let role = purlin_artifacts::WORKER_BINARY_ROLE;
    let bad = [
        artifact(role, "/p", "worker", &sha256(b"what it was")),
        artifact(role, "/p", "../worker", &sha256(b"what it is")),
        artifact(role, "/gone", "worker", ""),
    ];
    let expected = ["its sha256 is", "not a plain relative path", "no file /gone"];
    for (artifact, expected) in bad.into_iter().zip(expected) {
        let (url, _, _entries) = runner(vec![artifact], &[("/p", b"what it is")]).await;
        let dir = tempfile::tempdir().unwrap();
        let (_pool, mut client) = pool(settings(&dir, vec![])).await;
        let error = started(&mut client, provisioned("w", &url)).await;
        assert!(error.contains(expected), "{expected} is missing in {error}");
    }
}
