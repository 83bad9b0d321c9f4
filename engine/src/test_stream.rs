//! TestStreams: sources that follow a script, one step at a time, each when nothing else is left to do.
//!
//! Several of them share one clock: each has its own place in processing time, moved by its own script, and the one
//! that is furthest behind goes next.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use purlin_model::windowed::encode_header;
use purlin_model::{PaneInfo, Timestamp, Window};

use crate::chunk::Chunk;
use crate::graph::{CollectionId, TestStream, TestStreamEvent, TransformId};
use crate::watermark::Watermark;

#[derive(Debug)]
pub(crate) struct StreamState {
    pub transform: TransformId,
    pub outputs: Vec<CollectionId>,
    pub watermarks: Vec<Watermark>,
    events: VecDeque<TestStreamEvent>,
    /// No more events come from outside.
    complete: bool,
    /// The end was told.
    pub ended: bool,
    /// Milliseconds of processing time that its script has passed.
    elapsed: i64,
}

/// What a step of a script does.
#[derive(Debug)]
pub(crate) enum Step {
    /// Elements for a collection.
    Elements(CollectionId, Chunk),
    /// Watermarks or the clock moved.
    Moved,
    /// A script names an output that its transform does not have.
    BadOutput(TransformId, usize),
}

#[derive(Debug, Default)]
pub(crate) struct TestStreams {
    pub streams: Vec<StreamState>,
}

/// Elements with their timestamps.
type Elements = Vec<(Bytes, Timestamp)>;

/// What comes together in an event is one bundle, but for elements behind the watermark and before it, which are two: SDKs
/// combine what comes in one bundle before it is grouped, and one that is late would make the others late.
fn apart(elements: Elements, watermark: Timestamp) -> (Elements, Elements) {
    let late = |(_, at): &(Bytes, Timestamp)| *at < watermark;
    let first = elements.first().is_some_and(late);
    elements.into_iter().partition(|element| late(element) == first)
}

impl TestStreams {
    pub fn add(&mut self, transform: TransformId, outputs: &[CollectionId], script: &TestStream) {
        self.streams.push(StreamState {
            transform,
            outputs: outputs.to_vec(),
            watermarks: vec![Watermark::START; outputs.len()],
            events: script.events.iter().cloned().collect(),
            complete: !script.remote,
            ended: false,
            elapsed: 0,
        });
    }

    /// Whether the virtual clock governs.
    pub fn any(&self) -> bool {
        !self.streams.is_empty()
    }

    pub fn all_ended(&self) -> bool {
        self.streams.iter().all(|stream| stream.ended)
    }

    /// Events came from an endpoint.
    pub fn push(&mut self, transform: TransformId, events: Vec<TestStreamEvent>, done: bool) {
        if let Some(stream) = self
            .streams
            .iter_mut()
            .find(|stream| stream.transform == transform && !stream.complete)
        {
            stream.events.extend(events);
            stream.complete = done;
        }
    }

    /// Ends all scripts at once.
    pub fn drain(&mut self) {
        for stream in &mut self.streams {
            stream.events.clear();
            stream.complete = true;
        }
    }

    /// How far the common clock is: where the one furthest behind is.
    pub fn elapsed(&self) -> i64 {
        let open = self
            .streams
            .iter()
            .filter(|stream| !stream.ended)
            .map(|stream| stream.elapsed)
            .min();
        open.or_else(|| self.streams.iter().map(|stream| stream.elapsed).max())
            .unwrap_or(0)
    }

    /// Takes the next step, if one can be taken.
    pub fn step(&mut self) -> Option<Step> {
        let open = self.streams.iter_mut().filter(|stream| !stream.ended);
        let stream = open.min_by_key(|stream| stream.elapsed)?;
        let Some(event) = stream.events.pop_front() else {
            if !stream.complete {
                return None;
            }
            stream.ended = true;
            for watermark in &mut stream.watermarks {
                watermark.advance(Timestamp::MAX);
            }
            return Some(Step::Moved);
        };
        Some(match event {
            TestStreamEvent::Elements { output, elements } => match stream.outputs.get(output) {
                Some(collection) => {
                    let (elements, rest) = apart(elements, stream.watermarks[output].get());
                    if !rest.is_empty() {
                        let elements = rest;
                        stream
                            .events
                            .push_front(TestStreamEvent::Elements { output, elements });
                    }
                    let mut data = Vec::new();
                    let mut min_timestamp = Timestamp::MAX;
                    for (value, timestamp) in &elements {
                        encode_header(*timestamp, &[Window::Global], PaneInfo::NO_FIRING, &mut data);
                        data.extend_from_slice(value);
                        min_timestamp = min_timestamp.min(*timestamp);
                    }
                    let count = elements.len() as u64;
                    Step::Elements(
                        *collection,
                        Chunk {
                            data: data.into(),
                            count,
                            min_timestamp,
                        },
                    )
                }
                None => Step::BadOutput(stream.transform, output),
            },
            TestStreamEvent::Watermark { output: None, to } => {
                for watermark in &mut stream.watermarks {
                    watermark.advance(to);
                }
                Step::Moved
            }
            TestStreamEvent::Watermark {
                output: Some(output),
                to,
            } => match stream.watermarks.get_mut(output) {
                Some(watermark) => {
                    watermark.advance(to);
                    Step::Moved
                }
                None => Step::BadOutput(stream.transform, output),
            },
            TestStreamEvent::ProcessingTime(millis) => {
                stream.elapsed = stream.elapsed.saturating_add(millis.max(0));
                Step::Moved
            }
        })
    }
}
