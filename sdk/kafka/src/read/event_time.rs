//! Event times of records, and what they tell of those to come.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purlin::prelude::*;

use crate::record::KafkaRecord;

type Times = Arc<dyn Fn(&KafkaRecord) -> Result<Timestamp, BoxError> + Send + Sync>;

/// How event times and watermarks come to be.
#[derive(Clone)]
pub(crate) struct EventTime {
    /// None: the record's own timestamp.
    pub of: Option<Times>,
    /// So much later than others a record may come that was earlier.
    pub max_delay: Duration,
    /// After so long at the end of a partition, its watermark goes with the clock. None: it waits for the next record.
    pub idle_after: Option<Duration>,
}

impl EventTime {
    pub fn of_record(&self, record: &KafkaRecord) -> Result<Timestamp, BoxError> {
        self.of.as_ref().map_or(Ok(record.timestamp), |of| of(record))
    }

    /// The watermark behind records of which this is the latest.
    pub fn behind(&self, latest: Timestamp) -> Timestamp {
        latest.plus_millis(-millis(self.max_delay))
    }

    /// The watermark of a partition that has had nothing for so long.
    pub fn idle(&self, now: Timestamp, idle_for: Duration) -> Option<Timestamp> {
        let after = self.idle_after.filter(|after| idle_for >= *after)?;
        Some(now.plus_millis(-millis(self.max_delay.saturating_add(after))))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTime")
            .field("by_function", &self.of.is_some())
            .field("max_delay", &self.max_delay)
            .field("idle_after", &self.idle_after)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_watermark_stays_behind_the_latest_record_and_goes_with_the_clock_when_idle() {
        let times = EventTime {
            of: None,
            max_delay: Duration::from_millis(30),
            idle_after: Some(Duration::from_millis(500)),
        };
        assert_eq!(times.behind(at(1000)), at(970));
        assert_eq!(times.idle(at(9000), Duration::from_millis(499)), None);
        assert_eq!(times.idle(at(9000), Duration::from_millis(500)), Some(at(8470)));
        let waits = EventTime {
            idle_after: None,
            ..times
        };
        assert_eq!(waits.idle(at(9000), Duration::from_secs(3600)), None);
    }
}
