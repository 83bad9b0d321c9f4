//! Which element user code was at when it failed.
//!
//! An element is moved into user code, so it can be told only if a copy was made before, which would cost every element more than
//! most steps do. So the first failure of a stage goes without, and makes the worker careful: until a bundle of that stage
//! succeeds, each element is encoded before user code gets it. The runner tries a failed bundle again, and the
//! failure of that attempt, which is the one that users are told, names the element.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use purlin_model::value::Value;
use purlin_model::{Coder, CoderError, Element, Header, Timestamp};

use crate::schema::parse_schema;

/// Characters of an element that are told.
const MAX_CHARS: usize = 200;
/// Bytes of an element that is not text that are told.
const MAX_HEX: usize = 64;
/// An element of more bytes is not decoded to be told.
const MAX_DECODED: usize = 64 << 10;

/// The element that user code is at.
pub(crate) struct AtElement {
    /// Name of the transform.
    pub transform: Arc<str>,
    encoded: Vec<u8>,
    tell: fn(&[u8]) -> String,
    at: Header,
}

impl AtElement {
    #[cold]
    pub fn new<T: Element>(transform: &Arc<str>, element: &T, at: &Header) -> AtElement {
        let mut encoded = Vec::new();
        element.encode(&mut encoded, false);
        AtElement {
            transform: transform.clone(),
            encoded,
            tell: tell::<T>,
            at: at.clone(),
        }
    }

    /// The element in words, with its timestamp and windows where these say something.
    pub fn told(&self) -> String {
        let mut text = (self.tell)(&self.encoded);
        if self.at.timestamp != Timestamp::MIN {
            let _ = write!(text, ", timestamp {}", self.at.timestamp);
        }
        let windows: Vec<String> = self.at.windows.iter().map(ToString::to_string).collect();
        if windows != ["global"] {
            let _ = write!(text, ", window {}", windows.join(" and "));
        }
        text
    }
}

/// What the coder of the type says that the bytes are, else the bytes.
fn tell<T: Element>(encoded: &[u8]) -> String {
    let schemas = |payload: &Bytes| parse_schema(payload).map_err(CoderError::schema);
    let decoded = Coder::from_spec(&T::coder(), &schemas)
        .ok()
        .filter(|_| encoded.len() <= MAX_DECODED)
        .and_then(|coder| Value::decode(&coder, &mut &encoded[..], false).ok());
    match decoded {
        Some(value) => cut(&words(&value)),
        None => hex(encoded),
    }
}

fn words(value: &Value) -> String {
    let list = |values: &[Value]| values.iter().map(words).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Timestamp(value) => value.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Bytes(bytes) => hex(bytes),
        Value::Kv(pair) => format!("({}, {})", words(&pair.0), words(&pair.1)),
        Value::Iterable(values) => format!("[{}]", list(values)),
        Value::Row(values) => format!("row ({})", list(values)),
        Value::Map(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| format!("{}: {}", words(key), words(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => format!("a {}", other.kind()),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes", bytes.len());
    for (n, byte) in bytes.iter().take(MAX_HEX).enumerate() {
        let _ = write!(text, "{}{byte:02x}", if n == 0 { " " } else { "" });
    }
    if bytes.len() > MAX_HEX {
        text.push_str("...");
    }
    text
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use purlin_model::{Window, Windows};

    use super::*;

    fn told<T: Element>(element: &T) -> String {
        AtElement::new(&"T".into(), element, &Header::IMPULSE).told()
    }

    #[test]
    fn elements_are_told_as_their_coders_know_them() {
        assert_eq!(told(&"a \"b\"\n".to_owned()), r#""a \"b\"\n""#);
        assert_eq!(told(&("key".to_owned(), -5i64)), r#"("key", -5)"#);
        assert_eq!(told(&vec![Some(1.5f64), None]), "[1.5, null]");
        assert_eq!(told(&vec![0u8, 255]), "2 bytes 00ff");
        assert_eq!(told(&true), "true");
    }

    #[test]
    fn long_ones_are_cut() {
        let text = told(&"ä".repeat(1000));
        assert_eq!(text.chars().count(), MAX_CHARS + 3);
        assert!(text.ends_with("ä..."), "{text}");
        let text = told(&vec![7u8; 1000]);
        assert_eq!(text, format!("1000 bytes {}...", "07".repeat(MAX_HEX)));
        assert!(told(&"x".repeat(1 << 20)).starts_with("1048576 bytes 7878"));
    }

    #[test]
    fn timestamp_and_windows_are_told_where_they_say_something() {
        let at = Header {
            timestamp: Timestamp::from_millis(1500),
            windows: Windows::One(Window::Interval {
                start: Timestamp::from_millis(0),
                end: Timestamp::from_millis(2000),
            }),
            ..Header::IMPULSE
        };
        let told = AtElement::new(&"T".into(), &3i64, &at).told();
        assert_eq!(told, "3, timestamp 1.500s, window [0.000s, 2.000s)");
    }
}
