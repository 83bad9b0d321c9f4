//! What one running bundle has sent back so far, and whether that is all.

use std::collections::HashMap;

use bytes::Bytes;
use purlin_proto::fn_execution as fnapi;

use crate::worker::BundleOutcome;

/// Gathers a bundle's outputs. A bundle is whole when its response has come and every sink and timer family
/// has been closed by `is_last`, be it on the data stream or embedded in the response.
#[derive(Debug)]
pub(crate) struct Collector {
    /// By transform id: whether the sink is still open.
    sinks: HashMap<String, bool>,
    /// By transform id and timer family id: whether the stream is still open.
    timers: HashMap<(String, String), bool>,
    open: usize,
    outcome: BundleOutcome,
    responded: bool,
}

/// What a worker may not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the worker sent data for transform {0:?}, which is no data sink of the bundle")]
    UnknownSink(String),
    #[error(
        "the worker sent timers of family {1:?} for transform {0:?}, which has no such family in the bundle"
    )]
    UnknownTimers(String, String),
    #[error("the worker sent more for {0} after it had closed that stream (is_last)")]
    AfterLast(String),
    #[error("the worker answered the bundle twice")]
    SecondResponse,
    #[error("the worker answered the bundle with {0}")]
    WrongResponse(&'static str),
}

impl Collector {
    pub(crate) fn new(sinks: &[String], timers: &[(String, String)]) -> Self {
        let sinks: HashMap<_, _> = sinks.iter().map(|s| (s.clone(), true)).collect();
        let timers: HashMap<_, _> = timers.iter().map(|t| (t.clone(), true)).collect();
        let open = sinks.len() + timers.len();
        Self {
            sinks,
            timers,
            open,
            outcome: BundleOutcome::default(),
            responded: false,
        }
    }

    /// Takes data of one sink.
    pub(crate) fn data(&mut self, data: fnapi::elements::Data) -> Result<(), ProtocolError> {
        let Some(open) = self.sinks.get_mut(&data.transform_id) else {
            return Err(ProtocolError::UnknownSink(data.transform_id));
        };
        if !*open {
            return Err(ProtocolError::AfterLast(format!(
                "data sink {:?}",
                data.transform_id
            )));
        }
        if data.is_last {
            *open = false;
            self.open -= 1;
        }
        if !data.data.is_empty() {
            self.outcome.outputs.push((data.transform_id, data.data));
        }
        Ok(())
    }

    /// Takes timers of one family.
    pub(crate) fn timers(&mut self, timers: fnapi::elements::Timers) -> Result<(), ProtocolError> {
        let key = (timers.transform_id, timers.timer_family_id);
        let Some(open) = self.timers.get_mut(&key) else {
            return Err(ProtocolError::UnknownTimers(key.0, key.1));
        };
        if !*open {
            return Err(ProtocolError::AfterLast(format!(
                "timer family {:?} of {:?}",
                key.1, key.0
            )));
        }
        if timers.is_last {
            *open = false;
            self.open -= 1;
        }
        if !timers.timers.is_empty() {
            self.outcome.timers.push((key.0, key.1, timers.timers));
        }
        Ok(())
    }

    /// Takes the response, and what is embedded in it.
    pub(crate) fn response(
        &mut self,
        mut response: fnapi::ProcessBundleResponse,
    ) -> Result<(), ProtocolError> {
        if self.responded {
            return Err(ProtocolError::SecondResponse);
        }
        self.responded = true;
        if let Some(elements) = response.elements.take() {
            for data in elements.data {
                self.data(data)?;
            }
            for timers in elements.timers {
                self.timers(timers)?;
            }
        }
        self.outcome.response = response;
        Ok(())
    }

    /// The outcome, if all of it has come.
    pub(crate) fn take_if_whole(&mut self) -> Option<BundleOutcome> {
        (self.responded && self.open == 0).then(|| std::mem::take(&mut self.outcome))
    }

    /// Whether the response has come.
    pub(crate) fn responded(&self) -> bool {
        self.responded
    }

    /// The streams that the worker has not closed, for a message.
    pub(crate) fn still_open(&self) -> Vec<String> {
        let sinks = self
            .sinks
            .iter()
            .filter(|(_, open)| **open)
            .map(|(s, _)| format!("data sink {s:?}"));
        let timers = self.timers.iter().filter(|(_, open)| **open);
        let timers = timers.map(|((t, f), _)| format!("timer family {f:?} of {t:?}"));
        let mut all: Vec<String> = sinks.chain(timers).collect();
        all.sort();
        all
    }
}

/// Concatenates nothing: counts the payload bytes of a message.
pub(crate) fn payload_bytes(data: &[fnapi::elements::Data], timers: &[fnapi::elements::Timers]) -> usize {
    data.iter().map(|d| d.data.len()).sum::<usize>() + timers.iter().map(|t| t.timers.len()).sum::<usize>()
}

/// A data entry.
pub(crate) fn data_entry(
    instruction: &str,
    transform: &str,
    data: Bytes,
    is_last: bool,
) -> fnapi::elements::Data {
    fnapi::elements::Data {
        instruction_id: instruction.into(),
        transform_id: transform.into(),
        data,
        is_last,
    }
}

/// A timer entry.
pub(crate) fn timer_entry(
    instruction: &str,
    transform: &str,
    family: &str,
    timers: Bytes,
    is_last: bool,
) -> fnapi::elements::Timers {
    fnapi::elements::Timers {
        instruction_id: instruction.into(),
        transform_id: transform.into(),
        timer_family_id: family.into(),
        timers,
        is_last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(transform: &str, bytes: &'static [u8], is_last: bool) -> fnapi::elements::Data {
        data_entry("i", transform, Bytes::from_static(bytes), is_last)
    }

    #[test]
    fn a_bundle_ends_with_the_response_and_every_is_last() {
        let mut c = Collector::new(&["s".into()], &[("t".into(), "f".into())]);
        c.data(data("s", b"ab", false)).unwrap();
        c.response(fnapi::ProcessBundleResponse::default()).unwrap();
        assert!(c.take_if_whole().is_none());
        c.data(data("s", b"c", true)).unwrap();
        assert_eq!(c.still_open(), ["timer family \"f\" of \"t\""]);
        assert!(c.take_if_whole().is_none());
        c.timers(timer_entry("i", "t", "f", Bytes::new(), true)).unwrap();
        let outcome = c.take_if_whole().unwrap();
        let outputs: Vec<&[u8]> = outcome.outputs.iter().map(|(_, b)| b.as_ref()).collect();
        assert_eq!(outputs, [b"ab".as_ref(), b"c"]);
        assert!(outcome.timers.is_empty());
    }

    #[test]
    fn embedded_elements_count() {
        let mut c = Collector::new(&["s".into()], &[]);
        let elements = fnapi::Elements {
            data: vec![data("s", b"x", true)],
            timers: vec![],
        };
        c.response(fnapi::ProcessBundleResponse {
            elements: Some(elements),
            ..Default::default()
        })
        .unwrap();
        assert_eq!(c.take_if_whole().unwrap().outputs.len(), 1);
    }

    #[test]
    fn a_bundle_without_sinks_ends_with_its_response() {
        let mut c = Collector::new(&[], &[]);
        assert!(c.take_if_whole().is_none());
        c.response(fnapi::ProcessBundleResponse::default()).unwrap();
        assert!(c.take_if_whole().is_some());
    }

    #[test]
    fn hostile_sequences_are_errors() {
        let mut c = Collector::new(&["s".into()], &[("t".into(), "f".into())]);
        assert!(matches!(
            c.data(data("x", b"", true)),
            Err(ProtocolError::UnknownSink(_))
        ));
        c.data(data("s", b"", true)).unwrap();
        assert!(matches!(
            c.data(data("s", b"", true)),
            Err(ProtocolError::AfterLast(_))
        ));
        let wrong = timer_entry("i", "t", "g", Bytes::new(), false);
        assert!(matches!(c.timers(wrong), Err(ProtocolError::UnknownTimers(..))));
        c.timers(timer_entry("i", "t", "f", Bytes::new(), true)).unwrap();
        assert!(matches!(
            c.timers(timer_entry("i", "t", "f", Bytes::new(), true)),
            Err(ProtocolError::AfterLast(_))
        ));
        c.response(fnapi::ProcessBundleResponse::default()).unwrap();
        assert_eq!(
            c.response(fnapi::ProcessBundleResponse::default()),
            Err(ProtocolError::SecondResponse)
        );
    }
}
