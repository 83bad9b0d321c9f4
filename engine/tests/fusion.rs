//! Plans: what is fused with what, and what is wrong with graphs.

mod common;

use common::*;
use expect_test::{Expect, expect};
use purlin_engine::*;
use purlin_model::Coder;

fn check(build: Build, expected: Expect) {
    match FusedGraph::new(build.graph, EngineConfig::default()) {
        Ok(fused) => expected.assert_eq(&fused.to_string()),
        Err(problems) => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("{problem}\n")).collect();
            expected.assert_eq(&lines.concat());
        }
    }
}

#[test]
fn producers_and_siblings_fuse_around_a_group_by_key() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let words = build.user("Read", impulse, Coder::Utf8, user());
    let pairs = build.user("Pair", words, pair(), user());
    build.user("Log", words, Coder::Utf8, user());
    let grouped = build.native("Group", &[pairs], pair(), TransformKind::GroupByKey);
    build.user("Count", grouped, Coder::Utf8, user());
    build.user("Audit", grouped, Coder::Utf8, user());
    check(
        build,
        expect![[r#"
            Impulse Impulse: nothing -> c0
            stage 0 on sdk: c0 -> c2
                Read
                Pair
                Log
            GroupByKey Group: c2 -> c4
            stage 1 on sdk: c4 -> nothing
                Count
                Audit
        "#]],
    );
}

#[test]
fn state_environments_and_stable_input_break_fusion() {
    let mut build = Build::new(1);
    let other = Environment {
        name: "java".into(),
        workers: 1,
        slots_per_worker: 1,
    };
    build.graph.environments.push(other);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let counted = build.user("Count", pairs, pair(), stateful(&[]));
    let java = UserTransform {
        environment: Some(EnvironmentId(1)),
        ..user()
    };
    let mapped = build.user("Java", counted, pair(), java);
    let anywhere = build.user(
        "Anywhere",
        mapped,
        pair(),
        UserTransform {
            environment: None,
            ..user()
        },
    );
    let stable = UserTransform {
        environment: Some(EnvironmentId(1)),
        requires_stable_input: true,
        ..user()
    };
    build.user("Write", anywhere, pair(), stable);
    check(
        build,
        expect![[r#"
            Impulse Impulse: nothing -> c0
            stage 0 on sdk: c0 -> c1
                Pair
            stage 1 on sdk: c1 -> c2
                Count [stateful]
            stage 2 on java: c2 -> c4
                Java
                Anywhere
            stage 3 on java: c4 -> nothing
                Write
        "#]],
    );
}

#[test]
fn a_consumer_is_not_fused_upstream_of_its_side_input() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let numbers = build.user("Numbers", impulse, pair(), user());
    let doubled = build.user("Double", numbers, pair(), user());
    let with_side = |tag, collection| UserTransform {
        side_inputs: vec![side(tag, collection, SideInputAccess::Iterable)],
        ..user()
    };
    // Its side input is made in the stage that it would join.
    let joined = build.user("Join", numbers, pair(), with_side("doubled", doubled));
    // Its side input needs the stage that it would join, through another.
    build.user("Again", numbers, pair(), with_side("joined", joined));
    // Its side input has nothing to do with it.
    let second = build.impulse();
    build.user("Free", numbers, pair(), with_side("impulse", second));
    check(
        build,
        expect![[r#"
            Impulse Impulse: nothing -> c0
            Impulse Impulse: nothing -> c5
            stage 0 on sdk: c0 -> c1, c2
                Numbers
                Double
                Free [side impulse = c5]
            stage 1 on sdk: c1 -> c3
                Join [side doubled = c2]
            stage 2 on sdk: c1 -> nothing
                Again [side joined = c3]
        "#]],
    );
}

#[test]
fn splittables_and_timers_are_roots_and_flatten_is_native() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let restrictions = build.user("Split", impulse, pair(), user());
    let read = build.user("Process", restrictions, pair(), splittable());
    let flat = build.native("Flatten", &[read, restrictions], pair(), TransformKind::Flatten);
    let timer = TimerFamily {
        name: "flush".into(),
        domain: TimeDomain::ProcessingTime,
    };
    build.user(
        "Batch",
        flat,
        pair(),
        UserTransform {
            timers: vec![timer],
            ..user()
        },
    );
    check(
        build,
        expect![[r#"
            Impulse Impulse: nothing -> c0
            stage 0 on sdk: c0 -> c1
                Split
            stage 1 on sdk: c1 -> c2
                Process [splittable]
            Flatten Flatten: c2, c1 -> c3
            stage 2 on sdk: c3 -> nothing
                Batch [stateful] [timer flush ProcessingTime]
        "#]],
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let mut build = Build::new(0);
    let impulse = build.impulse();
    let text = build.user("Text", impulse, Coder::Utf8, user());
    build.native("Group", &[text], pair(), TransformKind::GroupByKey);
    build.user("State", text, Coder::Utf8, stateful(&[]));
    let multimap = side("map", text, SideInputAccess::Multimap);
    build.user(
        "Side",
        text,
        Coder::Utf8,
        UserTransform {
            side_inputs: vec![multimap],
            ..user()
        },
    );
    build.user(
        "Lost",
        99,
        Coder::Utf8,
        UserTransform {
            environment: Some(EnvironmentId(7)),
            ..user()
        },
    );
    build.transform("Twice", &[impulse], &[text], TransformKind::User(user()));
    let orphan = build.collection(Coder::Utf8);
    build.user("Orphan", orphan, Coder::Utf8, user());
    let a = build.collection(Coder::Utf8);
    let b = build.user("A", a, Coder::Utf8, user());
    build.transform("B", &[b], &[a], TransformKind::User(user()));
    build.user("BehindTheCycle", b, Coder::Utf8, user());
    build.transform("Two", &[text, impulse], &[], TransformKind::User(user()));
    check(
        build,
        expect![[r#"
            environment "sdk" has no slot for bundles: give it at least one worker with one slot
            transform "Twice": it produces collection "c1", which "Text" produces too
            transform "Group": it needs keyed input, but collection "c1" has coder string_utf8, not beam:coder:kv:v1
            transform "State": it needs keyed input, but collection "c1" has coder string_utf8, not beam:coder:kv:v1
            transform "Side": it needs keyed input, but collection "c1" has coder string_utf8, not beam:coder:kv:v1
            transform "Lost": it refers to collection #99, which the pipeline does not have
            transform "Lost": it refers to environment #7, which the pipeline does not have
            transform "Orphan": it reads collection "c6", which no transform produces
            transform "Two": it has 2 main inputs where it must have one
            the pipeline has a cycle through "A", "B"
        "#]],
    );
}

#[test]
fn elements_that_leave_their_worker_need_a_known_end() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let odd = build.user("Odd", impulse, Coder::unknown("my:coder"), user());
    // Inside of a stage any coder will do.
    let text = build.user("Text", odd, Coder::Utf8, user());
    build.sink(text, Coder::Utf8);
    assert!(FusedGraph::new(build.graph.clone(), EngineConfig::default()).is_ok());
    build.sink(odd, Coder::length_prefix(Coder::unknown("my:coder")));
    check(
        build,
        expect![[r#"
            transform "Odd": the coder my:coder of collection "c1" must be length-prefixed, as its elements leave their worker
        "#]],
    );
}
