//! The boot program with a runner of this test and a Python that is a shell script.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::provision_service_server::{ProvisionService, ProvisionServiceServer};
use purlin_proto::pipeline::ApiServiceDescriptor;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::{runs, until};

/// The worker's id: its name and its token.
const WORKER: &str = "w.0123456789abcdef0123456789abcdef";

/// A runner that tells of a control endpoint, and of nothing staged.
struct Runner;

#[tonic::async_trait]
impl ProvisionService for Runner {
    async fn get_provision_info(
        &self,
        request: Request<api::GetProvisionInfoRequest>,
    ) -> Result<Response<api::GetProvisionInfoResponse>, Status> {
        assert_eq!(request.metadata().get("worker_id").unwrap(), WORKER);
        let control = ApiServiceDescriptor {
            url: "control:1".into(),
            authentication: None,
        };
        Ok(Response::new(api::GetProvisionInfoResponse {
            info: Some(api::ProvisionInfo {
                control_endpoint: Some(control),
                ..Default::default()
            }),
        }))
    }
}

/// Its address; it serves as long as the runtime is there.
fn runner(runtime: &Runtime) -> String {
    runtime.block_on(async {
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder().add_service(ProvisionServiceServer::new(Runner));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        address
    })
}

/// A boot program for a Python that has Beam, and runs this as its harness.
fn boot(folder: &Path, runner: &str, harness: &str) -> Child {
    let python = folder.join("python");
    let script = format!("#!/bin/sh\nif [ \"$1\" = -c ]; then echo True; exit; fi\n{harness}\n");
    std::fs::write(&python, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, mode).unwrap();
    Command::new(env!("CARGO_BIN_EXE_purlin-boot"))
        .arg("--id=w")
        .arg(format!("--provision_endpoint={runner}"))
        .arg(format!("--semi_persist_dir={}", folder.display()))
        .env("PURLIN_PYTHON", &python)
        .env("PURLIN_WORKER_ID", WORKER)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn own_folders(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_harness_is_told_what_it_needs_and_how_it_ends_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let address = runner(&runtime);
    let harness = "echo \"$* $WORKER_ID $CONTROL_API_SERVICE_DESCRIPTOR\" >&2; exit ";
    let ended = |code: &str| {
        let boot = boot(folder.path(), &address, &format!("{harness}{code}"));
        let output = boot.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (success, said) = ended("0");
    assert!(success, "{said}");
    assert_eq!(
        said.trim(),
        format!("-m apache_beam.runners.worker.sdk_worker_main {WORKER} url: \"control:1\"")
    );
    let (success, said) = ended("3");
    assert!(!success && said.contains("ended (exit status 3)"), "{said}");
    assert!(own_folders(folder.path()).is_empty());
}

#[test]
fn a_harness_ends_with_its_boot_and_files_go_too() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let address = runner(&runtime);
    let pids = folder.path().join("pids");
    let harness = format!(
        "setsid sh -c 'echo $$ >> {0}; exec sleep 1000' &\necho $$ >> {0}\nexec sleep 1000",
        pids.display()
    );
    for signal in ["KILL", "TERM"] {
        let mut boot = boot(folder.path(), &address, &harness);
        let read = || std::fs::read_to_string(&pids).unwrap_or_default();
        until("two processes", || read().lines().count() == 2);
        let started = read();
        // What a killed one left is removed by the next.
        assert_eq!(own_folders(folder.path()).len(), 1);
        let kill = format!("kill -{signal} {}", boot.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(boot.wait().unwrap().success(), signal == "TERM");
        until("their end", || !started.lines().any(runs));
        std::fs::remove_file(&pids).unwrap();
    }
    assert!(own_folders(folder.path()).is_empty());
}
