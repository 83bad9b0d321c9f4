//! Names of models, and their versions.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The version that stands for the newest one.
pub const LATEST: &str = "latest";

/// The longest name or version.
const LONGEST: usize = 100;

/// A model as it is asked for: `NAME:VERSION`, `NAME:latest`, or `NAME`, which is the same.
///
/// Names and versions are letters, digits, `-`, `_` and `.`, and begin with a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// The model's name.
    pub name: String,
    /// Its version; `None` for the newest.
    pub version: Option<String>,
}

/// A text that names no model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} names no model: {reason}; a model is NAME:VERSION or NAME:latest, where names and versions are up to 100 letters, \
     digits, '-', '_' and '.' and begin with a letter or a digit"
)]
pub struct NameError {
    text: String,
    reason: &'static str,
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |reason| NameError {
            text: text.to_owned(),
            reason,
        };
        let (name, version) = match text.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !is_safe(name) {
            return Err(wrong("its name is not one"));
        }
        if version.is_some_and(|version| !is_safe(version)) {
            return Err(wrong("its version is not one"));
        }
        Ok(ModelName {
            name: name.to_owned(),
            version: version.filter(|version| *version != LATEST).map(str::to_owned),
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.version.as_deref().unwrap_or(LATEST))
    }
}

/// Whether it is a name of a folder that stays where it belongs.
pub(crate) fn is_safe(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= LONGEST
        && text.bytes().all(allowed)
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

/// The order of versions: numbers in them count as numbers, so 1.10 comes after 1.9.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (parts(one), parts(other));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => match one.cmp(&other) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
        }
    }
}

/// A run of digits or of other bytes. Of two numbers the one with more digits, without zeros before them, is larger.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Text(&'a str),
    Number(usize, &'a str),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_digit = rest.bytes().next()?.is_ascii_digit();
        let end = rest
            .bytes()
            .position(|byte| byte.is_ascii_digit() != is_digit)
            .unwrap_or(rest.len());
        let (part, more) = rest.split_at(end);
        rest = more;
        let digits = part.trim_start_matches('0');
        Some(match is_digit {
            true => Part::Number(digits.len(), digits),
            false => Part::Text(part),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, shown) in [
            ("encoder:3", "encoder:3"),
            ("text-encoder_2.b:1.10-rc1", "text-encoder_2.b:1.10-rc1"),
            ("encoder:latest", "encoder:latest"),
            ("encoder", "encoder:latest"),
        ] {
            assert_eq!(text.parse::<ModelName>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            ":1",
            "a:",
            "../a",
            "a/b:1",
            "a:..",
            ".a",
            "a b",
            "a:b:c",
            "ä",
            &"a".repeat(101),
        ] {
            let error = wrong.parse::<ModelName>().unwrap_err().to_string();
            assert!(error.contains("names no model"), "{error}");
        }
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let ordered = [
            "1", "1.9", "1.10", "1.10-rc1", "2", "002.1", "10", "v1", "v9", "v10",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                // Texts come before numbers.
                let (text, other_text) = (one.starts_with('v'), other.starts_with('v'));
                let expected = other_text.cmp(&text).then(at.cmp(&other_at));
                assert_eq!(compare(one, other), expected, "{one} {other}");
            }
        }
        assert_eq!(compare("007", "7"), Ordering::Equal);
    }
}
