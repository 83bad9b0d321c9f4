//! Elements that are not gathered: of a side input, or of a key.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use purlin_model::backed::EncodedIterable;
use purlin_model::{CoderSpec, DecodeError, Element, urns, wire};

use crate::error::BoxError;
use crate::stage::{PageIter, Pages, backed_pages};

/// All elements of a side input, or all values of a key, in no order: what the runner did not send with the element is
/// read from it page by page while they are iterated over, each time anew, and not kept.
///
/// They can be read as long as the bundle runs in which the side input was asked for, or to which the key came. A page
/// that cannot be read fails the bundle, whatever becomes of the error that the iteration ends with.
pub struct Elements<T> {
    pages: Pages,
    /// How many are in the first page, where it is known.
    first: Option<u64>,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Elements<T> {
    fn clone(&self) -> Self {
        Elements {
            pages: self.pages.clone(),
            ..*self
        }
    }
}

impl<T: Element> FromIterator<T> for Elements<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for element in elements {
            element.encode(&mut bytes, true);
            count += 1;
        }
        Elements {
            pages: Pages::whole(bytes.into()),
            first: Some(count),
            element: PhantomData,
        }
    }
}

/// Encoded as a vector is. What stayed with the runner is read for that, a page at a time; an error fails the bundle.
impl<T: Element> Element for Elements<T> {
    fn coder() -> CoderSpec {
        CoderSpec::of(urns::ITERABLE, vec![T::coder()])
    }

    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        if let Some(count) = self.first.filter(|_| self.pages.is_whole())
            && let Ok(count) = i32::try_from(count)
        {
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(self.pages.first());
            return;
        }
        out.extend_from_slice(&(-1i32).to_be_bytes());
        let (mut chunk, mut count) = (Vec::new(), 0);
        let mut write = |chunk: &mut Vec<u8>, count: &mut u64| {
            if *count > 0 {
                wire::write_varint(std::mem::take(count), out);
                out.append(chunk);
            }
        };
        // The bundle fails by itself for an error.
        for element in self.iter().map_while(Result::ok) {
            element.encode(&mut chunk, true);
            count += 1;
            if chunk.len() >= CHUNK_BYTES {
                write(&mut chunk, &mut count);
            }
        }
        write(&mut chunk, &mut count);
        wire::write_varint(0, out);
    }

    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self, DecodeError> {
        let EncodedIterable { values, count, token } = EncodedIterable::read::<T>(input)?;
        Ok(Elements {
            pages: match token {
                None => Pages::whole(values),
                Some(token) => backed_pages(values, &token)?,
            },
            first: Some(count),
            element: PhantomData,
        })
    }
}

/// So many bytes, at least, are written at a time where the number of elements is not known.
const CHUNK_BYTES: usize = 64 << 10;

impl<T> fmt::Debug for Elements<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elements(..)")
    }
}

impl<T: Element> Elements<T> {
    pub(crate) fn new(pages: Pages) -> Elements<T> {
        Elements {
            pages,
            first: None,
            element: PhantomData,
        }
    }

    /// The elements. An error, when a page cannot be read or an element cannot be decoded, is the last item.
    pub fn iter(&self) -> ElementsIter<T> {
        ElementsIter {
            pages: Some(self.pages.iter()),
            page: Bytes::new(),
            element: PhantomData,
        }
    }
}

impl<T: Element> IntoIterator for &Elements<T> {
    type Item = Result<T, BoxError>;
    type IntoIter = ElementsIter<T>;

    fn into_iter(self) -> ElementsIter<T> {
        self.iter()
    }
}

/// Iterates over [`Elements`].
pub struct ElementsIter<T> {
    /// The pages to come; `None` after an error.
    pages: Option<PageIter>,
    /// What is left of the page at hand.
    page: Bytes,
    element: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for ElementsIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ElementsIter({} bytes at hand)", self.page.len())
    }
}

impl<T: Element> ElementsIter<T> {
    fn read(&mut self) -> Result<Option<T>, BoxError> {
        let Some(pages) = &mut self.pages else {
            return Ok(None);
        };
        loop {
            while self.page.is_empty() {
                match pages.next() {
                    Some(page) => self.page = page?,
                    None => return Ok(None),
                }
            }
            let mut rest = &self.page[..];
            let error = match T::decode(&mut rest, true) {
                Ok(element) => {
                    let used = self.page.len() - rest.len();
                    if used == 0 {
                        return Err("its elements have no bytes, so that they cannot be told apart".into());
                    }
                    self.page.advance(used);
                    return Ok(Some(element));
                }
                Err(error) => error,
            };
            // Runners may cut an element in two.
            match pages.next() {
                Some(more) => self.page = [&self.page[..], &more?[..]].concat().into(),
                None => return Err(error.into()),
            }
        }
    }
}

impl<T: Element> Iterator for ElementsIter<T> {
    type Item = Result<T, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if let Err(error) = &read
            && let Some(pages) = self.pages.take()
        {
            pages.fail(error);
        }
        read.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_encoded_as_vectors_are() {
        for count in [0usize, 1, 3, 20_000] {
            let vector: Vec<String> = (0..count).map(|n| format!("number {n}")).collect();
            let bytes = vector.to_bytes();
            let elements = Elements::<String>::from_bytes(&bytes).unwrap();
            assert_eq!(elements.iter().collect::<Result<Vec<_>, _>>().unwrap(), vector);
            assert_eq!(elements.to_bytes(), bytes);
            assert_eq!(Elements::from_iter(vector.clone()).to_bytes(), bytes);
            // Of a number that is not known, as those of a side input are.
            let unknown = Elements::<String>::new(elements.pages.clone()).to_bytes();
            assert_eq!(Vec::<String>::from_bytes(&unknown).unwrap(), vector);
            assert_eq!(
                Elements::<String>::from_bytes(&unknown).unwrap().to_bytes(),
                bytes
            );
        }
    }

    #[test]
    fn bytes_that_are_no_element_end_the_iteration() {
        let mut bytes = Vec::new();
        "ab".to_owned().encode(&mut bytes, true);
        bytes.extend([5, b'x']);
        let elements = Elements::<String>::new(Pages::whole(bytes.into()));
        for _ in 0..2 {
            let mut iter = elements.iter();
            assert_eq!(iter.next().and_then(Result::ok), Some("ab".to_owned()));
            assert!(iter.next().is_some_and(|item| item.is_err()));
            assert!(iter.next().is_none());
        }
    }
}
