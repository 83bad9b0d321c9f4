//! What `RunInference` gives.

use purlin::Element;
use purlin::coders::{CoderSpec, DecodeError};
use purlin::pipeline::{CollectionRef, PValue};
use purlin::prelude::{PCollection, Pipeline};

/// An example with what the model gave for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictionResult<E, I> {
    /// The example.
    pub example: E,
    /// What the model gave.
    pub inference: I,
    /// The name of the model that gave it.
    pub model_id: String,
    /// The model's version, where its handler tells it. Of a watched file, its time of change in milliseconds and its size.
    pub model_version: Option<String>,
    /// A hash of the model's content, where its handler tells it.
    pub model_hash: Option<String>,
}

/// An example that the model or a step beside it failed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedExample<E> {
    /// The example; of a step before the model, what the first step was given.
    pub example: E,
    /// The error, with the name of the step if it is one's.
    pub error: String,
    /// The model's name. Empty for a key without a model.
    pub model_id: String,
}

/// Where examples went that failed; see [`RunInference::with_exception_handling`](crate::RunInference::with_exception_handling). The
/// names are Beam's.
#[derive(Debug, Clone)]
pub struct RunInferenceDlq<In, E> {
    /// Elements on which a step before the model failed.
    pub failed_preprocessing: PCollection<FailedExample<In>>,
    /// Examples on which the model failed.
    pub failed_inferences: PCollection<FailedExample<E>>,
    /// Examples on whose inferences a step behind the model failed.
    pub failed_postprocessing: PCollection<FailedExample<E>>,
}

impl<In, E> PValue for RunInferenceDlq<In, E> {
    fn pipeline_of(&self) -> Option<Pipeline> {
        self.failed_inferences.pipeline_of()
    }

    fn collections(&self, visit: &mut dyn FnMut(CollectionRef)) {
        self.failed_preprocessing.collections(visit);
        self.failed_inferences.collections(visit);
        self.failed_postprocessing.collections(visit);
    }
}

// They travel as pairs, so that examples and inferences need no more than be elements.

type Model = (String, (Option<String>, Option<String>));

impl<E: Element, I: Element> Element for PredictionResult<E, I> {
    fn coder() -> CoderSpec {
        <(E, (I, Model))>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.example.encode(out, true);
        self.inference.encode(out, true);
        self.model_id.encode(out, true);
        self.model_version.encode(out, true);
        self.model_hash.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (example, (inference, (model_id, (model_version, model_hash)))) =
            <(E, (I, Model))>::decode(input, nested)?;
        Ok(PredictionResult {
            example,
            inference,
            model_id,
            model_version,
            model_hash,
        })
    }
}

impl<E: Element> Element for FailedExample<E> {
    fn coder() -> CoderSpec {
        <(E, (String, String))>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.example.encode(out, true);
        self.error.encode(out, true);
        self.model_id.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (example, (error, model_id)) = <(E, (String, String))>::decode(input, nested)?;
        Ok(FailedExample {
            example,
            error,
            model_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_encode_as_pairs_do() {
        let result = PredictionResult {
            example: "a".to_owned(),
            inference: 7i64,
            model_id: "m".to_owned(),
            model_version: Some("3".to_owned()),
            model_hash: None,
        };
        let model = ("m".to_owned(), (Some("3".to_owned()), None::<String>));
        let pairs = ("a".to_owned(), (7i64, model));
        for nested in [true, false] {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            result.encode(&mut bytes, nested);
            pairs.encode(&mut expected, nested);
            assert_eq!(bytes, expected);
            assert_eq!(
                PredictionResult::decode(&mut bytes.as_slice(), nested).unwrap(),
                result
            );
        }
        let failed = FailedExample {
            example: 3i64,
            error: "no".to_owned(),
            model_id: "m".to_owned(),
        };
        let mut bytes = Vec::new();
        failed.encode(&mut bytes, true);
        assert_eq!(
            FailedExample::decode(&mut bytes.as_slice(), true).unwrap(),
            failed
        );
        assert!(FailedExample::<i64>::decode(&mut &bytes[..1], true).is_err());
    }
}
