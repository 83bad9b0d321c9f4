//! Loops of timers come to an end with their window, or with a drain.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::{Coder, TimerCoder, Timestamp, Window, WindowCoder};

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
    // The first two may each be followed by a thousand, which come by two.
    assert_eq!(rounds, 1 + 1 + 1_000);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

/// Tags of the timers that a bundle fires, all of them of family "t".
fn tags(bundle: &Bundle, window: &Window) -> Vec<String> {
    let coder = TimerCoder {
        key: Coder::Utf8,
        window: match window {
            Window::Global => WindowCoder::Global,
            _ => WindowCoder::Interval,
        },
    };
    let fired = timers(bundle).into_iter().map(|(_, data)| Bytes::from(data));
    let decoded = fired.flat_map(|data| coder.decode_all(&data).collect::<Vec<_>>());
    decoded.map(|timer| timer.unwrap().dynamic_tag).collect()
}

/// Lets all bundles end in which timers of one stage fire. `next` tells what a timer sets, by tag. Returns the tags of all that
/// fired.
fn fire_all(
    hand: &mut Hand,
    transform: TransformId,
    window: &Window,
    at: i64,
    next: impl Fn(&str) -> Vec<String>,
) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(bundle) = hand.started.pop() {
        let fired = tags(&bundle, window);
        let set = |tag: &String| timer("k", window.clone(), tag, Some((at, Timestamp::MAX.0)));
        let new: Vec<u8> = fired
            .iter()
            .flat_map(|tag| next(tag))
            .flat_map(|tag| set(&tag))
            .collect();
        all.extend(fired);
        hand.finish_with_timers(&bundle, transform, &[("t", new)]);
    }
    all
}

/// As many chains of timers as there are, none is cut because there are others.
#[test]
fn a_drain_fires_all_timers_of_many_short_chains() {
    for domain in [TimeDomain::ProcessingTime, TimeDomain::EventTime] {
        let (mut hand, bundle, transform, _, _) = grouped_timers(domain);
        let first: Vec<u8> = (0..1_500).flat_map(|n| set(&format!("{n}/0"), 50_000)).collect();
        // Those of event time are due before: the input is at its end. They set the others while the job drains.
        hand.tell(Event::Drain);
        hand.finish_with_timers(&bundle, transform, &[("t", first)]);
        let next = |tag: &str| {
            let (number, turn) = tag.split_once('/').unwrap();
            let turn: u32 = turn.parse().unwrap();
            Vec::from_iter((turn < 3).then(|| format!("{number}/{}", turn + 1)))
        };
        let mut fired = fire_all(&mut hand, transform, &Window::Global, 60_000, next);
        assert_eq!(fired.len(), 4 * 1_500, "{domain:?}");
        fired.sort();
        fired.dedup();
        assert_eq!(fired.len(), 4 * 1_500, "{domain:?}");
        assert_eq!(hand.finished(), Some(Outcome::Drained));
    }
}

/// The same at the end of a window, of a job that nobody drains.
#[test]
fn many_timers_may_set_one_at_the_end_of_their_window() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::EventTime);
    let (mut hand, bundle) = to_timers(build, pairs);
    let window = interval(0, 10);
    let first = |n: i32| timer("k", window.clone(), &format!("{n}"), Some((5, Timestamp::MAX.0)));
    hand.finish_with_timers(&bundle, transform, &[("t", (0..1_500).flat_map(first).collect())]);
    let next = |tag: &str| {
        let last = format!("last {tag}");
        Vec::from_iter((!tag.starts_with("last")).then_some(last))
    };
    let fired = fire_all(&mut hand, transform, &window, 9, next);
    assert_eq!(fired.iter().filter(|tag| tag.starts_with("last")).count(), 1_500);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

/// Nobody tells which timer set which: a loop and a chain that fire together share what may come, and the chain gets its part.
#[test]
fn a_loop_of_timers_does_not_cut_a_chain() {
    let (mut hand, bundle, transform, _, _) = grouped_timers(TimeDomain::ProcessingTime);
    hand.finish_with_timers(
        &bundle,
        transform,
        &[("t", [set("loop 0", 1), set("chain 0", 1)].concat())],
    );
    hand.tell(Event::Drain);
    let mut chain = Vec::new();
    let mut rounds = 0;
    while let Some(bundle) = hand.started.pop() {
        let mut new = Vec::new();
        for tag in tags(&bundle, &Window::Global) {
            let (kind, turn) = tag.split_once(' ').unwrap();
            let next = turn.parse::<i64>().unwrap() + 1;
            // The chain's timers are due after all of the loop's.
            match kind {
                "loop" => new.extend(set(&format!("loop {next}"), 2)),
                _ if next < 3 => new.extend(set(&format!("chain {next}"), 1_000_000 * next)),
                _ => {}
            }
            if kind == "chain" {
                chain.push(next);
            }
        }
        hand.finish_with_timers(&bundle, transform, &[("t", new)]);
        rounds += 1;
        assert!(rounds < 10_000, "the loop goes on");
    }
    // A bundle of both is undone, as the loop's timer sets one that is due before the chain's.
    chain.dedup();
    assert_eq!(chain, [1, 2, 3]);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

/// Even if each timer sets two.
#[test]
fn a_drain_ends_timers_that_become_ever_more() {
    let (mut hand, bundle, transform, _, _) = grouped_timers(TimeDomain::ProcessingTime);
    hand.finish_with_timers(&bundle, transform, &[("t", set("", 50_000))]);
    hand.tell(Event::Drain);
    let next = |tag: &str| vec![format!("{tag}a"), format!("{tag}b")];
    let fired = fire_all(&mut hand, transform, &Window::Global, 60_000, next);
    assert!((1_000..3_000).contains(&fired.len()), "{}", fired.len());
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
