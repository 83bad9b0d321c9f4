use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn caller(policy: Policy) -> Caller {
    caller_with(policy, || 1.0)
}

fn caller_with(policy: Policy, random: impl Fn() -> f64 + Send + Sync + 'static) -> Caller {
    Caller::new("m".to_owned(), "http://s".to_owned(), policy, Box::new(random))
}

fn bare() -> Policy {
    Policy {
        throttling: None,
        breaker: None,
        ..Policy::default()
    }
}

fn fail<T>(kind: FailureKind) -> Result<T, Failure> {
    Err(Failure::new(kind, format!("{kind:?}")))
}

/// Fails with these, one try after the other, then succeeds: what becomes of it, and how long that takes.
async fn tried(caller: &Caller, failures: &[Failure]) -> (Result<usize, RemoteError>, Duration) {
    let (tries, begin) = (AtomicUsize::new(0), Instant::now());
    let result = caller
        .call(|| async {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            failures
                .get(number)
                .map_or(Ok(number + 1), |failure| Err(failure.clone()))
        })
        .await;
    (result, begin.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_request_is_tried_again_after_pauses() {
    let failure = |kind| Failure::new(kind, "no");
    let transient = [
        FailureKind::Unavailable,
        FailureKind::Failed,
        FailureKind::Garbled,
    ]
    .map(failure);
    let caller = caller(bare());
    let (result, took) = tried(&caller, &transient).await;
    assert_eq!(result.unwrap(), 4);
    assert_eq!(took, Duration::from_millis(100 + 200 + 400));
    let counted = caller.take_counted();
    assert_eq!((counted.requests, counted.retries), (4, 3));
    assert_eq!(caller.take_counted(), Counted::default());

    let (result, _) = tried(&caller, &vec![failure(FailureKind::Failed); 9]).await;
    assert_eq!(result.unwrap_err().tries, 5);
    let (result, took) = tried(&caller, &[failure(FailureKind::Refused)]).await;
    assert_eq!((result.unwrap_err().tries, took), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_to_be_left_alone_is_by_all() {
    let caller = caller(bare());
    let mut failure = Failure::new(FailureKind::Overloaded, "429");
    failure.retry_after = Some(30 * SECOND);
    let failures = [failure.clone()];
    let begin = Instant::now();
    let other = async {
        tokio::time::sleep(SECOND).await;
        tried(&caller, &[]).await.0.unwrap();
        begin.elapsed()
    };
    let ((result, took), other) = tokio::join!(tried(&caller, &failures), other);
    assert_eq!((result.unwrap(), took), (2, 30 * SECOND));
    assert_eq!(other, 30 * SECOND);
    assert_eq!(caller.take_counted().throttled_millis, 29_000);

    // Longer than there is time: told at once.
    failure.retry_after = Some(700 * SECOND);
    let (result, took) = tried(&caller, &[failure]).await;
    let error = result.unwrap_err().to_string();
    assert_eq!(took, Duration::ZERO);
    assert!(
        error.contains("429; the next try is due in 700.0 s, after its time limit of 600s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn tries_and_requests_have_limits_of_time() {
    let caller = caller(Policy {
        try_timeout: 10 * SECOND,
        total_timeout: 25 * SECOND,
        ..bare()
    });
    let begin = Instant::now();
    let hangs = || std::future::pending::<Result<(), Failure>>();
    let error = caller.call(hangs).await.unwrap_err();
    assert_eq!(begin.elapsed(), 25 * SECOND);
    assert_eq!(error.failure.kind, FailureKind::Unavailable);
    assert!(error.to_string().contains("no answer within 10s"), "{error}");
    assert_eq!(error.tries, 3);
}

#[tokio::test(start_paused = true)]
async fn so_many_run_at_a_time() {
    let caller = caller(Policy {
        concurrency: 3,
        ..bare()
    });
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = || {
        caller.call(|| async {
            let now = running.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(SECOND).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        })
    };
    let begin = Instant::now();
    futures::future::try_join_all((0..10).map(|_| one()))
        .await
        .unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 3);
    assert_eq!(begin.elapsed(), 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_lets_requests_wait_or_fail() {
    let policy = |when_open| Policy {
        breaker: Some(CircuitBreaker {
            failures: 2,
            pause: 10 * SECOND,
            when_open,
        }),
        ..bare()
    };
    let away = vec![Failure::new(FailureKind::Unavailable, "refused"); 2];
    let waiting = caller(policy(WhenOpen::Wait));
    let (result, took) = tried(&waiting, &away).await;
    // After 100 ms the second failure opens it.
    assert_eq!((result.unwrap(), took), (3, Duration::from_millis(10_100)));
    assert_eq!(waiting.take_counted().circuit_opens, 1);

    let failing = caller(policy(WhenOpen::Fail));
    let (result, took) = tried(&failing, &away).await;
    let error = result.unwrap_err();
    assert_eq!((error.tries, took), (2, Duration::from_millis(300)));
    assert!(
        error.to_string().contains("refused; its circuit is open"),
        "{error}"
    );
    // Others fail without a try, until it is time for one.
    assert_eq!(tried(&failing, &[]).await.0.unwrap_err().tries, 0);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(tried(&failing, &[]).await.0.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_many_is_asked_less() {
    let policy = |throttling| Policy {
        throttling,
        retries: Retries {
            tries: 1,
            ..Retries::default()
        },
        ..bare()
    };
    // A server that takes one request a second.
    let asked = |throttling| async move {
        let seed = AtomicUsize::new(0);
        let caller = caller_with(policy(throttling), move || {
            (seed.fetch_add(37, Ordering::Relaxed) % 101) as f64 / 101.0
        });
        let last = Mutex::new(None::<Instant>);
        let begin = Instant::now();
        while begin.elapsed() < 60 * SECOND {
            let _ = caller
                .call(|| async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let mut last = last.lock();
                    if last.is_some_and(|last| last.elapsed() < SECOND) {
                        return fail(FailureKind::Overloaded);
                    }
                    *last = Some(Instant::now());
                    Ok(())
                })
                .await;
        }
        caller.take_counted()
    };
    let without = asked(None).await;
    let with = asked(Some(Throttling::default())).await;
    assert_eq!(without.requests, 6000);
    assert!(with.requests < 1000, "{with:?}");
    assert!(
        with.throttled_millis > 30_000 && without.throttled_millis == 0,
        "{with:?}"
    );
}

/// A server that is away for two requests: the circuit opens for a second, and when that is over the throttle holds back the next
/// request once.
fn throttled_probe(when_open: WhenOpen) -> Caller {
    let policy = Policy {
        throttling: Some(Throttling::default()),
        breaker: Some(CircuitBreaker {
            failures: 2,
            pause: SECOND,
            when_open,
        }),
        retries: Retries {
            tries: 1,
            ..Retries::default()
        },
        ..bare()
    };
    let asked = AtomicUsize::new(0);
    // The retries of each request ask for a number, too: the first two requests take four, the fifth is for the throttle.
    caller_with(policy, move || match asked.fetch_add(1, Ordering::Relaxed) {
        4 => 0.0,
        _ => 1.0,
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_held_back_does_not_use_up_the_probe_of_the_circuit() {
    for when_open in [WhenOpen::Wait, WhenOpen::Fail] {
        let caller = throttled_probe(when_open);
        for _ in 0..2 {
            let error = caller
                .call(|| async { fail::<()>(FailureKind::Unavailable) })
                .await;
            assert_eq!(error.unwrap_err().tries, 1);
        }
        assert_eq!(caller.take_counted().circuit_opens, 1);
        tokio::time::sleep(SECOND).await;
        // It waits for the throttle alone, and is the probe after that.
        let (result, took) = tried(&caller, &[]).await;
        assert_eq!(
            (result.unwrap(), took),
            (1, Duration::from_millis(200)),
            "{when_open:?}"
        );
        assert_eq!(caller.take_counted().throttled_millis, 200);
        // That closed the circuit.
        assert_eq!(tried(&caller, &[]).await.1, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn another_request_may_be_the_probe_while_one_is_held_back() {
    let caller = throttled_probe(WhenOpen::Fail);
    for _ in 0..2 {
        let _ = caller
            .call(|| async { fail::<()>(FailureKind::Unavailable) })
            .await;
    }
    tokio::time::sleep(SECOND).await;
    let ((held, took), (other, at_once)) = tokio::join!(tried(&caller, &[]), tried(&caller, &[]));
    assert_eq!((held.unwrap(), took), (1, Duration::from_millis(200)));
    assert_eq!((other.unwrap(), at_once), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_an_open_circuit_do_not_count_for_the_throttle() {
    let caller = throttled_probe(WhenOpen::Fail);
    for _ in 0..2 {
        let _ = caller
            .call(|| async { fail::<()>(FailureKind::Unavailable) })
            .await;
    }
    for _ in 0..50 {
        assert_eq!(tried(&caller, &[]).await.0.unwrap_err().tries, 0);
    }
    // Of the two that were asked none was accepted; had the others counted, it would be 52 of 53.
    let probability = |random| {
        let throttle = caller.throttle.as_ref().unwrap();
        throttle.lock().holds_back(Instant::now(), random).is_some()
    };
    assert!(probability(0.66) && !probability(0.76));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_probe_go_as_soon_as_it_is_answered() {
    let caller = caller(Policy {
        breaker: Some(CircuitBreaker {
            failures: 1,
            pause: 10 * SECOND,
            when_open: WhenOpen::Wait,
        }),
        retries: Retries {
            tries: 1,
            ..Retries::default()
        },
        ..bare()
    });
    let _ = caller
        .call(|| async { fail::<()>(FailureKind::Unavailable) })
        .await;
    tokio::time::sleep(10 * SECOND).await;
    let begin = Instant::now();
    let probe = caller.call(|| async {
        tokio::time::sleep(SECOND).await;
        Ok(())
    });
    let others = futures::future::join_all((0..3).map(|_| tried(&caller, &[])));
    let (probe, others) = tokio::join!(probe, others);
    assert_eq!((probe.is_ok(), begin.elapsed()), (true, SECOND));
    assert!(
        others
            .iter()
            .all(|(result, took)| result.is_ok() && *took == SECOND)
    );
}
