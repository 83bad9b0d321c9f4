//! The program as a user starts and ends it.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn service(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purlin-job-service"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn it_says_where_it_listens_and_ends_on_sigterm() {
    let mut child = service(&["-job_port=0", "--serve_http=false", "--log-kind", "json"])
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.take(4).map(Result::unwrap).collect();
    for (line, service) in
        lines
            .iter()
            .zip(["Job service", "Artifact service", "Expansion service", "Fn API"])
    {
        assert!(line.starts_with(service), "{line}");
        let address = line.rsplit(' ').next().unwrap();
        assert!(TcpStream::connect(address).is_ok(), "{line}");
    }
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let begin = Instant::now();
    assert!(child.wait().unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(60));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["msg"], "ending: terminated");
}

#[test]
fn a_taken_port_ends_it_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for option in ["job", "artifact", "expansion", "web"] {
        let mut arguments = vec!["--job_port=0".to_owned(), format!("--{option}_port={port}")];
        if option == "job" {
            arguments.remove(0);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = service(&arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        for part in [port.as_str(), &format!("--{option}_port"), "choose another port"] {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
    }
}

#[test]
fn a_wrong_option_ends_it_with_the_nearest() {
    let output = service(&["--jobport=1"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--job_port"));
}
