//! Code that waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use purlin::prelude::*;

#[test]
fn so_many_elements_are_in_the_works_and_no_more() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static TOGETHER: std::sync::LazyLock<Arc<tokio::sync::Barrier>> =
        std::sync::LazyLock::new(|| Arc::new(tokio::sync::Barrier::new(4)));
    let p = TestPipeline::new();
    let out = p
        .apply(Impulse)
        .flat_map("Numbers", |_| 0i64..40)
        .map_async("Wait", 4, |n: i64| async move {
            MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
            // It ends only if four wait here at a time.
            TOGETHER.wait().await;
            RUNNING.fetch_sub(1, SeqCst);
            Ok::<_, BoxError>(n * 2)
        });
    PAssert::that(&out).contains_in_any_order((0i64..40).map(|n| n * 2));
    p.run();
    assert_eq!(MOST.load(SeqCst), 4);
}

#[test]
fn timestamps_and_windows_are_kept() {
    let p = TestPipeline::new();
    let out = p
        .apply(Create::new([5i64, 15, 16]))
        .par_do_with("Timestamps", |n: i64, ctx: &mut Context<'_, i64>| {
            ctx.output_with_timestamp(n, Timestamp::from_millis(n * 1000));
            Ok(())
        })
        .window_into("Windows", Windowing::fixed(std::time::Duration::from_secs(10)))
        .map_async("Wait", 2, |n: i64| async move { Ok::<_, BoxError>(((), n)) })
        .combine_per_key("Sum", Sum::new())
        .values();
    PAssert::that(&out).contains_in_any_order([5, 31]);
    p.run();
}

fn error_of(what: u8) -> String {
    let p = Pipeline::new();
    p.apply(Create::new(0i64..10))
        .map_async("Call", 3, move |n: i64| async move {
            match (n, what) {
                (7, 0) => Err("the service said no"),
                (7, 1) => panic!("seven is bad"),
                _ => Ok(n),
            }
        });
    p.run(&PipelineOptions::default())
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default()
}

#[test]
fn errors_and_panics_name_the_transform() {
    let error = error_of(0);
    assert!(
        error.contains("transform \"Call\"") && error.contains("the service said no"),
        "{error}"
    );
    let error = error_of(1);
    assert!(
        error.contains("transform \"Call\"") && error.contains("user code panicked: seven is bad"),
        "{error}"
    );
}
