//! JSON's texts.

use std::borrow::Cow;

use crate::fault::{Fault, Format};
use crate::number::Number;
use crate::reader::Members;

/// What is left of a text.
#[derive(Debug, Clone)]
pub(crate) struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    pub fn new(bytes: &'a [u8]) -> Json<'a> {
        Json { bytes, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    fn cut_off(&self) -> Fault {
        Fault::CutOff {
            format: Format::Json,
            at: self.bytes.len(),
        }
    }

    fn unexpected(&self, at: usize, expected: &'static str) -> Fault {
        let end = (at + 20).min(self.bytes.len());
        let found = String::from_utf8_lossy(self.bytes.get(at..end).unwrap_or_default());
        Fault::Unexpected {
            format: Format::Json,
            at,
            found: format!("`{}`", found.escape_debug()),
            expected,
        }
    }

    /// The first byte of what comes next.
    pub fn peek(&mut self) -> Result<u8, Fault> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().ok_or_else(|| self.cut_off())
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Fault> {
        if self.peek()? != byte {
            return Err(self.unexpected(self.at, expected));
        }
        self.at += 1;
        Ok(())
    }

    pub fn begin_object(&mut self) -> Result<Members, Fault> {
        self.expect(b'{', "an object")?;
        Ok(MEMBERS)
    }

    pub fn begin_list(&mut self) -> Result<Members, Fault> {
        self.expect(b'[', "a list")?;
        Ok(MEMBERS)
    }

    pub fn next_key(&mut self, members: &mut Members) -> Result<Option<Cow<'a, str>>, Fault> {
        if !self.next(members, b'}', "`,` or `}`")? {
            return Ok(None);
        }
        let key = self.text()?;
        self.expect(b':', "`:`")?;
        Ok(Some(key))
    }

    pub fn next_item(&mut self, members: &mut Members) -> Result<bool, Fault> {
        self.next(members, b']', "`,` or `]`")
    }

    /// Whether another member comes, up to the comma.
    fn next(&mut self, members: &mut Members, end: u8, expected: &'static str) -> Result<bool, Fault> {
        let first = std::mem::replace(&mut members.first, false);
        if self.peek()? == end {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',', expected)?;
        }
        Ok(true)
    }

    /// The bytes of a number or of a word such as `true`.
    fn word(&mut self) -> Result<&'a [u8], Fault> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.iter().take_while(|byte| inside(byte)).count();
        // One that goes on to the end may go on behind it.
        if length == rest.len() {
            return Err(self.cut_off());
        }
        Ok(&rest[..length])
    }

    pub fn number<T: Number>(&mut self) -> Result<T, Fault> {
        let word = self.word()?;
        let number = std::str::from_utf8(word).ok().and_then(T::of_text);
        let number = number.ok_or_else(|| self.unexpected(self.at, T::EXPECTED))?;
        self.at += word.len();
        Ok(number)
    }

    pub fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'"', "a text")?;
        let begin = self.at;
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at).ok_or_else(|| self.cut_off())? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        let inside = self.bytes.get(begin..self.at).ok_or_else(|| self.cut_off())?;
        self.at += 1;
        let text = std::str::from_utf8(inside).map_err(|error| {
            let at = begin + error.valid_up_to();
            self.unexpected(at, "text in UTF-8")
        })?;
        match escaped {
            false => Ok(Cow::Borrowed(text)),
            true => unescape(text)
                .map(Cow::Owned)
                .ok_or_else(|| self.unexpected(begin, "a text with escapes of JSON")),
        }
    }

    /// Passes over what is no list and no object.
    pub fn skip_simple(&mut self) -> Result<(), Fault> {
        if self.peek()? == b'"' {
            return self.text().map(drop);
        }
        let word = self.word()?;
        let known = matches!(
            word,
            b"true" | b"false" | b"null" | b"NaN" | b"Infinity" | b"-Infinity"
        );
        if !known && std::str::from_utf8(word).ok().and_then(f32::of_text).is_none() {
            return Err(self.unexpected(self.at, "a value"));
        }
        self.at += word.len();
        Ok(())
    }

    pub fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            // That nothing comes is well here.
            Err(_) => Ok(()),
            Ok(_) => Err(self.unexpected(self.at, "the end of the file")),
        }
    }
}

const MEMBERS: Members = Members {
    left: None,
    kind: None,
    first: true,
};

/// A text without its escapes; none if one is wrong.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        out.push(match chars.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let mut unit = || {
                    let digits: String = chars.by_ref().take(4).collect();
                    let hex = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                    hex.then(|| u32::from_str_radix(&digits, 16).ok()).flatten()
                };
                let first = unit()?;
                if (0xd800..0xdc00).contains(&first) {
                    // A pair of halves.
                    (chars.next() == Some('\\') && chars.next() == Some('u')).then_some(())?;
                    let digits: String = chars.by_ref().take(4).collect();
                    let second = u32::from_str_radix(&digits, 16).ok()?;
                    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)?
                } else {
                    char::from_u32(first)?
                }
            }
            plain @ ('"' | '\\' | '/') => plain,
            _ => return None,
        });
    }
    Some(out)
}
