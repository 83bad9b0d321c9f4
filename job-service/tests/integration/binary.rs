//! The program as a user starts and ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
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

/// Starts the service under a limit of the shell's `ulimit`. Returns it with the addresses that it says.
fn limited(limit: &str, arguments: &str) -> (Child, Vec<String>) {
    let program = env!("CARGO_BIN_EXE_purlin-job-service");
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit {limit}; exec {program} --job_port=0 {arguments}"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addresses = lines.take(5).map(|line| {
        let line = line.unwrap();
        let address = line.rsplit([' ', '/']).next().unwrap();
        address.to_owned()
    });
    let addresses = addresses.collect();
    (child, addresses)
}

fn terminate(mut child: Child) -> String {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let end = child.wait().unwrap();
    assert!(end.success(), "{end}: {log}");
    log
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a call, none of them compressed but the method POST and the scheme http.
fn call(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04][..], path),
        (&[0x01], "localhost"),
        (&[0x0f, 0x10], "application/grpc"),
    ] {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block.extend(b"\0\x02te\x08trailers");
    block
}

#[test]
fn headers_that_declare_gigabytes_do_not_end_it() {
    let (mut child, addresses) = limited("-v 6000000", "");
    for (address, path) in [
        (
            &addresses[0],
            "/org.apache.beam.model.job_management.v1.JobService/Prepare",
        ),
        (
            &addresses[2],
            "/org.apache.beam.model.expansion.v1.ExpansionService/Expand",
        ),
        (
            &addresses[3],
            "/org.apache.beam.model.fn_execution.v1.BeamFnData/Data",
        ),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(frame(4, 0, 0, &[]));
        for id in [1, 3, 5, 7, 9] {
            sent.extend(frame(1, 4, id, &call(path)));
            sent.extend(frame(
                0,
                0,
                id,
                &[&[0, 0x7f, 0xff, 0xff, 0xff][..], &[1; 1000]].concat(),
            ));
        }
        stream.write_all(&sent).unwrap();
        // Each call is refused, which takes a frame of headers.
        let mut answered = 0;
        while answered < 5 {
            let mut head = [0; 9];
            stream
                .read_exact(&mut head)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).unwrap();
            answered += usize::from(head[3] == 1);
        }
    }
    assert!(child.try_wait().unwrap().is_none());
    terminate(child);
}

#[test]
fn it_waits_where_file_descriptors_are_short() {
    let (child, addresses) = limited("-n 64", "");
    let silent: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&addresses[0]).unwrap())
        .collect();
    // They are connected before they are accepted, which takes a busy machine a while.
    let descriptors = format!("/proc/{}/fd", child.id());
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(&descriptors).unwrap().count() < 64 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    drop(silent);
    let mut stream = TcpStream::connect(&addresses[4]).unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"status\":\"ok\""), "{answer}");
    let log = terminate(child);
    // Once for each port that was asked.
    let told = log.matches("cannot accept connections").count();
    assert!((1..=2).contains(&told), "{log}");
}

#[test]
fn a_file_that_grows_too_large_does_not_end_it() {
    let (child, _) = limited("-n 1000", "");
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-XFSZ", &id])
            .status()
            .unwrap()
            .success()
    );
    terminate(child);
}

#[test]
fn it_says_what_listening_for_others_means() {
    let (child, addresses) = limited("-n 1000", "--host=0.0.0.0");
    assert_eq!(addresses.len(), 5);
    let log = terminate(child);
    assert!(
        log.contains("--host=0.0.0.0 lets other machines reach this service"),
        "{log}"
    );
    let (child, _) = limited("-n 1000", "");
    assert!(!terminate(child).contains("other machines"));
}
