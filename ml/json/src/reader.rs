//! One reader for both formats.

use std::borrow::Cow;

use crate::fault::{Fault, Format};
use crate::json::Json;
use crate::number::Number;
use crate::ubjson::Ubjson;

/// Deeper lists and objects are not read.
pub(crate) const DEEPEST: usize = 64;

/// Is told each key of an object, and reads its value.
type Visit<'v, 'a, E> = &'v mut dyn FnMut(&str, &mut Reader<'a>) -> Result<(), E>;

/// Reads values one after the other; see the [crate](crate).
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    source: Source<'a>,
    depth: usize,
}

#[derive(Debug, Clone)]
enum Source<'a> {
    Json(Json<'a>),
    Ubjson(Ubjson<'a>),
}

/// What a source knows of an object or a list whose members are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members {
    /// So many come yet; none: up to the end's mark.
    pub left: Option<usize>,
    /// All are of this kind.
    pub kind: Option<u8>,
    pub first: bool,
}

impl<'a> Reader<'a> {
    /// Reads a document that begins with an object, in the format that it has.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            source: match is_ubjson(bytes) {
                true => Source::Ubjson(Ubjson::new(bytes)),
                false => Source::Json(Json::new(bytes)),
            },
            depth: 0,
        }
    }

    /// The document's format.
    pub fn format(&self) -> Format {
        match self.source {
            Source::Json(_) => Format::Json,
            Source::Ubjson(_) => Format::Ubjson,
        }
    }

    /// Visits the members of the object that comes next: the visitor reads or [skips](Reader::skip) the value of each key.
    ///
    /// # Errors
    /// When no object comes next, and what the visitor says.
    pub fn object<E: From<Fault>>(&mut self, visit: Visit<'_, 'a, E>) -> Result<(), E> {
        let mut members = match &mut self.source {
            Source::Json(json) => json.begin_object()?,
            Source::Ubjson(ubjson) => ubjson.begin_object()?,
        };
        self.deeper()?;
        loop {
            let key = match &mut self.source {
                Source::Json(json) => json.next_key(&mut members)?,
                Source::Ubjson(ubjson) => ubjson.next_key(&mut members)?,
            };
            let Some(key) = key else { break };
            visit(&key, self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Visits the items of the list that comes next: the visitor reads or [skips](Reader::skip) each.
    ///
    /// # Errors
    /// When no list comes next, and what the visitor says.
    pub fn list<E: From<Fault>>(
        &mut self,
        visit: &mut dyn FnMut(&mut Reader<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut members = match &mut self.source {
            Source::Json(json) => json.begin_list()?,
            Source::Ubjson(ubjson) => ubjson.begin_list()?,
        };
        self.deeper()?;
        loop {
            let comes = match &mut self.source {
                Source::Json(json) => json.next_item(&mut members)?,
                Source::Ubjson(ubjson) => ubjson.next_item(&mut members)?,
            };
            if !comes {
                break;
            }
            visit(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// The list of numbers that comes next. What is kept is never much more than what is in the file.
    ///
    /// # Errors
    /// When no list comes next, or something else is in it.
    pub fn numbers<T: Number>(&mut self) -> Result<Vec<T>, Fault> {
        let mut numbers = Vec::new();
        self.list::<Fault>(&mut |reader| {
            numbers.push(reader.number()?);
            Ok(())
        })?;
        Ok(numbers)
    }

    /// The number that comes next.
    ///
    /// # Errors
    /// When something else comes next.
    pub fn number<T: Number>(&mut self) -> Result<T, Fault> {
        match &mut self.source {
            Source::Json(json) => json.number(),
            Source::Ubjson(ubjson) => ubjson.number(),
        }
    }

    /// The text that comes next.
    ///
    /// # Errors
    /// When something else comes next.
    pub fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        match &mut self.source {
            Source::Json(json) => json.text(),
            Source::Ubjson(ubjson) => ubjson.text(),
        }
    }

    /// Passes over the value that comes next.
    ///
    /// # Errors
    /// When it is none.
    pub fn skip(&mut self) -> Result<(), Fault> {
        match self.peek()? {
            b'{' => self.object(&mut |_, reader| reader.skip()),
            b'[' => {
                if let Source::Ubjson(ubjson) = &mut self.source
                    && ubjson.skip_numbers()?
                {
                    return Ok(());
                }
                self.list(&mut |reader| reader.skip())
            }
            _ => match &mut self.source {
                Source::Json(json) => json.skip_simple(),
                Source::Ubjson(ubjson) => ubjson.skip_simple(),
            },
        }
    }

    /// Checks that nothing comes any more.
    ///
    /// # Errors
    /// When something does.
    pub fn end(&mut self) -> Result<(), Fault> {
        match &mut self.source {
            Source::Json(json) => json.end(),
            Source::Ubjson(ubjson) => ubjson.end(),
        }
    }

    fn peek(&mut self) -> Result<u8, Fault> {
        match &mut self.source {
            Source::Json(json) => json.peek(),
            Source::Ubjson(ubjson) => ubjson.peek_kind(),
        }
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth <= DEEPEST {
            return Ok(());
        }
        let (format, at) = match &self.source {
            Source::Json(json) => (Format::Json, json.at()),
            Source::Ubjson(ubjson) => (Format::Ubjson, ubjson.at()),
        };
        Err(Fault::TooDeep {
            format,
            at,
            limit: DEEPEST,
        })
    }
}

/// Whether a file begins as UBJSON: an object, whose first key has its length before it; or one with the number of its keys.
fn is_ubjson(begin: &[u8]) -> bool {
    matches!(begin, [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'#' | b'$', ..])
}

#[cfg(test)]
mod tests;
