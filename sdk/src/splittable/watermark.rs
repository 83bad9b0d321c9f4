//! Watermark estimators: what a splittable DoFn knows of the timestamps to come.

use std::time::{SystemTime, UNIX_EPOCH};

use purlin_model::{Element, Timestamp};

/// Tells a lower bound of the timestamps of outputs to come.
pub trait WatermarkEstimator: Send + 'static {
    /// What goes with a restriction that is put off.
    type State: Element;

    /// The state for a new element of this timestamp.
    fn initial(timestamp: Timestamp) -> Self::State;
    /// Takes up the estimate where it was left.
    fn new(state: Self::State) -> Self;
    /// An output of this timestamp is emitted.
    fn observe(&mut self, _timestamp: Timestamp) {}
    /// The estimate; `None` where nothing is known.
    fn current(&mut self) -> Option<Timestamp>;
    /// The state as it is now.
    fn state(&self) -> Self::State;
}

/// Nothing is known: the watermark waits until the element is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWatermark;

impl WatermarkEstimator for NoWatermark {
    type State = ();
    fn initial(_: Timestamp) {}
    fn new((): ()) -> Self {
        NoWatermark
    }
    fn current(&mut self) -> Option<Timestamp> {
        None
    }
    fn state(&self) {}
}

/// The watermark that user code sets.
#[derive(Clone, Copy, Debug)]
pub struct ManualWatermark(Timestamp);

impl ManualWatermark {
    /// No output before this is to come. A watermark does not go back: an earlier one changes nothing.
    pub fn set(&mut self, watermark: Timestamp) {
        self.0 = self.0.max(watermark);
    }
}

impl WatermarkEstimator for ManualWatermark {
    type State = Timestamp;
    fn initial(timestamp: Timestamp) -> Timestamp {
        timestamp
    }
    fn new(state: Timestamp) -> Self {
        ManualWatermark(state)
    }
    fn current(&mut self) -> Option<Timestamp> {
        Some(self.0)
    }
    fn state(&self) -> Timestamp {
        self.0
    }
}

/// Outputs come in the order of their timestamps: the watermark is the timestamp of the last one.
#[derive(Clone, Copy, Debug)]
pub struct MonotoneWatermark(Timestamp);

impl WatermarkEstimator for MonotoneWatermark {
    type State = Timestamp;
    fn initial(timestamp: Timestamp) -> Timestamp {
        timestamp
    }
    fn new(state: Timestamp) -> Self {
        MonotoneWatermark(state)
    }
    fn observe(&mut self, timestamp: Timestamp) {
        self.0 = self.0.max(timestamp);
    }
    fn current(&mut self) -> Option<Timestamp> {
        Some(self.0)
    }
    fn state(&self) -> Timestamp {
        self.0
    }
}

/// Outputs have the timestamps of the clock: the watermark is now.
#[derive(Clone, Copy, Debug)]
pub struct WallTimeWatermark(Timestamp);

impl WatermarkEstimator for WallTimeWatermark {
    type State = Timestamp;
    fn initial(timestamp: Timestamp) -> Timestamp {
        timestamp
    }
    fn new(state: Timestamp) -> Self {
        WallTimeWatermark(state)
    }
    fn current(&mut self) -> Option<Timestamp> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        // The clock may be set back.
        self.0 = self.0.max(now);
        Some(self.0)
    }
    fn state(&self) -> Timestamp {
        self.0
    }
}
