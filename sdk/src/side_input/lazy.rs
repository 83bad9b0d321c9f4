//! A side input that is not gathered.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use purlin_coders::Element;

use crate::error::BoxError;
use crate::harness::{PageIter, Pages};

/// All elements of a side input, in no order: they are read from the runner page by page while they are iterated over,
/// each time anew, and not kept.
///
/// They can be read as long as the bundle runs in which the side input was asked for.
pub struct Elements<T> {
    pages: Pages,
    element: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Elements<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elements(..)")
    }
}

impl<T: Element> Elements<T> {
    pub(crate) fn new(pages: Pages) -> Elements<T> {
        Elements {
            pages,
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
        if read.is_err() {
            self.pages = None;
        }
        read.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
