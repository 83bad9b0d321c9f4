//! A GroupByKey under test: written input, written output.

mod merging;
mod properties;
mod transcripts;
mod triggers;
mod windows;

use std::fmt::Write;

use purlin_model::{Coder, Header, PaneInfo, Timestamp, Timing, Walker, Window, WindowCoder, wire};

use super::Grouper;
use crate::chunk::Chunk;
use crate::graph::{
    Accumulation, PaneEmission, TimestampCombiner, TimestampTransform, Trigger, WindowFn, Windowing,
};

/// Fixed windows of ten milliseconds, else what Beam's Python SDK takes where nothing is said.
pub(super) fn fixed(trigger: &str) -> Windowing {
    Windowing {
        window_fn: WindowFn::Fixed {
            size_ms: 10,
            offset_ms: 0,
        },
        trigger: parse_trigger(trigger),
        accumulation: Accumulation::Discarding,
        allowed_lateness_ms: 0,
        closing: PaneEmission::IfNonEmpty,
        on_time: PaneEmission::Always,
        timestamp_combiner: TimestampCombiner::EndOfWindow,
        environment: None,
    }
}

/// An emitted pane, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) key: String,
    pub(super) window: Window,
    /// In order of size.
    pub(super) values: Vec<u64>,
    pub(super) timestamp: Timestamp,
    pub(super) pane: PaneInfo,
}

/// A Grouper of strings and numbers with its clocks.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) grouper: Grouper,
    window_fn: WindowFn,
    pub(super) now: Timestamp,
    pub(super) synchronized_now: Timestamp,
    pub(super) watermark: Timestamp,
}

impl Subject {
    pub(super) fn new(windowing: Windowing) -> Subject {
        let window_fn = windowing.window_fn.clone();
        let window_coder = match window_fn {
            WindowFn::Global => WindowCoder::Global,
            _ => WindowCoder::Interval,
        };
        Subject {
            grouper: Grouper::new(Coder::Bytes, Coder::VarInt, window_coder, windowing),
            window_fn,
            now: Timestamp(0),
            synchronized_now: Timestamp(0),
            watermark: Timestamp::MIN,
        }
    }

    /// A chunk of elements, each a value and a timestamp.
    pub(super) fn chunk(&self, key: &str, elements: &[(u64, i64)]) -> Chunk {
        let mut data = Vec::new();
        for &(value, timestamp) in elements {
            let windows = match self.window_fn {
                // Stands for a function of some SDK: windows of one millisecond, to be merged by tens.
                WindowFn::Custom(_) => {
                    let (start, end) = (Timestamp(timestamp), Timestamp(timestamp + 1));
                    vec![Window::Interval { start, end }]
                }
                _ => self.window_fn.assign(Timestamp(timestamp)).to_vec(),
            };
            let windows = windows.into_iter().collect();
            let pane = PaneInfo::NO_FIRING;
            Header {
                timestamp: Timestamp(timestamp),
                windows,
                pane,
            }
            .encode(&mut data);
            wire::write_bytes(key.as_bytes(), &mut data, true);
            wire::write_varint(value, &mut data);
        }
        let min_timestamp = elements
            .iter()
            .map(|element| Timestamp(element.1))
            .min()
            .unwrap_or(Timestamp::MAX);
        Chunk {
            data: data.into(),
            count: elements.len() as u64,
            min_timestamp,
        }
    }

    pub(super) fn ingest(&mut self, key: &str, elements: &[(u64, i64)]) {
        let chunk = self.chunk(key, elements);
        self.grouper
            .ingest(&chunk, self.now, self.watermark)
            .expect("the chunk is well-formed");
    }

    pub(super) fn advance(&mut self) -> Vec<Fired> {
        let mut out = Vec::new();
        let times = (self.now, self.watermark, self.synchronized_now);
        self.grouper
            .advance(times.0, times.1, times.2, &mut out)
            .expect("advancing does not fail");
        out.iter().flat_map(|chunk| self.decode(chunk)).collect()
    }

    fn decode(&self, chunk: &Chunk) -> Vec<Fired> {
        let window = match self.window_fn {
            WindowFn::Global => WindowCoder::Global,
            _ => WindowCoder::Interval,
        };
        let coder = Coder::kv(Coder::Bytes, Coder::iterable(Coder::VarInt));
        let mut fired = Vec::new();
        for element in Walker::new(&window, &coder, &chunk.data) {
            let element = element.expect("the output is well-formed");
            let mut rest = &chunk.data[element.value()];
            let key = wire::read_str(&mut rest, true).expect("a key").to_string();
            let count = wire::read_i32_be(&mut rest, "a count").expect("a count");
            let mut values: Vec<u64> = (0..count)
                .map(|_| wire::read_varint(&mut rest).expect("a value"))
                .collect();
            values.sort_unstable();
            assert!(rest.is_empty());
            assert_eq!(element.windows.len(), 1);
            let window = element.windows[0].clone();
            fired.push(Fired {
                key,
                window,
                values,
                timestamp: element.timestamp,
                pane: element.pane,
            });
        }
        assert_eq!(chunk.count, fired.len() as u64);
        assert_eq!(
            chunk.min_timestamp,
            fired.iter().map(|pane| pane.timestamp).min().unwrap()
        );
        fired
    }

    /// Runs a script and tells what fired. Lines of it:
    /// `+ key 1 2@5 ...` takes elements, value at timestamp (the same where one is told), and looks at triggers;
    /// `. key 1 ...` takes elements only; `w 10` moves the watermark, `p 10` processing time, `s 10` the synchronized.
    pub(super) fn run(&mut self, script: &str) -> String {
        let mut report = String::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let command = words.next().expect("a line has words");
            let words: Vec<_> = words.collect();
            let time = || match words[0] {
                "end" => Timestamp::MAX,
                millis => Timestamp(millis.parse().expect("a time in milliseconds")),
            };
            match command {
                "+" | "." => {
                    let element = |word: &&str| {
                        let (value, timestamp) = word.split_once('@').unwrap_or((word, word));
                        (
                            value.parse().expect("a value"),
                            timestamp.parse().expect("a timestamp"),
                        )
                    };
                    let elements: Vec<_> = words[1..].iter().map(element).collect();
                    self.ingest(words[0], &elements);
                }
                "w" => self.watermark = time(),
                "p" => self.now = time(),
                "s" => self.synchronized_now = time(),
                other => panic!("{other} is no command"),
            }
            writeln!(report, "{line}").unwrap();
            if command != "." {
                for fired in self.advance() {
                    writeln!(report, "    {}", show(&fired)).unwrap();
                }
            }
        }
        report
    }
}

/// One line for a pane.
pub(super) fn show(fired: &Fired) -> String {
    let Fired {
        key,
        window,
        values,
        timestamp,
        pane,
    } = fired;
    let window = match window {
        Window::Interval { start, end } => format!("[{}, {})", start.millis(), end.millis()),
        other => other.to_string(),
    };
    let timing = match pane.timing {
        Timing::Early => "early",
        Timing::OnTime => "on time",
        Timing::Late => "late",
        Timing::Unknown => "unknown",
    };
    let mut line = format!(
        "{key} {window} {values:?} at {} {timing} {}/{}",
        match *timestamp {
            Timestamp::END_OF_GLOBAL_WINDOW => "end".to_string(),
            timestamp => timestamp.millis().to_string(),
        },
        pane.index,
        pane.nonspeculative_index
    );
    assert_eq!(pane.is_first, pane.index == 0);
    if pane.is_last {
        line += " last";
    }
    line
}

/// Runs a script against a windowing.
pub(super) fn check(windowing: Windowing, script: &str, expected: expect_test::Expect) {
    expected.assert_eq(&Subject::new(windowing).run(script));
}

/// Reads a trigger as Beam's Python SDK would write it; processing time in milliseconds.
pub(super) fn parse_trigger(text: &str) -> Trigger {
    let text = text.trim();
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')').expect("a closing bracket")),
        None => (text, ""),
    };
    let arguments = split_arguments(arguments);
    let subs = || {
        arguments
            .iter()
            .map(|argument| parse_trigger(argument))
            .collect::<Vec<_>>()
    };
    let named = |name: &str| {
        let found = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        found.map(|trigger| Box::new(parse_trigger(trigger)))
    };
    let number = || {
        arguments
            .first()
            .expect("a number")
            .parse::<u32>()
            .expect("a number")
    };
    match name {
        "Default" => Trigger::Default,
        "AfterWatermark" => Trigger::AfterEndOfWindow {
            early: named("early"),
            late: named("late"),
        },
        "AfterCount" => Trigger::ElementCount(number()),
        "AfterProcessingTime" => {
            Trigger::AfterProcessingTime(vec![TimestampTransform::Delay(i64::from(number()))])
        }
        "AfterSynchronizedProcessingTime" => Trigger::AfterSynchronizedProcessingTime,
        "AfterEach" => Trigger::AfterEach(subs()),
        "AfterAll" => Trigger::AfterAll(subs()),
        "AfterAny" => Trigger::AfterAny(subs()),
        "OrFinally" => {
            let [main, until] = subs().try_into().expect("two triggers");
            Trigger::OrFinally(Box::new(main), Box::new(until))
        }
        "Repeatedly" => Trigger::Repeat(Box::new(subs().remove(0))),
        "Always" => Trigger::Always,
        "Never" => Trigger::Never,
        other => panic!("{other} is no trigger"),
    }
}

/// Splits at the commas that are in no bracket.
fn split_arguments(text: &str) -> Vec<&str> {
    let (mut arguments, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        arguments.push(text[start..].trim());
    }
    arguments
}
