//! Iterables of a bundle's input whose end stays with the runner: `beam:coder:state_backed_iterable:v1`.
//!
//! A large result of a GroupByKey is sent as its first values and a token; the worker fetches the rest in pages, as
//! often as it iterates. Nothing but the input itself, which the runner keeps until the bundle ends, is held for that.

use bytes::Bytes;
use purlin_engine::{BundleId, CollectionFormat};
use purlin_model::{Coder, wire};
use purlin_proto::fn_execution::{self as fnapi, state_response};

use super::PAGE_BYTES;
use crate::worker::WorkInput;

/// At least this much of an iterable's values travels with its key.
const HEAD_BYTES: usize = 64 << 10;
/// A piece of input larger than this is cut between its elements, so that one message does not hold it all.
const PIECE_BYTES: usize = 32 << 20;

/// The ends of iterables that a bundle's input names by token.
#[derive(Debug, Default)]
pub(crate) struct Iterables {
    /// The values' coder, and each iterable's values after its first ones.
    rests: Vec<Bytes>,
    value: Option<Coder>,
    bundle: u64,
}

impl Iterables {
    pub(crate) fn new(bundle: BundleId) -> Self {
        Iterables {
            bundle: bundle.0,
            ..Iterables::default()
        }
    }

    /// A piece of a bundle's main input, as the worker gets it: values of iterables larger than `most` bytes stay
    /// here, where the worker can fetch them (`most` is none where it cannot). Bytes that cannot be read go as they
    /// are: the worker says what is wrong with them.
    pub(crate) fn pieces(
        &mut self,
        data: &Bytes,
        format: &CollectionFormat,
        most: Option<usize>,
    ) -> Vec<WorkInput> {
        let limit = most.map_or(PIECE_BYTES, |most| most.min(PIECE_BYTES));
        if data.len() <= limit {
            return vec![WorkInput::Elements(data.clone())];
        }
        let mut pieces = Vec::new();
        let (mut start, mut end) = (0, 0);
        for element in format.walk(data) {
            let Ok(element) = element else { break };
            let value = data.slice(element.value());
            let backed = most.filter(|most| value.len() > *most);
            if let Some(backed) = backed.and_then(|most| self.back(&value, &format.coder, most)) {
                if element.start > start {
                    pieces.push(WorkInput::Elements(data.slice(start..element.start)));
                }
                let header = &data[element.start..element.value_start];
                pieces.push(WorkInput::Elements([header, &backed].concat().into()));
                start = element.end;
            } else if element.end - start > PIECE_BYTES && end > start {
                pieces.push(WorkInput::Elements(data.slice(start..end)));
                start = end;
            }
            end = element.end;
        }
        if start < data.len() {
            pieces.push(WorkInput::Elements(data.slice(start..)));
        }
        pieces
    }

    /// A key and its values, most of which stay here. None: it is no such pair.
    fn back(&mut self, pair: &Bytes, coder: &Coder, most: usize) -> Option<Vec<u8>> {
        let (_, values) = coder.as_kv()?;
        let value = values.as_iterable()?;
        let (key, values) = coder.split_kv(pair).ok()?;
        if values.len() <= most {
            return None;
        }
        let mut rest = values;
        let count = u64::try_from(wire::read_i32_be(&mut rest, "a number of values").ok()?).ok()?;
        let begin = rest;
        let mut head = 0u64;
        while head < count && begin.len() - rest.len() < HEAD_BYTES.min(most) {
            value.skip(&mut rest, true).ok()?;
            head += 1;
        }
        if head == count {
            return None;
        }
        let token = self.token(self.rests.len());
        let mut out = Vec::with_capacity(key.len() + HEAD_BYTES.min(most) + 64);
        out.extend_from_slice(key);
        // A number of values that is not known, some of them, and a token for the others in place of the end.
        out.extend_from_slice(&(-1i32).to_be_bytes());
        wire::write_varint(head, &mut out);
        out.extend_from_slice(&begin[..begin.len() - rest.len()]);
        wire::write_varint(-1i64 as u64, &mut out);
        wire::write_bytes(&token, &mut out, true);
        self.rests.push(pair.slice_ref(rest));
        self.value.get_or_insert_with(|| value.clone());
        Some(out)
    }

    /// Tokens differ between bundles, and between attempts, which are bundles of their own.
    fn token(&self, number: usize) -> [u8; 16] {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&self.bundle.to_be_bytes());
        token[8..].copy_from_slice(&(number as u64).to_be_bytes());
        token
    }

    /// A page of the values behind a token. The continuation token says where the next page starts.
    ///
    /// # Errors
    /// When the tokens are none of this bundle's.
    pub(crate) fn get(&self, token: &[u8], at: &[u8]) -> Result<state_response::Response, String> {
        let number = token
            .get(8..)
            .and_then(|number| <[u8; 8]>::try_from(number).ok())
            .and_then(|number| usize::try_from(u64::from_be_bytes(number)).ok())
            .filter(|&number| number < self.rests.len() && token == self.token(number));
        let rest = number.and_then(|number| self.rests.get(number)).ok_or(
            "an iterable that was not sent with this bundle: an iterable of a GroupByKey can be read until the bundle \
             ends that brought it; copy the values to keep them longer",
        )?;
        let start = match at {
            [] => Some(0),
            at => <[u8; 8]>::try_from(at)
                .ok()
                .and_then(|at| usize::try_from(u64::from_be_bytes(at)).ok()),
        };
        let start = start
            .filter(|&start| start < rest.len() || start == 0)
            .ok_or("a continuation token that was not given")?;
        let end = self.page_end(rest, start)?;
        let next = if end == rest.len() {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(&(end as u64).to_be_bytes())
        };
        Ok(state_response::Response::Get(fnapi::StateGetResponse {
            continuation_token: next,
            data: rest.slice(start..end),
        }))
    }

    fn page_end(&self, rest: &Bytes, start: usize) -> Result<usize, String> {
        let value = self
            .value
            .as_ref()
            .ok_or("no iterable was sent with this bundle")?;
        let mut left = rest.get(start..).unwrap_or_default();
        while !left.is_empty() && rest.len() - left.len() - start < PAGE_BYTES {
            let before = left.len();
            // The start is the worker's word: where it lies inside of a value, what follows may be none.
            value
                .skip(&mut left, true)
                .map_err(|error| format!("a continuation token that was not given: {error}"))?;
            if left.len() == before {
                return Ok(rest.len());
            }
        }
        Ok(rest.len() - left.len())
    }
}

#[cfg(test)]
mod tests {
    use purlin_model::{Header, WindowCoder};

    use super::*;

    fn format() -> CollectionFormat {
        CollectionFormat {
            coder: Coder::kv(Coder::Bytes, Coder::iterable(Coder::Bytes)),
            window: WindowCoder::Global,
        }
    }

    fn element(key: &[u8], values: usize, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        Header::IMPULSE.encode(&mut out);
        wire::write_bytes(key, &mut out, true);
        out.extend_from_slice(&(values as i32).to_be_bytes());
        for number in 0..values {
            wire::write_bytes(&vec![number as u8; size], &mut out, true);
        }
        out
    }

    fn page(iterables: &Iterables, token: &[u8], at: &[u8]) -> Result<fnapi::StateGetResponse, String> {
        match iterables.get(token, at)? {
            state_response::Response::Get(got) => Ok(got),
            other => panic!("{other:?}"),
        }
    }

    /// The values of an element as a worker reads them: those that came, and those that it fetches.
    fn values(iterables: &Iterables, piece: &[u8]) -> Vec<Vec<u8>> {
        let coder = Coder::kv(Coder::Bytes, Coder::StateBackedIterable(Box::new(Coder::Bytes)));
        let values = coder.as_kv().unwrap().1;
        let mut elements = purlin_model::Walker::new(&WindowCoder::Global, &coder, piece);
        let element = elements.next().unwrap().unwrap();
        assert!(elements.next().is_none());
        let (_, encoded) = coder.split_kv(&piece[element.value()]).unwrap();
        let mut sent = values.iterable_elements(encoded).unwrap();
        let mut all: Vec<u8> = sent.by_ref().flat_map(|value| value.unwrap().to_vec()).collect();
        let token = sent.state_token().expect("nothing stayed behind").to_vec();
        let mut at = Bytes::new();
        loop {
            let got = page(iterables, &token, &at).unwrap();
            assert!(got.data.len() < PAGE_BYTES + 2_000_000);
            all.extend_from_slice(&got.data);
            at = got.continuation_token;
            if at.is_empty() {
                break;
            }
        }
        let mut rest = &all[..];
        let mut values = Vec::new();
        while !rest.is_empty() {
            values.push(wire::read_bytes(&mut rest, true).unwrap().to_vec());
        }
        values
    }

    #[test]
    fn large_iterables_stay_and_small_ones_go() {
        let (small, large) = (element(b"s", 3, 10), element(b"l", 60, 100_000));
        let data: Bytes = [&small[..], &large, &small, &small].concat().into();
        let mut iterables = Iterables::new(BundleId(7));
        let pieces = iterables.pieces(&data, &format(), Some(1_000_000));
        let pieces: Vec<Bytes> = pieces
            .into_iter()
            .map(|piece| match piece {
                WorkInput::Elements(data) => data,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((pieces.len(), &pieces[0][..]), (3, &small[..]));
        assert_eq!(pieces[2], [&small[..], &small].concat());
        assert!(pieces[1].len() < 300_000, "{}", pieces[1].len());
        for _ in 0..2 {
            let values = values(&iterables, &pieces[1]);
            assert_eq!(values.len(), 60);
            assert!(
                values
                    .iter()
                    .enumerate()
                    .all(|(n, value)| *value == vec![n as u8; 100_000])
            );
        }
    }

    #[test]
    fn workers_without_the_protocol_get_everything() {
        let large = element(b"l", 60, 1_000_000);
        let data: Bytes = [&large[..], &large].concat().into();
        let pieces = Iterables::new(BundleId(1)).pieces(&data, &format(), None);
        assert_eq!(pieces.len(), 2);
        let sent: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| match piece {
                WorkInput::Elements(data) => data.to_vec(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sent, data);
    }

    #[test]
    fn tokens_of_others_are_refused() {
        let data: Bytes = element(b"l", 60, 100_000).into();
        let mut iterables = Iterables::new(BundleId(7));
        iterables.pieces(&data, &format(), Some(1_000_000));
        let token = iterables.token(0);
        assert!(page(&iterables, &token, &[]).is_ok());
        for (token, at) in [
            (&Iterables::new(BundleId(8)).token(0)[..], &[][..]),
            (&iterables.token(1), &[]),
            (&token[..15], &[]),
            (&[], &[]),
            (&token, &[1]),
            (&token, &[255; 8]),
        ] {
            assert!(page(&iterables, token, at).is_err(), "{token:?} {at:?}");
        }
    }
}
