//! The pool's program: what it starts ends with it, whatever ends it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;

use crate::support::{runs, until};

struct Pool {
    child: Child,
    address: String,
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pool(flags: &[String]) -> Pool {
    serving(Command::new(env!("CARGO_BIN_EXE_purlin-worker-pool")), flags)
}

fn serving(mut command: Command, flags: &[String]) -> Pool {
    let mut child = command
        .arg("--port=0")
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    Pool { child, address }
}

fn start(pool: &Pool) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = format!("http://{}", pool.address);
        let mut client = BeamFnExternalWorkerPoolClient::connect(url).await.unwrap();
        let request = api::StartWorkerRequest {
            worker_id: "w".into(),
            ..Default::default()
        };
        client.start_worker(request).await.unwrap().into_inner().error
    })
}

#[test]
fn sigkill_of_the_pool_ends_even_children_in_other_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("harness");
    let pids = dir.path().join("pids");
    let body = format!(
        "#!/bin/sh\nsetsid sh -c 'echo $$ >> {0}; exec sleep 1000' &\necho $$ >> {0}\nexec sleep 1000\n",
        pids.display()
    );
    std::fs::write(&script, body).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let mut pool = pool(&[format!("--harness_command={}", script.display())]);
    assert_eq!(start(&pool), "");
    let read = || std::fs::read_to_string(&pids).unwrap_or_default();
    until("two processes", || read().lines().count() == 2);
    let started = read();
    assert!(started.lines().all(runs), "{started}");
    pool.child.kill().unwrap();
    pool.child.wait().unwrap();
    until("their end", || !started.lines().any(runs));
}

#[test]
fn a_worker_beyond_its_memory_ends() {
    // It doubles a text until it is stopped: 64 MiB are soon passed.
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("harness");
    let done = dir.path().join("pid");
    let body = format!(
        "#!/bin/sh\necho $$ > {}\nx=xxxxxxxxxxxxxxxx\nwhile [ ${{#x}} -lt 268435456 ]; do x=$x$x; done\nsleep 1000\n",
        done.display()
    );
    std::fs::write(&script, body).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let pool = pool(&[
        format!("--harness_command={}", script.display()),
        "--worker_memory=64M".into(),
        "--worker_cpus=1".into(),
    ]);
    // It may be over before the pool has answered.
    let error = start(&pool);
    assert!(
        error.is_empty() || error.contains("64 MiB are allowed"),
        "{error}"
    );
    let read = || std::fs::read_to_string(&done).unwrap_or_default();
    until("the worker", || !read().is_empty());
    until("its end", || !runs(read().trim()));
}

#[test]
fn what_a_killed_pool_left_goes_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let started = |flags: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_purlin-worker-pool"));
        command.env("TMPDIR", dir.path());
        serving(command, flags)
    };
    let left = || {
        let mut found: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        found.sort();
        found
    };
    let given = dir.path().join("given");
    let given_flag = [format!("--artifacts_dir={}", given.display())];
    let pools_in_given = || {
        let names = std::fs::read_dir(&given).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name != "cache").collect::<Vec<_>>()
    };
    let mut killed = [started(&[]), started(&given_flag)];
    let living = started(&[]);
    let before = left();
    assert_eq!((before.len(), pools_in_given().len()), (3, 1), "{before:?}");
    for pool in &mut killed {
        pool.child.kill().unwrap();
        pool.child.wait().unwrap();
    }
    let old = pools_in_given();
    let _next = [started(&[]), started(&given_flag)];
    // One of the dead and one of the living in the beginning; now the living one's and the next one's.
    let after = left();
    assert_eq!(after.len(), 3, "{after:?}");
    assert_eq!(
        before.iter().filter(|folder| !after.contains(folder)).count(),
        1,
        "{after:?}"
    );
    assert!(pools_in_given().len() == 1 && pools_in_given() != old);
    drop(living);
}
