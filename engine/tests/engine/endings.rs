//! Loops of timers come to an end with their window, or with a drain.

use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window};

use crate::common::*;
use crate::timers::grouped_timers;

/// A timer in the global window that holds nothing back.
fn set(tag: &str, at: i64) -> Vec<u8> {
    timer("k", Window::Global, tag, Some((at, Timestamp::MAX.0)))
}

#[test]
fn a_drain_ends_timers_that_set_ever_new_ones() {
    let (mut hand, bundle, transform, _, _) = grouped_timers(TimeDomain::ProcessingTime);
    // These are there before, however many they are: none is lost.
    let there: Vec<String> = (0..1_500).map(|n| format!("there {n}")).collect();
    let all: Vec<u8> = there.iter().flat_map(|tag| set(tag, 50_000)).collect();
    hand.finish_with_timers(&bundle, transform, &[("t", all)]);
    hand.tell(Event::Drain);
    let bundle = hand.one();
    let fired = timers(&bundle);
    assert_eq!(fired.len(), 1);
    assert!(fired[0].1.len() > 1_500 * set("there 0", 50_000).len());
    // Each sets two, each of which sets two.
    let mut bundle = Some(bundle);
    let mut rounds = 0;
    while let Some(fired) = bundle {
        rounds += 1;
        let new = |half: char| set(&format!("new {rounds} {half}"), 60_000 + rounds);
        hand.finish_with_timers(&fired, transform, &[("t", [new('a'), new('b')].concat())]);
        assert!(hand.started.len() <= 1);
        bundle = hand.started.pop();
    }
    // A thousand timers by two, after what was there.
    assert_eq!(rounds, 1 + 500);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_drain_fires_event_time_loops_of_the_global_window_once() {
    let mut build = Build::new(1);
    let from = build.native("Source", &[], pair(), told());
    let user = stateful(&[("t", TimeDomain::EventTime)]);
    let transform = build.transform("Timers", &[from], &[], TransformKind::User(user));
    let mut hand = Hand::start(build.engine());
    let tell = |hand: &mut Hand, events: Vec<TestStreamEvent>| {
        hand.tell(Event::TestStreamEvents {
            transform: TransformId(0),
            events,
            done: false,
        });
    };
    tell(&mut hand, vec![element(kv("k", "v"), 1), watermark(15)]);
    let bundle = hand.one();
    // Until the drain it goes on and on.
    hand.finish_with_timers(&bundle, transform, &[("t", set("loop", 11))]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("loop", 11));
    hand.finish_with_timers(&bundle, transform, &[("t", set("loop", 21))]);
    assert!(hand.started.is_empty());
    tell(&mut hand, vec![watermark(25)]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("loop", 21));
    hand.finish_with_timers(&bundle, transform, &[("t", set("loop", 31))]);
    hand.tell(Event::Drain);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("loop", 31));
    // Again, and with another one, which is not lost, and which sets both again.
    let both = |at: i64| [set("loop", at), set("other", at)].concat();
    hand.finish_with_timers(&bundle, transform, &[("t", both(41))]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("other", 41));
    hand.finish_with_timers(&bundle, transform, &[("t", both(51))]);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_drain_lets_loops_come_to_the_end_of_their_window() {
    let mut build = Build::new(1);
    let from = build.native("Source", &[], pair(), told());
    let windowed = build.by_tens(from);
    let user = stateful(&[("t", TimeDomain::EventTime)]);
    let transform = build.transform("Timers", &[windowed], &[], TransformKind::User(user));
    let mut hand = Hand::start(build.engine());
    hand.tell(Event::TestStreamEvents {
        transform: TransformId(0),
        events: vec![element(kv("k", "v"), 1)],
        done: false,
    });
    let bundle = hand.one();
    hand.finish(&bundle, &[(windowed, at(1, interval(0, 10), &kv("k", "v")))]);
    let mut bundle = hand.one();
    hand.tell(Event::Drain);
    // The last of them is set for later than the window's last moment, 9, and fires then.
    for next in [3, 5, 7, 9, 11] {
        let set = timer("k", interval(0, 10), "", Some((next, 1)));
        hand.finish_with_timers(&bundle, transform, &[("t", set.clone())]);
        if next == 11 {
            break;
        }
        bundle = hand.one();
        assert_eq!(timers(&bundle)[0].1, set);
    }
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_timer_does_not_go_round_at_the_end_of_its_window() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::EventTime);
    let (mut hand, bundle) = to_timers(build, pairs);
    let set = |tag: &str, at: i64| timer("k", interval(0, 10), tag, Some((at, 3)));
    hand.finish_with_timers(&bundle, transform, &[("t", set("", 15))]);
    // Later than the window's last moment, it fires then. What it sets fires too, but not itself.
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("", 15));
    let again = [set("", 16), set("other", 16)].concat();
    hand.finish_with_timers(&bundle, transform, &[("t", again)]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("other", 16));
    hand.finish_with_timers(
        &bundle,
        transform,
        &[("t", [set("", 17), set("other", 17)].concat())],
    );
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

/// That windows end one after another does not use up what a key may do.
#[test]
fn each_window_has_an_end_of_its_own() {
    let mut build = Build::new(1);
    let from = build.native("Source", &[], Coder::kv(Coder::Utf8, Coder::Utf8), told());
    let windowed = build.by_tens(from);
    let user = stateful(&[("t", TimeDomain::EventTime)]);
    let transform = build.transform("Timers", &[windowed], &[], TransformKind::User(user));
    let mut hand = Hand::start(build.engine());
    for window in 0..3 {
        let start = 10 * window;
        hand.tell(Event::TestStreamEvents {
            transform: TransformId(0),
            events: vec![element(kv("k", "v"), start + 1), watermark(start + 11)],
            done: false,
        });
        let bundle = hand.one();
        let own = interval(start, start + 10);
        hand.finish(&bundle, &[(windowed, at(start + 1, own.clone(), &kv("k", "v")))]);
        let bundle = hand.one();
        let set = |tag: &str| timer("k", own.clone(), tag, Some((start + 9, start + 1)));
        hand.finish_with_timers(&bundle, transform, &[("t", set("first"))]);
        let bundle = hand.one();
        assert_eq!(timers(&bundle)[0].1, set("first"));
        hand.finish_with_timers(&bundle, transform, &[("t", set("second"))]);
        let bundle = hand.one();
        assert_eq!(timers(&bundle)[0].1, set("second"));
        hand.finish(&bundle, &[]);
    }
}
