//! What `RunInference` gives.

use purlin::Element;
use purlin::coders::{CoderSpec, DecodeError};

/// An example with what the model gave for it.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionResult<E, I> {
    /// The example.
    pub example: E,
    /// What the model gave.
    pub inference: I,
    /// The model's name.
    pub model_id: String,
}

/// An example that the model failed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedExample<E> {
    /// The example.
    pub example: E,
    /// The model's error.
    pub error: String,
}

// They travel as pairs, so that examples and inferences need no more than be elements.

impl<E: Element, I: Element> Element for PredictionResult<E, I> {
    fn coder() -> CoderSpec {
        <(E, (I, String))>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.example.encode(out, true);
        self.inference.encode(out, true);
        self.model_id.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (example, (inference, model_id)) = <(E, (I, String))>::decode(input, nested)?;
        Ok(PredictionResult {
            example,
            inference,
            model_id,
        })
    }
}

impl<E: Element> Element for FailedExample<E> {
    fn coder() -> CoderSpec {
        <(E, String)>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.example.encode(out, true);
        self.error.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (example, error) = <(E, String)>::decode(input, nested)?;
        Ok(FailedExample { example, error })
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
        };
        let pairs = ("a".to_owned(), (7i64, "m".to_owned()));
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
