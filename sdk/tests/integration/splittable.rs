//! What is told of splittable DoFns that break a rule, and what splits do to restrictions.

use std::collections::BTreeMap;

use proptest::prelude::*;
use purlin::prelude::*;

/// Breaks a rule.
#[derive(Clone)]
struct Careless(u8);

impl SplittableDoFn for Careless {
    type In = i64;
    type Out = i64;
    type Tracker = OffsetTracker;
    type Watermark = NoWatermark;
    fn initial_restriction(&self, element: &i64) -> Result<OffsetRange, BoxError> {
        if self.0 == 2 {
            return Err("no such file".into());
        }
        Ok(OffsetRange::new(0, *element))
    }
    fn tracker(&self, _: &i64, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }
    fn process(&mut self, _: &i64, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        ctx.try_claim(3);
        if self.0 == 1 {
            ctx.try_claim(2);
        }
        Ok(Continuation::Done)
    }
}

#[test]
fn errors_name_the_transform_and_what_is_wrong() {
    // One at a time: where a worker is idle, the restriction may be split before it is claimed wrongly.
    let options = PipelineOptions {
        direct_num_workers: 1,
        ..PipelineOptions::default()
    };
    for (what, expected) in [
        (0, "offsets from 4 of [0, 10) were not claimed"),
        (1, "claimed in ascending order, but 2 comes after 3"),
        (2, "no such file"),
    ] {
        let p = Pipeline::new();
        p.apply(Create::new([10i64]))
            .splittable_par_do("Careless", Careless(what));
        let error = p.run(&options).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.contains("transform \"Careless") && error.contains(expected),
            "{error}"
        );
    }
}

/// What happens to a tracker.
#[derive(Clone, Debug)]
enum Step {
    /// So many claims.
    Claim(u8),
    Split(f64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let claim = (1u8..20).prop_map(Step::Claim);
    let split = prop_oneof![Just(0.0), Just(1.0), 0.0f64..1.0].prop_map(Step::Split);
    prop::collection::vec(prop_oneof![claim, split], 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Work is handed from worker to worker by splits at random; each offset is processed once.
    #[test]
    fn any_split_processes_each_offset_once(start in -50i64..50, length in 0i64..200, steps in steps()) {
        let whole = OffsetRange::new(start, start + length);
        let mut waiting = vec![whole];
        let mut counts: BTreeMap<i64, u32> = BTreeMap::new();
        let mut steps = steps.into_iter();
        while let Some(restriction) = waiting.pop() {
            let mut tracker = OffsetTracker::new(restriction);
            let mut next = restriction.start;
            'element: loop {
                match steps.next() {
                    Some(Step::Claim(count)) => {
                        for _ in 0..count {
                            if !tracker.try_claim(next) {
                                break 'element;
                            }
                            *counts.entry(next).or_default() += 1;
                            next += 1;
                        }
                    }
                    Some(Step::Split(fraction)) => {
                        let before = tracker.restriction();
                        if let Some(residual) = tracker.try_split(fraction) {
                            let primary = tracker.restriction();
                            prop_assert_eq!(primary.start, before.start);
                            prop_assert_eq!(primary.end, residual.start);
                            prop_assert_eq!(residual.end, before.end);
                            prop_assert!(!residual.is_empty());
                            waiting.push(residual);
                        } else {
                            prop_assert_eq!(tracker.restriction(), before);
                        }
                        let progress = tracker.progress();
                        prop_assert!(progress.completed >= 0.0 && progress.remaining >= 0.0);
                        let all = tracker.restriction().len() as f64;
                        prop_assert_eq!(progress.completed + progress.remaining, all);
                    }
                    None => {
                        if !tracker.try_claim(next) {
                            break;
                        }
                        *counts.entry(next).or_default() += 1;
                        next += 1;
                    }
                }
            }
            prop_assert!(tracker.check_done().is_ok());
        }
        let expected: BTreeMap<i64, u32> = (whole.start..whole.end).map(|offset| (offset, 1)).collect();
        prop_assert_eq!(counts, expected);
    }

    #[test]
    fn an_initial_split_loses_nothing(start in any::<i64>(), length in 0u64..=u64::MAX, pieces in 1u64..50) {
        let whole = OffsetRange::new(start, start.saturating_add_unsigned(length));
        let parts = whole.split((whole.len() / pieces).max(1));
        prop_assert_eq!(parts.first().map(|part| part.start), Some(whole.start));
        prop_assert_eq!(parts.last().map(|part| part.end), Some(whole.end));
        for pair in parts.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
        }
        prop_assert!(parts.len() <= 2 * pieces as usize + 1, "{} parts", parts.len());
    }
}
