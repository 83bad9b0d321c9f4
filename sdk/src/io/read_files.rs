//! Files as elements.

use std::io::Read;

use bytes::Bytes;
use purlin_model::Element;

use super::files::{EmptyMatch, FileMetadata, find};
use super::{Compression, fs};
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::Impulse;

/// The files that match a pattern.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.txt"), "abc")?;
/// # let pattern = format!("{}/*.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let sizes = p.apply(MatchFiles::new(&pattern)).map("Size", |file: FileMetadata| file.size);
/// PAssert::that(&sizes).contains_in_any_order([3]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MatchFiles {
    pattern: String,
    empty: EmptyMatch,
}

impl MatchFiles {
    /// The files that match this pattern; none is an error unless told otherwise.
    pub fn new(pattern: &str) -> MatchFiles {
        MatchFiles {
            pattern: pattern.to_owned(),
            empty: EmptyMatch::Disallow,
        }
    }

    /// What to do where no file matches.
    #[must_use]
    pub fn empty_match(mut self, empty: EmptyMatch) -> Self {
        self.empty = empty;
        self
    }
}

impl PTransform<PBegin> for MatchFiles {
    type Output = PCollection<FileMetadata>;

    fn name(&self) -> String {
        "MatchFiles".into()
    }

    fn expand(self, input: PBegin) -> PCollection<FileMetadata> {
        let MatchFiles { pattern, empty } = self;
        if let Err(error) = fs::check(&pattern) {
            input.pipeline().problem(error);
        }
        input
            .pipeline()
            .apply(Impulse)
            .try_flat_map("Match", move |_: Vec<u8>| find(&pattern, empty))
            .reshuffle("Reshuffle")
    }
}

/// The files that match the patterns of a collection.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.txt"), "abc")?;
/// # let pattern = format!("{}/*.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let files = p.apply(Create::new([pattern])).apply(MatchAll::new()).apply(ReadFiles::new());
/// PAssert::that(&files.values().map("Text", |bytes| bytes.to_vec())).contains_in_any_order([b"abc".to_vec()]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MatchAll {
    empty: EmptyMatch,
}

impl MatchAll {
    /// A file that is named without wildcards must be there, unless told otherwise.
    pub fn new() -> MatchAll {
        MatchAll {
            empty: EmptyMatch::AllowIfWildcard,
        }
    }

    /// What to do where no file matches.
    #[must_use]
    pub fn empty_match(mut self, empty: EmptyMatch) -> Self {
        self.empty = empty;
        self
    }
}

impl Default for MatchAll {
    fn default() -> Self {
        MatchAll::new()
    }
}

impl PTransform<PCollection<String>> for MatchAll {
    type Output = PCollection<FileMetadata>;

    fn name(&self) -> String {
        "MatchAll".into()
    }

    fn expand(self, input: PCollection<String>) -> PCollection<FileMetadata> {
        let empty = self.empty;
        input
            .try_flat_map("Match", move |pattern: String| find(&pattern, empty))
            .reshuffle("Reshuffle")
    }
}

/// Files as pairs of their path and their bytes, decompressed.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.txt"), "abc")?;
/// # let pattern = format!("{}/*.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let lengths = p
///     .apply(MatchFiles::new(&pattern))
///     .apply(ReadFiles::new())
///     .map("Length", |(_path, bytes)| bytes.len());
/// PAssert::that(&lengths).contains_in_any_order([3]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadFiles {
    compression: Compression,
}

impl ReadFiles {
    /// Compressed as their extensions say, unless told otherwise.
    pub fn new() -> ReadFiles {
        ReadFiles::default()
    }

    /// How the files are compressed.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }
}

impl PTransform<PCollection<FileMetadata>> for ReadFiles
where
    (String, Bytes): Element,
{
    type Output = PCollection<(String, Bytes)>;

    fn name(&self) -> String {
        "ReadFiles".into()
    }

    fn expand(self, input: PCollection<FileMetadata>) -> PCollection<(String, Bytes)> {
        input.try_map("Read", move |file: FileMetadata| {
            let read = || {
                let compression = self.compression.of(&file.path)?;
                let mut bytes = Vec::new();
                let opened = fs::open(&file.path, 0)?;
                if compression == Compression::Uncompressed {
                    bytes.reserve_exact(usize::try_from(file.size).unwrap_or(0));
                }
                compression.reader(opened)?.read_to_end(&mut bytes)?;
                Ok::<_, std::io::Error>(Bytes::from(bytes))
            };
            match read() {
                Ok(bytes) => Ok((file.path, bytes)),
                Err(error) => Err(format!("cannot read \"{}\": {error}", file.path)),
            }
        })
    }
}
