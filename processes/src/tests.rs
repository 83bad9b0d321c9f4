//! Process groups of a program without a supervisor; tests of the worker pool's binary have one.

use std::io::Read;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::{Limits, ProcessGroup};
use parking_lot::Mutex;

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[tokio::test]
async fn an_end_is_told_with_its_status_and_last_lines() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let lines = seen.clone();
    let on_line = move |line: &str| lines.lock().push(line.to_owned());
    let command = sh("for i in $(seq 30); do echo line $i; done; echo; echo last >&2; exit 5");
    let group = ProcessGroup::start(&command, &Limits::default(), on_line).unwrap();
    let end = group.ended().await;
    assert_eq!((end.status.as_str(), end.asked), ("exit status 5", false));
    assert_eq!(end.lines.len(), 20);
    assert!(end.lines.contains(&"last".to_owned()), "{end}");
    assert_eq!(seen.lock().len(), 31);
}

#[tokio::test]
async fn a_missing_program_is_an_error_at_once() {
    let command = Command::new("/no/such/program");
    assert!(ProcessGroup::start(&command, &Limits::default(), |_| ()).is_err());
}

#[tokio::test]
async fn a_group_ends_with_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // The grandchild holds the FIFO's only writing end, so that reading it to its end awaits the grandchild's.
    let command = sh(&format!("sleep 100 > {} & wait", fifo.display()));
    let group = ProcessGroup::start(&command, &Limits::default(), |_| ()).unwrap();
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let grandchild = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(fifo).unwrap();
        opened.send(()).unwrap();
        file.read_to_end(&mut Vec::new()).unwrap()
    });
    is_open.await.unwrap();
    group.stop(Duration::ZERO).await;
    assert!(group.ended().await.asked);
    let end = tokio::time::timeout(Duration::from_secs(60), grandchild).await;
    assert!(end.is_ok(), "the grandchild lives on");
}

#[tokio::test]
async fn one_that_ends_by_itself_is_not_signalled() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let command = sh(&format!("read _ < {}; exit 0", fifo.display()));
    let group = ProcessGroup::start(&command, &Limits::default(), |_| ()).unwrap();
    let release = tokio::task::spawn_blocking(move || std::fs::write(fifo, "\n"));
    group.stop(Duration::from_secs(60)).await;
    release.await.unwrap().unwrap();
    assert_eq!(group.ended().await.status, "exit status 0");
}
