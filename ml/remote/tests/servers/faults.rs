//! All that goes wrong with servers, and what becomes of it.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin_inference::{ModelHandler, RunInference};
use purlin_remote::{CircuitBreaker, KServe, Remote, Retries, Server, WhenOpen};

use crate::stand_in::{Asked, Reply, StandIn, answer_of, rows, sum_server};
use crate::{failure, server};

fn model(server: Server) -> Remote<KServe<Vec<f64>, f64>> {
    Remote::new(server, KServe::model("sum").rows(8))
}

/// A server whose first answers are faults of this kind, and which then is well.
fn at_first(faults: usize, fault: impl Fn() -> Reply + Send + Sync + 'static) -> StandIn {
    let before = AtomicUsize::new(0);
    sum_server(move |_| (before.fetch_add(1, Ordering::SeqCst) < faults).then(&fault))
}

/// Sums of some rows, by a pipeline that has to succeed: how many requests were tried again.
fn retries(handler: Remote<KServe<Vec<f64>, f64>>) -> i64 {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new((0..20).map(|n| vec![f64::from(n), 1.0])));
    let results = numbers.apply(RunInference::new(handler));
    let expected: Vec<f64> = (1..21).map(f64::from).collect();
    PAssert::that(&results.map("Sum", |result| result.inference)).contains_in_any_order(expected);
    p.run().metrics().counter("RunInference", "remote_retries")
}

#[test]
fn faults_that_pass_are_tried_again() {
    let garbage = || Reply::Text("{\"outputs\": nonsense".to_owned());
    let few = || Reply::Json(answer_of(&[]));
    type Fault = Box<dyn Fn() -> Reply + Send + Sync>;
    let faults: Vec<(&str, Fault)> = vec![
        ("500", Box::new(|| Reply::status(500, "boom"))),
        ("502", Box::new(|| Reply::status(502, "bad gateway"))),
        ("503", Box::new(|| Reply::status(503, ""))),
        ("429", Box::new(|| Reply::status(429, "slow down"))),
        ("408", Box::new(|| Reply::status(408, ""))),
        ("cut", Box::new(|| Reply::Cut)),
        ("garbage", Box::new(garbage)),
        ("rows too few", Box::new(few)),
    ];
    for (name, fault) in faults {
        let stand = at_first(3, fault);
        assert_eq!(retries(model(server(&stand.url))), 3, "{name}");
    }
}

#[test]
fn an_answer_that_does_not_come_is_tried_again() {
    let stand = at_first(1, || Reply::Hang);
    let brief = server(&stand.url).try_timeout(Duration::from_millis(200));
    assert_eq!(retries(model(brief)), 1);
}

#[test]
fn retry_after_is_kept_to_in_seconds_and_as_a_date() {
    // A date that has passed: at once.
    let date = || {
        Reply::Status(
            503,
            Some(("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned())),
            String::new(),
        )
    };
    let stand = at_first(1, date);
    assert_eq!(retries(model(server(&stand.url))), 1);

    let seconds = || Reply::Status(429, Some(("retry-after", "1".to_owned())), String::new());
    let stand = at_first(1, seconds);
    let begin = Instant::now();
    assert_eq!(retries(model(server(&stand.url))), 1);
    assert!(begin.elapsed() >= Duration::from_secs(1));

    // Longer than there is time: the error says so at once.
    let hours = || Reply::Status(429, Some(("retry-after", "7200".to_owned())), "busy".to_owned());
    let stand = at_first(9, hours);
    let p = TestPipeline::new();
    p.apply(Create::new([vec![1.0, 2.0]]))
        .apply(RunInference::new(model(server(&stand.url))));
    let error = failure(p);
    assert!(
        error.contains("429 Too Many Requests: busy; the next try is due in 7200.0 s"),
        "{error}"
    );
}

/// Which rows are dead letters, with their errors; and how many went well.
fn dead_letters(handler: Remote<KServe<Vec<f64>, f64>>, rows: usize) -> (Vec<(Vec<f64>, String)>, i64) {
    let rows: Vec<Vec<f64>> = (0..rows).map(|n| vec![n as f64, 1.0]).collect();
    let loaded = handler.load().unwrap();
    let batch: Vec<&Vec<f64>> = rows.iter().collect();
    let results = handler.run_each(&batch, &loaded).unwrap();
    let (mut failed, mut well) = (Vec::new(), 0);
    assert_eq!(results.len(), rows.len());
    for (row, result) in rows.iter().zip(results) {
        match result {
            Ok(sum) => {
                assert_eq!(sum, row[0] + 1.0);
                well += 1;
            }
            Err(error) => failed.push((row.clone(), error.to_string())),
        }
    }
    (failed, well)
}

fn holds(asked: &Asked, bad: f64) -> bool {
    rows(&asked.body).iter().any(|row| row[0] == bad)
}

#[test]
fn a_bad_row_costs_itself_alone_and_few_requests() {
    for status in [400, 422, 500] {
        let stand =
            sum_server(move |asked| holds(asked, 100.0).then(|| Reply::status(status, "cannot add 100")));
        let handler = model(server(&stand.url).retries(Retries {
            tries: 1,
            ..Retries::default()
        }));
        let (failed, well) = dead_letters(handler, 200);
        assert_eq!(well, 199);
        assert_eq!(failed[0].0, [100.0, 1.0]);
        let error = &failed[0].1;
        assert!(
            error.contains(&format!("sum at {}: {status} ", stand.url)),
            "{error}"
        );
        assert!(error.contains("cannot add 100 (tries: 1"), "{error}");
        // 25 requests of 8 rows; then two halves of 8, of 4 and of 2.
        assert_eq!(stand.inferences().len(), 25 + 6);
    }
}

#[test]
fn a_row_that_does_not_fit_is_not_sent() {
    let stand = sum_server(|_| None);
    let p = TestPipeline::new();
    let rows = [vec![1.0, 2.0], vec![1.0, 2.0, 3.0], vec![f64::NAN, 2.0]];
    let inference = RunInference::new(model(server(&stand.url))).with_dead_letters();
    let (results, failed) = p.apply(Create::new(rows)).apply(inference);
    PAssert::that(&results.map("Sum", |result| result.inference)).equals(3.0);
    let told = failed.map("Error", |failed| failed.error[..27].to_owned());
    PAssert::that(&told).named("Failed").contains_in_any_order(
        ["the row has the shape [3], ", "a value of the row is NaN o"].map(str::to_owned),
    );
    p.run();
}

#[test]
fn a_server_that_is_away_is_no_rows_fault() {
    let stand = sum_server(|_| Some(Reply::status(503, "maintenance")));
    let p = TestPipeline::new();
    let inference = RunInference::new(model(server(&stand.url))).with_dead_letters();
    p.apply(Create::new([vec![1.0, 2.0]])).apply(inference);
    let error = failure(p);
    assert!(error.contains("the model is not available"), "{error}");
    assert!(
        error.contains("503 Service Unavailable: maintenance (tries: 6"),
        "{error}"
    );

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let p = TestPipeline::new();
    let handler = model(server(&format!("http://{closed}")));
    p.apply(Create::new([vec![1.0, 2.0]]))
        .apply(RunInference::new(handler).with_dead_letters());
    let error = failure(p);
    assert!(
        error.contains(&format!("sum at http://{closed}: ")) && error.contains("Connection refused"),
        "{error}"
    );
}

#[test]
fn a_token_is_sent_and_never_told() {
    // The environment of this process has a PATH, which will do as a secret.
    let secret = std::env::var("PATH").unwrap();
    let expected = format!("Bearer {secret}");
    let stand = StandIn::new(move |asked| {
        let token = asked.headers["authorization"].to_str().unwrap();
        assert_eq!(token, expected);
        Reply::status(401, &format!("{token} is not known"))
    });
    let p = TestPipeline::new();
    p.apply(Create::new([vec![1.0, 2.0]]))
        .apply(RunInference::new(model(
            server(&stand.url).bearer_from_env("PATH"),
        )));
    let error = failure(p);
    assert!(
        error.contains("401 Unauthorized: Bearer ... is not known (tries: 1"),
        "{error}"
    );
    assert!(!error.contains(&secret));
}

#[test]
fn an_open_circuit_asks_nothing() {
    let stand = sum_server(|_| Some(Reply::Cut));
    let breaker = |when_open| CircuitBreaker {
        failures: 3,
        pause: Duration::from_secs(3600),
        when_open,
    };
    let at = server(&stand.url)
        .circuit_breaker(breaker(WhenOpen::Fail))
        .concurrency(1);
    let handler = model(at);
    let loaded = handler.load().unwrap();
    let row = vec![1.0, 2.0];
    for _ in 0..5 {
        let error = handler.run(&[&row], &loaded).unwrap_err().to_string();
        assert!(
            error.contains("its circuit is open after failures in a row"),
            "{error}"
        );
    }
    assert_eq!(stand.inferences().len(), 3);

    // One that waits does so within the limit of time, which is told at once where the circuit stays open for longer.
    let at = server(&stand.url)
        .circuit_breaker(breaker(WhenOpen::Wait))
        .concurrency(1);
    let handler = model(at);
    let loaded = handler.load().unwrap();
    let error = handler.run(&[&row], &loaded).unwrap_err().to_string();
    assert!(
        error.contains("the circuit to the server stayed open for its time limit of 600s"),
        "{error}"
    );
}

#[test]
fn an_answer_that_is_too_long_is_not_read_to_its_end() {
    let stand = sum_server(|_| Some(Reply::Text("[".repeat(10_000))));
    let handler = model(server(&stand.url).most_answer_bytes(1000));
    let loaded = handler.load().unwrap();
    let error = handler.run(&[&vec![1.0, 2.0]], &loaded).unwrap_err().to_string();
    assert!(
        error.contains("the answer is longer than 1000 bytes (tries: 1"),
        "{error}"
    );
}
