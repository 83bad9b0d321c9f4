//! UBJSON's bytes, as far as XGBoost writes them: no numbers of high precision.

use std::borrow::Cow;

use crate::fault::{Fault, Format};
use crate::number::Number;
use crate::reader::Members;

/// What is left of a file.
#[derive(Debug, Clone)]
pub(crate) struct Ubjson<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The kind of the value that comes next, where a list has told it for all of its items.
    kind: Option<u8>,
}

impl<'a> Ubjson<'a> {
    pub fn new(bytes: &'a [u8]) -> Ubjson<'a> {
        Ubjson {
            bytes,
            at: 0,
            kind: None,
        }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    fn cut_off(&self) -> Fault {
        Fault::CutOff {
            format: Format::Ubjson,
            at: self.bytes.len(),
        }
    }

    fn mark_error(&self, mark: u8, expected: &'static str) -> Fault {
        Fault::Unexpected {
            format: Format::Ubjson,
            at: self.at.saturating_sub(1),
            found: format!("the mark {mark:#04x}"),
            expected,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(length).ok_or_else(|| self.cut_off())?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.cut_off())?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.cut_off())
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    fn peek(&self) -> Result<u8, Fault> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.cut_off())
    }

    /// The kind of the value that comes next.
    pub fn peek_kind(&self) -> Result<u8, Fault> {
        self.kind.map_or_else(|| self.peek(), Ok)
    }

    fn take_kind(&mut self) -> Result<u8, Fault> {
        match self.kind.take() {
            Some(kind) => Ok(kind),
            None => self.byte(),
        }
    }

    fn whole(&mut self, kind: u8) -> Result<Option<i64>, Fault> {
        Ok(Some(match kind {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' => i64::from(self.byte()?),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Ok(None),
        }))
    }

    fn length(&mut self) -> Result<usize, Fault> {
        const EXPECTED: &str = "a length";
        let kind = self.byte()?;
        match self.whole(kind)? {
            Some(length) => usize::try_from(length).map_err(|_| self.mark_error(kind, EXPECTED)),
            None => Err(self.mark_error(kind, EXPECTED)),
        }
    }

    pub fn begin_object(&mut self) -> Result<Members, Fault> {
        match self.take_kind()? {
            b'{' => self.members(),
            other => Err(self.mark_error(other, "an object")),
        }
    }

    pub fn begin_list(&mut self) -> Result<Members, Fault> {
        match self.take_kind()? {
            b'[' => self.members(),
            other => Err(self.mark_error(other, "a list")),
        }
    }

    /// What may stand before the members: the kind of all, and their number.
    fn members(&mut self) -> Result<Members, Fault> {
        let mut members = Members {
            left: None,
            kind: None,
            first: true,
        };
        if self.peek()? == b'$' {
            self.at += 1;
            members.kind = Some(self.byte()?);
            if self.peek()? != b'#' {
                let found = self.byte()?;
                return Err(self.mark_error(found, "`#` and the number of items, as their kind is told"));
            }
        }
        if self.peek()? == b'#' {
            self.at += 1;
            members.left = Some(self.length()?);
        }
        Ok(members)
    }

    fn next(&mut self, members: &mut Members, end: u8) -> Result<bool, Fault> {
        match &mut members.left {
            Some(0) => return Ok(false),
            Some(left) => *left -= 1,
            None if self.peek()? == end => {
                self.at += 1;
                return Ok(false);
            }
            None => {}
        }
        Ok(true)
    }

    pub fn next_key(&mut self, members: &mut Members) -> Result<Option<Cow<'a, str>>, Fault> {
        if !self.next(members, b'}')? {
            return Ok(None);
        }
        let length = self.length()?;
        let key = self.text_of(length)?;
        self.kind = members.kind;
        Ok(Some(key))
    }

    pub fn next_item(&mut self, members: &mut Members) -> Result<bool, Fault> {
        let comes = self.next(members, b']')?;
        // Values of these kinds take no bytes: a number of them could be any.
        if comes && let Some(kind @ (b'Z' | b'N' | b'T' | b'F')) = members.kind {
            return Err(self.mark_error(kind, "a kind of items that have bytes"));
        }
        self.kind = members.kind.filter(|_| comes);
        Ok(comes)
    }

    pub fn number<T: Number>(&mut self) -> Result<T, Fault> {
        let kind = self.take_kind()?;
        let number = match kind {
            b'd' => T::of_float(f64::from(f32::from_be_bytes(self.array()?))),
            b'D' => T::of_float(f64::from_be_bytes(self.array()?)),
            b'T' => T::of_whole(1),
            b'F' => T::of_whole(0),
            _ => self.whole(kind)?.and_then(T::of_whole),
        };
        number.ok_or_else(|| self.mark_error(kind, T::EXPECTED))
    }

    pub fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        match self.take_kind()? {
            b'S' => {
                let length = self.length()?;
                self.text_of(length)
            }
            other => Err(self.mark_error(other, "a text")),
        }
    }

    fn text_of(&mut self, length: usize) -> Result<Cow<'a, str>, Fault> {
        Ok(String::from_utf8_lossy(self.take(length)?))
    }

    /// Passes over a list whose head tells how long it is in bytes. Where it does not, nothing is passed over.
    pub fn skip_numbers(&mut self) -> Result<bool, Fault> {
        let mut ahead = self.clone();
        let members = match ahead.take_kind()? {
            b'[' => ahead.members()?,
            _ => return Ok(false),
        };
        let (Some(left), Some(width)) = (members.left, members.kind.and_then(width)) else {
            return Ok(false);
        };
        let bytes = left.checked_mul(width).ok_or_else(|| self.cut_off())?;
        ahead.take(bytes)?;
        *self = ahead;
        Ok(true)
    }

    /// Passes over what is no list and no object.
    pub fn skip_simple(&mut self) -> Result<(), Fault> {
        let kind = self.take_kind()?;
        match kind {
            b'Z' | b'N' | b'T' | b'F' => Ok(()),
            b'S' | b'H' => {
                let length = self.length()?;
                self.take(length).map(drop)
            }
            _ => match width(kind) {
                Some(width) => self.take(width).map(drop),
                None => Err(self.mark_error(kind, "the mark of a value")),
            },
        }
    }

    pub fn end(&self) -> Result<(), Fault> {
        match self.bytes.get(self.at) {
            None => Ok(()),
            Some(_) => Err(Fault::Unexpected {
                format: Format::Ubjson,
                at: self.at,
                found: format!("{} bytes more", self.bytes.len() - self.at),
                expected: "the end of the file",
            }),
        }
    }
}

/// How many bytes a value of a kind takes, where it is always as many.
fn width(kind: u8) -> Option<usize> {
    match kind {
        b'i' | b'U' | b'C' => Some(1),
        b'I' => Some(2),
        b'l' | b'd' => Some(4),
        b'L' | b'D' => Some(8),
        _ => None,
    }
}
