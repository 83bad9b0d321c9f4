//! Lines of a model file, `key=value` each, and their values.

use crate::error::{ParseError, Part};

/// A line with its number, counted from 1.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub number: usize,
    pub text: &'a str,
}

/// The lines of a file, one after the other.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: Option<&'a str>,
    number: usize,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Lines<'a> {
        Lines {
            rest: Some(text),
            number: 0,
        }
    }

    /// The number of the line that was taken last.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The next line stays the next.
    pub fn peek(&self) -> Option<Line<'a>> {
        self.clone().next()
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.rest.filter(|rest| !rest.is_empty())?;
        let (line, rest) = match rest.split_once('\n') {
            Some((line, rest)) => (line, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        self.number += 1;
        Some(Line {
            number: self.number,
            text: line.strip_suffix('\r').unwrap_or(line),
        })
    }
}

/// A value with its place in the file.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    pub part: Part,
    pub line: usize,
    pub key: &'static str,
    pub text: &'a str,
}

/// The lines of the header or of a tree.
#[derive(Debug)]
pub struct Section<'a> {
    pub part: Part,
    pub first: usize,
    last: usize,
    /// Few enough to be looked through.
    lines: Vec<(&'a str, usize, &'a str)>,
}

impl<'a> Section<'a> {
    pub fn new(part: Part, first: usize) -> Section<'a> {
        Section {
            part,
            first,
            last: first,
            lines: Vec::new(),
        }
    }

    /// Adds `key=value`; a line without `=` is a key alone.
    pub fn add(&mut self, line: Line<'a>) {
        let (key, value) = line.text.split_once('=').unwrap_or((line.text, ""));
        self.last = line.number;
        self.lines.push((key, line.number, value));
    }

    /// The value of a key; the last one, as LightGBM takes it.
    pub fn find(&self, key: &'static str) -> Option<Value<'a>> {
        let (_, line, text) = self.lines.iter().rfind(|(name, ..)| *name == key)?;
        Some(Value {
            part: self.part,
            line: *line,
            key,
            text,
        })
    }

    /// The value of a key that must be there.
    pub fn get(&self, key: &'static str) -> Result<Value<'a>, ParseError> {
        self.find(key).ok_or(ParseError::Missing {
            part: self.part,
            first: self.first,
            last: self.last,
            key,
        })
    }
}

impl<'a> Value<'a> {
    /// The error of a value that is not what is expected.
    pub fn error(&self, found: &str, expected: impl Into<String>) -> ParseError {
        ParseError::Value {
            part: self.part,
            line: self.line,
            key: self.key,
            found: begin(found),
            expected: expected.into(),
        }
    }

    /// A whole number in a range.
    pub fn within(&self, from: usize, to: usize) -> Result<usize, ParseError> {
        let expected = || format!("a whole number from {from} to {to}");
        let text = self.text.trim();
        let number = text.parse().map_err(|_| self.error(text, expected()))?;
        if (from..=to).contains(&number) {
            Ok(number)
        } else {
            Err(self.error(text, expected()))
        }
    }

    /// The words of the line.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.split_ascii_whitespace()
    }

    /// As many values as told, each as `read` takes it. What is kept is never more than what is on the line.
    pub fn list<T>(
        &self,
        count: usize,
        why: &'static str,
        expected: impl Fn() -> String,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ParseError> {
        let mut values = Vec::new();
        for word in self.words() {
            values.push(read(word).ok_or_else(|| self.error(word, expected()))?);
        }
        if values.len() == count {
            Ok(values)
        } else {
            Err(ParseError::Count {
                part: self.part,
                line: self.line,
                key: self.key,
                found: values.len(),
                expected: count,
                why,
            })
        }
    }

    /// As many numbers as told, to the last bit.
    pub fn numbers(&self, count: usize, why: &'static str) -> Result<Vec<f64>, ParseError> {
        self.list(count, why, || "a number".into(), |word| word.parse().ok())
    }

    /// As many whole numbers as told, each in a range.
    pub fn whole(&self, count: usize, why: &'static str, from: i64, to: i64) -> Result<Vec<i64>, ParseError> {
        self.list(
            count,
            why,
            || format!("a whole number from {from} to {to}"),
            |word| word.parse().ok().filter(|number| (from..=to).contains(number)),
        )
    }
}

/// The begin of a text that may be long.
pub fn begin(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut begin: String = text
        .chars()
        .take(SHOWN)
        .collect::<String>()
        .escape_debug()
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        begin.push_str("...");
    }
    begin
}
