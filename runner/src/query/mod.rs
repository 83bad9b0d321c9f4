//! Reading a running job's state from outside: what was asked, and the answer as JSON.
//!
//! Only states that the pipeline made queryable are read ([`QUERYABLE_STATE`](crate::translate::QUERYABLE_STATE)), only what is committed, and
//! [`MAX_BYTES`] at most. The engine is locked while references to the data are taken; decoding is done after.

mod json;

use bytes::Bytes;
use http::StatusCode;
use purlin_engine::{CommittedState, StateContent};
use purlin_model::{Coder, DecodeError, Value, wire};
use serde_json::{Value as Json, json};
use thiserror::Error;

use crate::job::Shared;
use crate::translate::{QueryableState, StateKind};

/// So many bytes of state, encoded, are read at once.
pub const MAX_BYTES: usize = 1 << 20;

/// What is asked of a job's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateQuery {
    /// Unique name or id of the transform.
    pub transform: String,
    /// Name of the state.
    pub state: String,
    /// The key: text as it is, integers in decimal, other keys as JSON.
    pub key: String,
    /// The window, as answers name it; none: all windows of the key.
    pub window: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be asked so.
    #[error("{0}")]
    Invalid(String),
    /// The answer would be too large.
    #[error("{0}")]
    TooLarge(String),
}

impl QueryError {
    /// The status of an HTTP answer.
    pub fn status(&self) -> StatusCode {
        match self {
            QueryError::NotFound(_) => StatusCode::NOT_FOUND,
            QueryError::Invalid(_) => StatusCode::BAD_REQUEST,
            QueryError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

impl StateQuery {
    /// Reads the query string of a request: `key=…` and, if wished, `window=…`, percent-encoded.
    ///
    /// # Errors
    /// When there is no key, or another parameter.
    pub fn parse(transform: String, state: String, query: &str) -> Result<StateQuery, QueryError> {
        let (mut key, mut window) = (None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match name {
                "key" => &mut key,
                "window" => &mut window,
                _ => {
                    return Err(QueryError::Invalid(format!(
                        "there is no parameter \"{name}\": a state is asked for by key= and, if wished, window="
                    )));
                }
            };
            *place = Some(percent_decoded(value)?);
        }
        let key = key.ok_or_else(|| {
            QueryError::Invalid(
                "a state belongs to a key: add ?key=, text as it is, integers in decimal, other keys as JSON"
                    .to_owned(),
            )
        })?;
        Ok(StateQuery {
            transform,
            state,
            key,
            window,
        })
    }
}

fn percent_decoded(text: &str) -> Result<String, QueryError> {
    let wrong = || QueryError::Invalid(format!("\"{text}\" is not percent-encoded UTF-8"));
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, more @ ..] = rest {
        rest = more;
        match (first, more) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or_else(wrong);
                out.push((digit(high)? * 16 + digit(low)?) as u8);
                rest = after;
            }
            (b'%', _) => return Err(wrong()),
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
    }
    String::from_utf8(out).map_err(|_| wrong())
}

/// Answers from a running job.
pub(crate) fn answer(shared: &Shared, query: &StateQuery) -> Result<Json, QueryError> {
    let found = find(shared.queryable(), query)?;
    let about = format!("state \"{}\" of transform \"{}\"", found.state, found.name);
    let format = found.format.as_ref();
    let format = format.map_err(|error| QueryError::NotFound(format!("{about} cannot be read: {error}")))?;
    let key = json::key(&format.key, &query.key)
        .map_err(|error| QueryError::Invalid(format!("the key of {about}: {error}")))?;
    let mut encoded = Vec::new();
    key.encode(&format.key, &mut encoded, true)
        .map_err(|error| QueryError::Invalid(format!("the key of {about}: {error}")))?;
    let read =
        shared
            .engine()
            .committed_state(found.transform, &found.state, &Bytes::from(encoded), MAX_BYTES);
    let committed = read.map_err(|error| QueryError::TooLarge(format!("{about}: {error}")))?;
    let mut windows = Vec::new();
    for CommittedState { window, content } in &committed {
        let name = format.window.decode(&mut &window[..], false);
        let name = name.map_or_else(|_| json::hex(window), |window| window.to_string());
        if query.window.as_ref().is_none_or(|wanted| *wanted == name) {
            windows.push(json!({ "window": name, "value": shown(&format.kind, content) }));
        }
    }
    if windows.is_empty() {
        let window = query.window.as_ref();
        let window = window.map_or_else(String::new, |window| format!(" in window \"{window}\""));
        return Err(QueryError::NotFound(format!(
            "{about} has nothing for key \"{}\"{window}",
            query.key
        )));
    }
    Ok(json!({
        "transform": found.name,
        "state": found.state,
        "kind": kind_name(&format.kind),
        "key": json::shown(&format.key, &key),
        "windows": windows,
    }))
}

fn find<'a>(queryable: &'a [QueryableState], query: &StateQuery) -> Result<&'a QueryableState, QueryError> {
    let of_transform = |state: &&QueryableState| state.name == query.transform || state.id == query.transform;
    let found = queryable
        .iter()
        .filter(of_transform)
        .find(|state| state.state == query.state);
    found.ok_or_else(|| {
        let all = queryable
            .iter()
            .map(|state| format!("{}/{}", state.name, state.state));
        let mut all: Vec<String> = all.collect();
        all.sort_unstable();
        let there = match all.as_slice() {
            [] => "the pipeline makes no state queryable".to_owned(),
            all => format!("queryable are {}", all.join(", ")),
        };
        QueryError::NotFound(format!(
            "transform \"{}\" has no queryable state \"{}\": {there}",
            query.transform, query.state
        ))
    })
}

fn kind_name(kind: &StateKind) -> &'static str {
    match kind {
        StateKind::Value(_) => "value",
        StateKind::Bag(_) => "bag",
        StateKind::Set(_) => "set",
        StateKind::Combining(_) => "accumulators",
        StateKind::Map(..) => "map",
        StateKind::Multimap(..) => "multimap",
        StateKind::OrderedList(_) => "ordered list",
    }
}

/// What a state holds. What cannot be decoded is shown as the bytes that it is.
fn shown(kind: &StateKind, content: &StateContent) -> Json {
    let undecoded = |error: DecodeError| json!({ "undecodable": error.to_string() });
    let elements = |coder: &Coder, pieces: &[Bytes]| {
        let values = elements(coder, pieces)?;
        Ok::<Vec<Json>, DecodeError>(values.iter().map(|value| json::shown(coder, value)).collect())
    };
    let all = match (kind, content) {
        (StateKind::Value(coder), StateContent::Bag(pieces)) => {
            elements(coder, pieces).map(|mut all| all.pop().unwrap_or(Json::Null))
        }
        (StateKind::Bag(coder) | StateKind::Combining(coder), StateContent::Bag(pieces)) => {
            elements(coder, pieces).map(Json::Array)
        }
        (StateKind::Set(coder), StateContent::Bag(pieces)) => elements(coder, pieces).map(distinct),
        (StateKind::Set(coder), StateContent::Multimap(entries)) => {
            let keys: Vec<Bytes> = entries.iter().map(|(key, _)| key.clone()).collect();
            elements(coder, &keys).map(Json::Array)
        }
        (StateKind::Map(key, value) | StateKind::Multimap(key, value), StateContent::Multimap(entries)) => {
            let entries = entries.iter().map(|(map_key, pieces)| {
                let map_key = elements(key, std::slice::from_ref(map_key))?.pop();
                let mut values = elements(value, pieces)?;
                let values = match kind {
                    StateKind::Map(..) => values.pop().unwrap_or(Json::Null),
                    _ => Json::Array(values),
                };
                Ok(json!([map_key, values]))
            });
            entries
                .collect::<Result<Vec<Json>, DecodeError>>()
                .map(Json::Array)
        }
        (StateKind::OrderedList(coder), StateContent::OrderedList(pieces)) => {
            let entries = pieces.iter().map(|piece| {
                let mut rest = &piece[..];
                let at = wire::read_varint(&mut rest)? as i64;
                // In the outer context, within a length prefix.
                let mut data = wire::read_bytes(&mut rest, true)?;
                let value = Value::decode(coder, &mut data, false)?;
                Ok(json!([at, json::shown(coder, &value)]))
            });
            entries
                .collect::<Result<Vec<Json>, DecodeError>>()
                .map(Json::Array)
        }
        // A worker may keep any kind in any other.
        (_, StateContent::Bag(pieces) | StateContent::OrderedList(pieces)) => Ok(pieces
            .iter()
            .map(|piece| Json::String(json::hex(piece)))
            .collect()),
        (_, StateContent::Multimap(entries)) => Ok(entries
            .iter()
            .map(|(key, values)| {
                let values: Vec<String> = values.iter().map(|value| json::hex(value)).collect();
                json!([json::hex(key), values])
            })
            .collect()),
    };
    all.unwrap_or_else(undecoded)
}

/// The elements of pieces. One of a coder that only the SDK knows is what its piece is.
fn elements(coder: &Coder, pieces: &[Bytes]) -> Result<Vec<Value>, DecodeError> {
    let mut all = Vec::new();
    for piece in pieces {
        if !coder.knows_boundary() {
            all.push(Value::Bytes(piece.clone()));
            continue;
        }
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let before = rest.len();
            all.push(Value::decode(coder, &mut rest, true)?);
            if rest.len() == before {
                break;
            }
        }
    }
    Ok(all)
}

fn distinct(all: Vec<Json>) -> Json {
    let mut seen = std::collections::HashSet::new();
    all.into_iter()
        .filter(|value| seen.insert(value.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_refused_with_words() {
        let parse = |query: &str| StateQuery::parse("t".into(), "s".into(), query);
        let query = parse("key=a%20b+c%2F&window=global").unwrap();
        assert_eq!(
            (query.key.as_str(), query.window.as_deref()),
            ("a b c/", Some("global"))
        );
        assert_eq!(parse("key=").unwrap().key, "");
        for (wrong, words) in [
            ("", "add ?key="),
            ("key=a&k=b", "no parameter \"k\""),
            ("key=%", "percent-encoded"),
            ("key=%ff", "percent-encoded"),
            ("key=%+1", "percent-encoded"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn states_are_shown_by_their_kinds() {
        let varint = || Coder::VarInt;
        let pieces = vec![Bytes::from_static(&[1, 2]), Bytes::from_static(&[2])];
        let bag = StateContent::Bag(pieces.clone());
        assert_eq!(shown(&StateKind::Value(varint()), &bag), json!(2));
        assert_eq!(shown(&StateKind::Bag(varint()), &bag), json!([1, 2, 2]));
        assert_eq!(shown(&StateKind::Set(varint()), &bag), json!([1, 2]));
        let map = StateContent::Multimap(vec![(Bytes::from_static(b"\x01a"), pieces)]);
        assert_eq!(
            shown(&StateKind::Map(Coder::Utf8, varint()), &map),
            json!([["a", 2]])
        );
        assert_eq!(
            shown(&StateKind::Multimap(Coder::Utf8, varint()), &map),
            json!([["a", [1, 2, 2]]])
        );
        let list = StateContent::OrderedList(vec![Bytes::from_static(b"\x07\x01a")]);
        assert_eq!(
            shown(&StateKind::OrderedList(Coder::Utf8), &list),
            json!([[7, "a"]])
        );
        let own = Coder::unknown("x:pickled");
        assert_eq!(
            shown(
                &StateKind::Combining(own),
                &StateContent::Bag(vec![Bytes::from_static(b"\x01\xff")])
            ),
            json!([{ "coder": "x:pickled", "hex": "01ff" }])
        );
        // Cut off.
        let broken = shown(&StateKind::Value(Coder::Double), &bag);
        assert!(broken["undecodable"].is_string(), "{broken}");
    }
}
