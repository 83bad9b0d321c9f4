//! Elements, watermarks and clocks as a script.

use std::time::Duration;

use prost::Message;
use purlin_model::{Element, Timestamp};
use purlin_proto::pipeline::TestStreamPayload;
use purlin_proto::pipeline::test_stream_payload::event::{
    AddElements, AdvanceProcessingTime, AdvanceWatermark, Event as Kind,
};
use purlin_proto::pipeline::test_stream_payload::{Event, TimestampedElement};
use purlin_proto::urns::transforms;

use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::windowing::Windowing;

/// A source whose elements come when a script says so: in its order, between moves of the watermark and the clock. All
/// that one step causes happens before the next one.
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// let seconds = |s: i64| Timestamp::from_millis(s * 1000);
/// let p = TestPipeline::new();
/// let numbers: PCollection<i64> = p.apply(
///     TestStream::new()
///         .element(1, seconds(3))
///         .advance_watermark_to(seconds(10))
///         .element(2, seconds(4)) // late
///         .element(3, seconds(12)),
/// );
/// let sums = numbers
///     .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
///     .map("Key", |n: i64| ((), n))
///     .combine_per_key("Sum", Sum::new())
///     .values();
/// PAssert::that(&sums).contains_in_any_order([1, 3]);
/// p.run();
/// ```
#[derive(Clone, Debug)]
pub struct TestStream<T> {
    events: Vec<Event>,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T: Element> TestStream<T> {
    /// A script without steps. At its end the watermark is at the end of time.
    pub fn new() -> TestStream<T> {
        TestStream {
            events: Vec::new(),
            element: std::marker::PhantomData,
        }
    }

    fn push(mut self, event: Kind) -> Self {
        self.events.push(Event { event: Some(event) });
        self
    }

    /// Emits an element.
    #[must_use]
    pub fn element(self, element: T, timestamp: Timestamp) -> Self {
        self.elements([(element, timestamp)])
    }

    /// Emits several elements in one step.
    #[must_use]
    pub fn elements(self, elements: impl IntoIterator<Item = (T, Timestamp)>) -> Self {
        let elements = elements
            .into_iter()
            .map(|(element, timestamp)| TimestampedElement {
                encoded_element: element.to_bytes().into(),
                timestamp: timestamp.millis(),
            });
        let elements = elements.collect();
        self.push(Kind::ElementEvent(AddElements {
            elements,
            tag: String::new(),
        }))
    }

    /// Moves the watermark forward.
    #[must_use]
    pub fn advance_watermark_to(self, watermark: Timestamp) -> Self {
        self.push(Kind::WatermarkEvent(AdvanceWatermark {
            new_watermark: watermark.millis(),
            tag: String::new(),
        }))
    }

    /// Moves the watermark to the end of time.
    #[must_use]
    pub fn advance_watermark_to_infinity(self) -> Self {
        self.advance_watermark_to(Timestamp::MAX)
    }

    /// Moves the clock of processing time forward.
    #[must_use]
    pub fn advance_processing_time(self, by: Duration) -> Self {
        self.push(Kind::ProcessingTimeEvent(AdvanceProcessingTime {
            advance_duration: i64::try_from(by.as_millis()).unwrap_or(i64::MAX),
        }))
    }
}

impl<T: Element> Default for TestStream<T> {
    fn default() -> Self {
        TestStream::new()
    }
}

impl<T: Element> PTransform<PBegin> for TestStream<T> {
    type Output = PCollection<T>;

    fn name(&self) -> String {
        "TestStream".into()
    }

    fn expand(self, input: PBegin) -> PCollection<T> {
        let pipeline = input.pipeline();
        let mut watermark = i64::MIN;
        for event in &self.events {
            if let Some(Kind::WatermarkEvent(advance)) = &event.event {
                if advance.new_watermark < watermark {
                    pipeline.problem("its watermark moves backwards");
                }
                watermark = advance.new_watermark;
            }
        }
        let mut events = self.events;
        if watermark < Timestamp::MAX.millis() {
            let end = AdvanceWatermark {
                new_watermark: Timestamp::MAX.millis(),
                tag: String::new(),
            };
            events.push(Event {
                event: Some(Kind::WatermarkEvent(end)),
            });
        }
        let payload = TestStreamPayload {
            coder_id: pipeline.coder_id(&T::coder()),
            events,
            endpoint: None,
        };
        pipeline.set_spec(transforms::TEST_STREAM, payload.encode_to_vec());
        pipeline.new_collection("out", Windowing::global(), false)
    }
}
