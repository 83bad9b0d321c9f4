//! State requests of a bundle: the Fn API's keys and pages, answered by the engine.

mod backed;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use purlin_engine::{BundleId, SideInputKey, SideInputPart, StateKey, StatePart, TransformId};
use purlin_model::Coder;
use purlin_proto::fn_execution::{self as fnapi, state_key, state_request, state_response};

pub(crate) use backed::Iterables;

use crate::job::Shared;
use crate::worker::StateHandler;

/// A response holds about as much, or one element that is larger.
const PAGE_BYTES: usize = 2 << 20;
/// Bytes of pages that wait to be fetched, of one bundle, are those of so many reads at most.
const MAX_READS: usize = 4096;

/// Answers the state requests of one bundle.
pub(crate) struct BundleState {
    shared: Arc<Shared>,
    bundle: BundleId,
    /// Ends of iterables that the bundle's input names.
    iterables: Iterables,
    reads: Mutex<Reads>,
}

/// Reads that go over several pages. A page is what it was when the first one was read.
#[derive(Default)]
struct Reads {
    next: u64,
    pages: HashMap<u64, Vec<Bytes>>,
}

/// What is asked for.
enum Asked {
    State { key: StateKey, entries: Option<Coder> },
    SideInput { key: SideInputKey },
    Iterable { token: Bytes },
}

impl BundleState {
    pub(crate) fn new(shared: Arc<Shared>, bundle: BundleId, iterables: Iterables) -> Self {
        BundleState {
            shared,
            bundle,
            iterables,
            reads: Mutex::default(),
        }
    }

    fn answer(&self, request: fnapi::StateRequest) -> Result<state_response::Response, String> {
        let key = request
            .state_key
            .and_then(|key| key.r#type)
            .ok_or("a state request without a key")?;
        let asked = self.asked(key)?;
        match request.request.ok_or("a state request that asks for nothing")? {
            state_request::Request::Get(get) => self.get(asked, &get.continuation_token),
            state_request::Request::Append(append) => {
                let Asked::State { key, .. } = asked else {
                    return Err("side inputs and iterables cannot be written".to_owned());
                };
                let appended = self.shared.engine().state_append(self.bundle, key, append.data);
                appended.map_err(|error| error.to_string())?;
                Ok(state_response::Response::Append(fnapi::StateAppendResponse {}))
            }
            state_request::Request::Clear(_) => {
                let Asked::State { key, .. } = asked else {
                    return Err("side inputs and iterables cannot be cleared".to_owned());
                };
                let cleared = self.shared.engine().state_clear(self.bundle, &key);
                cleared.map_err(|error| error.to_string())?;
                Ok(state_response::Response::Clear(fnapi::StateClearResponse {}))
            }
        }
    }

    fn transform(&self, id: &str) -> Result<TransformId, String> {
        self.shared
            .transform(id)
            .ok_or_else(|| format!("state of \"{id}\", which is no transform of the pipeline"))
    }

    fn asked(&self, key: state_key::Type) -> Result<Asked, String> {
        use state_key::Type;
        let state = |transform: String, state: String, window: Bytes, key: Bytes, part: StatePart| {
            if !self.shared.has_state(&transform, &state) {
                return Err(format!("transform \"{transform}\" declares no state \"{state}\""));
            }
            let entries = match part {
                StatePart::MultimapEntries => self.shared.map_values(&transform, &state).cloned(),
                _ => None,
            };
            let transform = self.transform(&transform)?;
            Ok(Asked::State {
                key: StateKey {
                    transform,
                    state,
                    window,
                    key,
                    part,
                },
                entries,
            })
        };
        let side = |transform: String, side_input: String, window: Bytes, part: SideInputPart| {
            let transform = self.transform(&transform)?;
            Ok(Asked::SideInput {
                key: SideInputKey {
                    transform,
                    side_input,
                    window,
                    part,
                },
            })
        };
        match key {
            Type::BagUserState(k) => state(k.transform_id, k.user_state_id, k.window, k.key, StatePart::Bag),
            Type::MultimapUserState(k) => state(
                k.transform_id,
                k.user_state_id,
                k.window,
                k.key,
                StatePart::MultimapValues(k.map_key),
            ),
            Type::MultimapKeysUserState(k) => state(
                k.transform_id,
                k.user_state_id,
                k.window,
                k.key,
                StatePart::MultimapKeys,
            ),
            Type::MultimapEntriesUserState(k) => state(
                k.transform_id,
                k.user_state_id,
                k.window,
                k.key,
                StatePart::MultimapEntries,
            ),
            Type::OrderedListUserState(k) => {
                let (start, end) = k
                    .range
                    .map_or((i64::MIN, i64::MAX), |range| (range.start, range.end));
                let part = StatePart::OrderedList(start, end);
                state(k.transform_id, k.user_state_id, k.window, k.key, part)
            }
            Type::IterableSideInput(k) => {
                side(k.transform_id, k.side_input_id, k.window, SideInputPart::Iterable)
            }
            Type::MultimapSideInput(k) => side(
                k.transform_id,
                k.side_input_id,
                k.window,
                SideInputPart::MultimapValues(k.key),
            ),
            Type::MultimapKeysSideInput(k) => side(
                k.transform_id,
                k.side_input_id,
                k.window,
                SideInputPart::MultimapKeys,
            ),
            Type::MultimapKeysValuesSideInput(k) => side(
                k.transform_id,
                k.side_input_id,
                k.window,
                SideInputPart::MultimapEntries,
            ),
            Type::Runner(k) => Ok(Asked::Iterable { token: k.key }),
        }
    }

    fn get(&self, asked: Asked, token: &Bytes) -> Result<state_response::Response, String> {
        if !token.is_empty() && !matches!(asked, Asked::Iterable { .. }) {
            return self.page(token);
        }
        let (pieces, element) = match &asked {
            Asked::State { key, entries } => {
                let pieces = self
                    .shared
                    .engine()
                    .state_get(self.bundle, key)
                    .map_err(|error| error.to_string())?;
                match key.part {
                    StatePart::MultimapEntries => (map_entries(pieces, entries.as_ref())?, None),
                    _ => (pieces, None),
                }
            }
            Asked::Iterable { token: iterable } => return self.iterables.get(iterable, token),
            Asked::SideInput { key } => {
                let engine = self.shared.engine();
                let pieces = engine
                    .side_input(self.bundle, key)
                    .map_err(|error| error.to_string())?;
                let element = side_input_coder(&engine, key);
                drop(engine);
                (pieces, element)
            }
        };
        let mut pages = pages(pieces, element.as_ref());
        if pages.len() <= 1 {
            let data = pages.pop().unwrap_or_default();
            return Ok(response(data, Bytes::new()));
        }
        pages.reverse();
        let first = pages.pop().unwrap_or_default();
        let mut reads = self.reads.lock();
        if reads.pages.len() >= MAX_READS {
            return Err("too many reads of large states or side inputs are open in one bundle".to_owned());
        }
        let number = reads.next;
        reads.next += 1;
        reads.pages.insert(number, pages);
        Ok(response(first, token_of(number, 1)))
    }

    /// A later page. SDKs may fetch one twice, so pages stay for the life of the bundle.
    fn page(&self, token: &Bytes) -> Result<state_response::Response, String> {
        let bad = || "a continuation token that was not given".to_owned();
        let (number, page) = token.split_first_chunk::<8>().ok_or_else(bad)?;
        let number = u64::from_be_bytes(*number);
        let page = u64::from_be_bytes(<[u8; 8]>::try_from(page).map_err(|_| bad())?);
        let reads = self.reads.lock();
        let pages = reads.pages.get(&number).ok_or_else(bad)?;
        // Pages lie in reverse; the first of all was sent.
        let index = usize::try_from(page)
            .ok()
            .and_then(|page| pages.len().checked_sub(page))
            .ok_or_else(bad)?;
        let data = pages.get(index).ok_or_else(bad)?.clone();
        let next = if index == 0 {
            Bytes::new()
        } else {
            token_of(number, page + 1)
        };
        Ok(response(data, next))
    }
}

fn token_of(number: u64, page: u64) -> Bytes {
    let mut token = number.to_be_bytes().to_vec();
    token.extend_from_slice(&page.to_be_bytes());
    token.into()
}

fn response(data: Bytes, continuation_token: Bytes) -> state_response::Response {
    state_response::Response::Get(fnapi::StateGetResponse {
        continuation_token,
        data,
    })
}

/// The coder of what a side input's pieces hold one after the other.
fn side_input_coder(engine: &purlin_engine::Engine, key: &SideInputKey) -> Option<Coder> {
    let transform = engine.graph().transforms.get(key.transform)?;
    let purlin_engine::TransformKind::User(user) = &transform.kind else {
        return None;
    };
    let side = user.side_inputs.iter().find(|side| side.tag == key.side_input)?;
    let coder = &engine.format(side.collection)?.coder;
    match &key.part {
        SideInputPart::Iterable => Some(coder.clone()),
        SideInputPart::MultimapValues(_) => Some(coder.as_kv()?.1.clone()),
        SideInputPart::MultimapKeys => Some(coder.as_kv()?.0.clone()),
        SideInputPart::MultimapEntries => {
            let (key, value) = coder.as_kv()?;
            Some(Coder::kv(key.clone(), Coder::iterable(value.clone())))
        }
    }
}

/// Keys and values in turn, as `KV<K, Iterable<V>>`.
fn map_entries(pieces: Vec<Bytes>, value: Option<&Coder>) -> Result<Vec<Bytes>, String> {
    let value = value.ok_or("entries of a state that is no map")?;
    let mut entries = Vec::with_capacity(pieces.len() / 2);
    let mut pieces = pieces.into_iter();
    while let (Some(key), Some(values)) = (pieces.next(), pieces.next()) {
        let mut rest = &values[..];
        let mut count = 0i32;
        while !rest.is_empty() {
            let before = rest.len();
            value
                .skip(&mut rest, true)
                .map_err(|error| format!("the values of a map state: {error}"))?;
            count = count
                .checked_add(1)
                .filter(|_| rest.len() < before)
                .ok_or("a map state has too many values")?;
        }
        let mut entry = Vec::with_capacity(key.len() + 4 + values.len());
        entry.extend_from_slice(&key);
        entry.extend_from_slice(&count.to_be_bytes());
        entry.extend_from_slice(&values);
        entries.push(entry.into());
    }
    Ok(entries)
}

/// Pieces joined and cut so that none is much larger than a page. Cuts are between elements: where pieces meet, and
/// inside of a piece where its elements' coder is known.
fn pages(pieces: Vec<Bytes>, element: Option<&Coder>) -> Vec<Bytes> {
    let total: usize = pieces.iter().map(Bytes::len).sum();
    if total <= PAGE_BYTES {
        return match <[Bytes; 1]>::try_from(pieces) {
            Ok([only]) => vec![only],
            Err(pieces) => vec![pieces.concat().into()],
        };
    }
    let mut pages: Vec<Bytes> = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    for piece in pieces {
        if open.len() + piece.len() <= PAGE_BYTES {
            open.extend_from_slice(&piece);
            continue;
        }
        if !open.is_empty() {
            pages.push(std::mem::take(&mut open).into());
        }
        match element {
            Some(element) if piece.len() > PAGE_BYTES => pages.extend(cut(&piece, element)),
            _ if piece.len() > PAGE_BYTES / 2 => pages.push(piece),
            _ => open.extend_from_slice(&piece),
        }
    }
    if !open.is_empty() {
        pages.push(open.into());
    }
    pages
}

/// Cuts a piece between its elements. What cannot be read stays in one.
fn cut(piece: &Bytes, element: &Coder) -> Vec<Bytes> {
    let mut pages = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut rest = &piece[..];
    while !rest.is_empty() {
        let before = rest.len();
        if element.skip(&mut rest, true).is_err() || rest.len() == before {
            break;
        }
        let end = piece.len() - rest.len();
        if end - start > PAGE_BYTES && at > start {
            pages.push(piece.slice(start..at));
            start = at;
        }
        at = end;
    }
    pages.push(piece.slice(start..));
    pages
}

impl StateHandler for BundleState {
    fn handle(&self, mut request: fnapi::StateRequest) -> fnapi::StateResponse {
        let id = std::mem::take(&mut request.id);
        match self.answer(request) {
            Ok(response) => fnapi::StateResponse {
                id,
                error: String::new(),
                response: Some(response),
            },
            Err(error) => fnapi::StateResponse {
                id,
                error,
                response: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use purlin_model::wire;

    use super::*;

    fn encoded(values: &[usize]) -> Bytes {
        let mut out = Vec::new();
        for &size in values {
            wire::write_bytes(&vec![b'x'; size], &mut out, true);
        }
        out.into()
    }

    #[test]
    fn small_states_are_one_page() {
        assert_eq!(pages(vec![], None), [Bytes::new()]);
        assert_eq!(
            pages(vec![encoded(&[3]), encoded(&[2])], None),
            [encoded(&[3, 2])]
        );
    }

    #[test]
    fn large_states_are_cut_between_elements() {
        let one = PAGE_BYTES / 3;
        let piece = encoded(&[one; 10]);
        let pages = pages(
            vec![piece.clone(), encoded(&[PAGE_BYTES * 3])],
            Some(&Coder::Bytes),
        );
        assert_eq!(pages.concat(), [piece, encoded(&[PAGE_BYTES * 3])].concat());
        assert!(pages.len() >= 5, "{}", pages.len());
        for page in &pages {
            let mut rest = &page[..];
            while !rest.is_empty() {
                Coder::Bytes.skip(&mut rest, true).unwrap();
            }
        }
        assert!(pages.iter().rev().skip(1).all(|page| page.len() <= PAGE_BYTES));
    }

    #[test]
    fn map_entries_count_their_values() {
        let pieces = vec![Bytes::from_static(b"\x01k"), encoded(&[1, 2])];
        let entries = map_entries(pieces, Some(&Coder::Bytes)).unwrap();
        assert_eq!(entries, [Bytes::from_static(b"\x01k\0\0\0\x02\x01x\x02xx")]);
        assert!(
            map_entries(
                vec![Bytes::new(), Bytes::from_static(b"\xff")],
                Some(&Coder::Bytes)
            )
            .is_err()
        );
    }
}
