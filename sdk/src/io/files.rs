//! Finding files.

use std::io::{self, Read};

use purlin_model::{CoderSpec, DecodeError, Element, typed};
use serde::{Deserialize, Serialize};

use super::fs;

/// What is known of a file without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileMetadata {
    /// Where it is.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last changed, in milliseconds since 1970; 0 where the file system does not tell.
    pub last_modified_millis: i64,
}

impl Element for FileMetadata {
    fn coder() -> CoderSpec {
        typed::serde_coder::<Self>()
    }
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        typed::serde_encode(self, out);
    }
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self, DecodeError> {
        typed::serde_decode(input)
    }
}

/// What to do with a pattern that no file matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyMatch {
    /// It gives no files.
    Allow,
    /// It gives no files where it has a wildcard; a file that is named must be there.
    AllowIfWildcard,
    /// It is an error.
    Disallow,
}

/// Why files were not found.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// There is no file of that name.
    #[error("there is no file \"{pattern}\"{hint}; check the path, which is relative to {folder}")]
    Missing {
        /// The name.
        pattern: String,
        /// What is known of the folder.
        hint: String,
        /// The working folder of the worker.
        folder: String,
    },
    /// No file matches.
    #[error(
        "no file matches \"{pattern}\"; check the pattern, which is relative to {folder}, or allow it to match nothing \
         with .empty_match(EmptyMatch::Allow)"
    )]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// The working folder of the worker.
        folder: String,
    },
    /// The name is of a folder.
    #[error("\"{0}\" is a folder; its files are \"{0}/*\", with those in folders below \"{0}/**/*\"")]
    Folder(String),
    /// The pattern is of a file system that is not known.
    #[error(
        "\"{0}\" is not a path of a local file, and this program was built without object stores: add the feature \
         \"object-store\" of the crate purlin, which knows s3://, gs:// and az://, or copy the files here first"
    )]
    Scheme(String),
    /// There is no object of that name.
    #[error("there is no object \"{0}\"; check bucket and name, or use a pattern such as \"{0}*\"")]
    MissingObject(String),
    /// The store cannot be used.
    #[error("cannot use \"{url}\": {reason}")]
    Store {
        /// The URL.
        url: String,
        /// Why, and which setting is concerned.
        reason: String,
    },
    /// The pattern cannot be understood.
    #[error("the pattern \"{pattern}\" cannot be understood: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Where and why.
        reason: String,
    },
    /// A folder or file cannot be looked at.
    #[error("cannot look at \"{path}\": {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl MatchError {
    pub(super) fn pattern(pattern: &str, error: &glob::PatternError) -> MatchError {
        MatchError::Pattern {
            pattern: pattern.to_owned(),
            reason: format!("{} at position {}", error.msg, error.pos),
        }
    }
}

fn working_folder() -> String {
    std::env::current_dir().map_or_else(
        |_| "the working folder".to_owned(),
        |folder| folder.display().to_string(),
    )
}

/// The files that a pattern matches, by name.
pub(super) fn find(pattern: &str, empty: EmptyMatch) -> Result<Vec<FileMetadata>, MatchError> {
    let files = fs::find(pattern)?;
    let wildcard = pattern.contains(['*', '?', '[']);
    let allowed = empty == EmptyMatch::Allow || (wildcard && empty == EmptyMatch::AllowIfWildcard);
    if !files.is_empty() || allowed {
        return Ok(files);
    }
    let pattern = pattern.to_owned();
    if wildcard {
        return Err(MatchError::NoMatch {
            pattern,
            folder: working_folder(),
        });
    }
    let Some(path) = fs::as_local(&pattern) else {
        return Err(MatchError::MissingObject(pattern));
    };
    if std::fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Err(MatchError::Folder(pattern.trim_end_matches('/').to_owned()));
    }
    let parent = std::path::Path::new(path)
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let hint = match parent {
        Some(parent) if !parent.exists() => format!(" (nor a folder \"{}\")", parent.display()),
        _ => String::new(),
    };
    Err(MatchError::Missing {
        pattern,
        hint,
        folder: working_folder(),
    })
}

/// The files that a pattern matches, by name: for programs that want to know before a pipeline runs. None where there are none.
///
/// # Errors
/// When a folder cannot be read, or the pattern or its file system is not known.
pub fn match_files(pattern: &str) -> Result<Vec<FileMetadata>, MatchError> {
    fs::find(pattern)
}

/// All bytes of a file, or of an object of a store, as they are.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(path: &str) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    fs::open(path, 0)?.read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(files: Vec<FileMetadata>) -> Vec<String> {
        files
            .into_iter()
            .filter_map(|file| file.path.rsplit('/').next().map(str::to_owned))
            .collect()
    }

    #[test]
    fn patterns_match_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        fs::create_dir(at("sub")).unwrap();
        for name in ["b.txt", "a.txt", "c[1].txt", "sub/d.txt"] {
            fs::write(at(name), name).unwrap();
        }
        let found = |pattern: &str| names(find(&at(pattern), EmptyMatch::Disallow).unwrap());
        assert_eq!(found("*.txt"), ["a.txt", "b.txt", "c[1].txt"]);
        assert_eq!(found("*"), ["a.txt", "b.txt", "c[1].txt"]);
        assert_eq!(found("**/*.txt"), ["a.txt", "b.txt", "c[1].txt", "d.txt"]);
        assert_eq!(found("c[1].txt"), ["c[1].txt"]);
        assert_eq!(find(&at("a.txt"), EmptyMatch::Disallow).unwrap()[0].size, 5);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        let fails = |pattern: &str, empty| find(pattern, empty).unwrap_err().to_string();
        let text = fails(&at("no/such.txt"), EmptyMatch::AllowIfWildcard);
        assert!(
            text.starts_with(&format!(
                "there is no file \"{}\" (nor a folder",
                at("no/such.txt")
            )),
            "{text}"
        );
        assert!(fails(&at("*.txt"), EmptyMatch::Disallow).starts_with("no file matches"));
        assert!(
            find(&at("*.txt"), EmptyMatch::AllowIfWildcard)
                .unwrap()
                .is_empty()
        );
        assert!(find(&at("x"), EmptyMatch::Allow).unwrap().is_empty());
        let text = fails(&at(""), EmptyMatch::Disallow);
        assert!(text.contains("is a folder; its files are"), "{text}");
        #[cfg(not(feature = "object-store"))]
        assert!(fails("gs://bucket/x", EmptyMatch::Allow).contains("object-store"));
        assert!(fails("a/***", EmptyMatch::Allow).contains("cannot be understood"));
    }
}
