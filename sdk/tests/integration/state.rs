//! What is told of state and timers that are used wrongly.

use std::time::Duration;

use purlin::prelude::*;

/// A DoFn that breaks a rule.
#[derive(Clone)]
struct Wrong {
    declared: ValueState<i64>,
    used: ValueState<i64>,
    timer: Timer,
    what: u8,
}

impl StatefulDoFn for Wrong {
    type Key = String;
    type Value = i64;
    type Out = String;
    purlin::fields!(declared, timer);

    fn process(&mut self, _: String, _: i64, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        match self.what {
            0 => self.used.write(ctx, &1),
            1 => {
                let output = Timestamp::from_millis(10);
                self.timer
                    .output_timestamp(output)
                    .set(ctx, Timestamp::from_millis(5))
            }
            2 => self.timer.set_after(ctx, Duration::from_secs(1)),
            3 => ctx.after_commit(Duration::from_secs(1), || Ok(())),
            4 => self.timer.set(ctx, Timestamp::from_millis(1)),
            _ => Timer::event_time("other").set(ctx, Timestamp::from_millis(1)),
        }
    }
}

fn wrong(what: u8) -> String {
    let p = Pipeline::new();
    let dofn = Wrong {
        declared: ValueState::new("declared"),
        used: ValueState::new("used"),
        timer: Timer::event_time("timer"),
        what,
    };
    p.apply(Create::new([("k".to_owned(), 1i64)]))
        .stateful_par_do("Wrong", dofn);
    p.run(&PipelineOptions::default())
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default()
}

#[test]
fn errors_name_the_transform_and_the_remedy() {
    let cases = [
        "state \"used\" is not declared: name its field in purlin::fields!(..)",
        "an event-time timer holds the watermark at its own time at the latest",
        "only Timer::processing_time timers wait for the clock",
        "set FINALIZES_BUNDLES = true",
        "timer \"timer\" fires, but the StatefulDoFn has no on_timer: write one",
        "timer \"other\" is not declared",
    ];
    for (what, expected) in cases.iter().enumerate() {
        let error = wrong(what as u8);
        assert!(
            error.contains("transform \"Wrong\"") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn what_is_declared_wrongly_is_told_when_the_pipeline_is_built() {
    #[derive(Clone)]
    struct Twice {
        a: ValueState<i64>,
        b: BagState<i64>,
    }
    impl StatefulDoFn for Twice {
        type Key = String;
        type Value = i64;
        type Out = String;
        purlin::fields!(a, b);
        fn process(&mut self, _: String, _: i64, _: &mut KeyedContext<'_, String>) -> DoFnResult {
            Ok(())
        }
    }
    let p = Pipeline::new();
    let twice = Twice {
        a: ValueState::new("same"),
        b: BagState::new("same"),
    };
    p.apply(Create::new([("k".to_owned(), 1i64)]))
        .window_into("Sessions", Windowing::sessions(Duration::from_secs(1)))
        .stateful_par_do("Twice", twice);
    let error = p.build().err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("transform \"Twice\""), "{error}");
    assert!(
        error.contains("two of its states or timers have the name \"same\""),
        "{error}"
    );
    assert!(error.contains("sessions(1s) windows, which merge"), "{error}");
}
