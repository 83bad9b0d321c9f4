//! State that is read over HTTP while its pipeline runs in this process.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use purlin::prelude::*;
use serde_json::{Value, json};

/// Keeps what came of each key in states of all kinds, one of them not queryable.
#[derive(Clone)]
struct Keep {
    count: ValueState<i64>,
    all: BagState<i64>,
    kinds: SetState<String>,
    total: CombiningState<Sum<i64>>,
    texts: MapState<String, i64>,
    list: OrderedListState<String>,
    hidden: ValueState<i64>,
}

impl Keep {
    fn new() -> Keep {
        Keep {
            count: ValueState::queryable("count"),
            all: BagState::queryable("all"),
            kinds: SetState::queryable("kinds"),
            total: CombiningState::queryable("total", Sum::new()),
            texts: MapState::queryable("texts"),
            list: OrderedListState::queryable("list"),
            hidden: ValueState::new("hidden"),
        }
    }
}

impl StatefulDoFn for Keep {
    type Key = String;
    type Value = i64;
    type Out = i64;
    purlin::fields!(count, all, kinds, total, texts, list, hidden);

    fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, i64>) -> DoFnResult {
        let count = self.count.read(ctx)?.unwrap_or(0) + 1;
        self.count.write(ctx, &count)?;
        self.hidden.write(ctx, &count)?;
        // The first three values say it all, and stay.
        if count <= 3 {
            self.all.add(ctx, &value)?;
            self.kinds.add(ctx, &"number".to_owned())?;
            self.total.add(ctx, value)?;
            self.texts.put(ctx, &format!("n{count}"), &value)?;
            self.list.add(ctx, -count, &format!("n{count}"))?;
        }
        Ok(())
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("localhost:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn with_state_port(port: u16) -> PipelineOptions {
    PipelineOptions {
        state_port: Some(port),
        ..PipelineOptions::default()
    }
}

/// The run, and the port at which its state is read.
fn start(p: &Pipeline) -> (PipelineHandle, u16) {
    let port = free_port();
    (p.start(&with_state_port(port)).unwrap(), port)
}

/// Asks until the answer is what is waited for.
fn read_until(port: u16, path: &str, is_enough: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, body) = get(port, path);
        if status == 200 {
            let read: Value = serde_json::from_str(&body).unwrap();
            if is_enough(&read) {
                return read;
            }
        } else {
            assert_eq!(status, 404, "{body}");
        }
        assert!(Instant::now() < deadline, "no state in time: {body}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Status and body of a GET.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("localhost", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn state_is_read_while_the_pipeline_runs_and_only_what_is_queryable() {
    let p = Pipeline::new();
    p.apply(GenerateSequence::from(0).with_rate(200, Duration::from_secs(1)))
        .map("Key", |n| (format!("k/{}", n % 2), n))
        .stateful_par_do("Keep", Keep::new());
    let (running, port) = start(&p);
    let path = |state: &str, query: &str| format!("/jobs/direct/state/Keep/{state}?{query}");

    let read = read_until(port, &path("count", "key=k%2F1"), |read| {
        read["windows"][0]["value"].as_i64() >= Some(3)
    });
    assert_eq!(
        (&read["transform"], &read["state"], &read["kind"], &read["key"]),
        (&json!("Keep"), &json!("count"), &json!("value"), &json!("k/1"))
    );
    assert_eq!(read["windows"][0]["window"], "global");
    for (state, expected) in [
        ("all", json!([1, 3, 5])),
        ("kinds", json!(["number"])),
        ("total", json!([9])),
        ("texts", json!([["n1", 1], ["n2", 3], ["n3", 5]])),
        ("list", json!([[-3, "n3"], [-2, "n2"], [-1, "n1"]])),
    ] {
        let (status, body) = get(port, &path(state, "key=k/1&window=global"));
        assert_eq!(status, 200, "{body}");
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            read["windows"],
            json!([{ "window": "global", "value": expected }]),
            "{state}"
        );
    }

    for (path, status, words) in [
        (
            path("hidden", "key=k/1"),
            404,
            "no queryable state \"hidden\": queryable are Keep/all, Keep/count",
        ),
        (path("count", "key=other"), 404, "has nothing for key \"other\""),
        (
            path("count", "key=k/1&window=[0.000s,%201.000s)"),
            404,
            "in window \"[0.000s, 1.000s)\"",
        ),
        (path("count", ""), 400, "add ?key="),
        (path("count", "keys=1"), 400, "no parameter \"keys\""),
        (
            "/jobs/direct/state/Kept/count?key=a".to_owned(),
            404,
            "transform \"Kept\" has no queryable state",
        ),
        (
            "/jobs/other/state/Keep/count?key=a".to_owned(),
            404,
            "there is no job other here",
        ),
    ] {
        let (found, body) = get(port, &path);
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(words), "{path}: {body}");
    }

    running.cancel();
    assert!(running.wait_for(Duration::from_secs(30)));
    let (status, body) = get(port, &path("count", "key=k/1"));
    assert_eq!(
        (status, body.contains("job direct has ended")),
        (404, true),
        "{body}"
    );
}

#[test]
fn a_key_has_a_state_in_each_window() {
    let p = Pipeline::new();
    // Two numbers a window, of which all stay.
    p.apply(
        GenerateSequence::from(0)
            .with_rate(200, Duration::from_secs(1))
            .with_timestamps(|n| Timestamp::from_millis(500 * n)),
    )
    .map("Key", |n| ("k".to_owned(), n))
    .window_into(
        "Seconds",
        Windowing::fixed(Duration::from_secs(1)).allowed_lateness(Duration::from_secs(1_000_000)),
    )
    .stateful_par_do("Keep", Keep::new());
    let (running, port) = start(&p);
    let read = read_until(port, "/jobs/direct/state/Keep/all?key=k", |read| {
        read["windows"]
            .as_array()
            .is_some_and(|windows| windows.len() > 2)
    });
    let all = read["windows"].as_array().unwrap();
    let first = all.iter().find(|window| window["value"] == json!([0, 1]));
    let first = first.unwrap_or_else(|| panic!("{all:?}"))["window"]
        .as_str()
        .unwrap();
    let second = all.iter().find(|window| window["value"] == json!([2, 3]));
    assert!(second.is_some(), "{all:?}");
    let query = format!("key=k&window={}", first.replace(' ', "%20"));
    let (status, body) = get(port, &format!("/jobs/direct/state/Keep/all?{query}"));
    assert_eq!(status, 200, "{body}");
    let read: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        read["windows"],
        json!([{ "window": first, "value": [0, 1] }]),
        "the one that was asked for"
    );
    running.cancel();
    assert!(running.wait_for(Duration::from_secs(30)));
}

#[test]
fn a_port_that_is_taken_is_told_before_the_pipeline_runs() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let p = Pipeline::new();
    p.apply(Create::new([("k".to_owned(), 1i64)]))
        .stateful_par_do("Keep", Keep::new());
    match p.start(&with_state_port(port)) {
        // Where localhost has another address, that one is free.
        Ok(running) => assert!(running.wait().is_ok()),
        Err(error) => assert!(error.to_string().contains("--state_port"), "{error}"),
    }
}
