//! Files of records, each read whole by one worker.

use std::io::{self, Read};

use bytes::Bytes;
use purlin_model::Element;

use super::files::{EmptyMatch, FileMetadata, find};
use super::{Compression, fs};
use crate::error::BoxError;
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::{Impulse, ParDo};

/// A format of files that are read from their beginning to their end.
pub trait FileSource: Clone + Send + 'static {
    /// What comes out.
    type Record: Element;
    /// The transform's name.
    const NAME: &'static str;
    /// Gives the records of a file.
    ///
    /// # Errors
    /// When it cannot be read; the file's name is added to the message.
    fn read(&self, file: &SourceFile, give: &mut dyn FnMut(Self::Record)) -> Result<(), BoxError>;
}

/// A file that is to be read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Where it is.
    pub metadata: FileMetadata,
    compression: Compression,
}

impl SourceFile {
    /// Reads it from its beginning, decompressed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        let path = &self.metadata.path;
        self.compression.of(path)?.reader(fs::open(path, 0)?)
    }

    /// All of it, decompressed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bytes(&self) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        self.reader()?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Its path for [`std::fs`], where it is a local file that is not compressed.
    pub fn local_path(&self) -> Option<&str> {
        let path = &self.metadata.path;
        match self.compression.of(path) {
            Ok(Compression::Uncompressed) => fs::as_local(path),
            _ => None,
        }
    }
}

/// The records of files, read by a [`FileSource`]: [`ReadCsv`](super::ReadCsv), [`ReadTfRecord`](super::ReadTfRecord) and others.
///
/// It is a root transform over a pattern, or, made by `all()`, a transform over a collection of patterns.
#[derive(Clone, Debug)]
pub struct ReadRecords<S> {
    pattern: Option<String>,
    empty: Option<EmptyMatch>,
    compression: Compression,
    source: S,
}

impl<S: FileSource> ReadRecords<S> {
    /// The records of the files that match this pattern.
    pub fn with(pattern: &str, source: S) -> ReadRecords<S> {
        ReadRecords {
            pattern: Some(pattern.to_owned()),
            empty: None,
            compression: Compression::Auto,
            source,
        }
    }

    /// The records of the files that match the patterns of a collection.
    pub fn all_with(source: S) -> ReadRecords<S> {
        ReadRecords {
            pattern: None,
            empty: None,
            compression: Compression::Auto,
            source,
        }
    }

    /// How the files are compressed. By their extension, unless told otherwise.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// What to do where no file matches. It is an error, unless told otherwise; for a collection of patterns, only where there
    /// is no wildcard in the pattern.
    #[must_use]
    pub fn empty_match(mut self, empty: EmptyMatch) -> Self {
        self.empty = Some(empty);
        self
    }

    pub(super) fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    fn read(self, files: PCollection<FileMetadata>) -> PCollection<S::Record> {
        let ReadRecords {
            compression, source, ..
        } = self;
        files.reshuffle("Reshuffle").apply(ParDo::of(
            "Read",
            move |metadata: FileMetadata, ctx: &mut crate::dofn::Context<'_, S::Record>| {
                let file = SourceFile {
                    metadata,
                    compression,
                };
                source
                    .read(&file, &mut |record| ctx.output(record))
                    .map_err(|error| {
                        format!(
                            "cannot read \"{}\": {}",
                            file.metadata.path,
                            crate::error::chain(&*error)
                        )
                        .into()
                    })
            },
        ))
    }
}

impl<S: FileSource> PTransform<PBegin> for ReadRecords<S> {
    type Output = PCollection<S::Record>;

    fn name(&self) -> String {
        S::NAME.into()
    }

    fn expand(self, input: PBegin) -> PCollection<S::Record> {
        let empty = self.empty.unwrap_or(EmptyMatch::Disallow);
        let pattern = self.pattern.clone().unwrap_or_default();
        if self.pattern.is_none() {
            input.pipeline().problem(format!(
                "{} for all patterns of a collection is applied to a pipeline: apply it to a collection of patterns",
                S::NAME
            ));
        } else if let Err(error) = fs::check(&pattern) {
            input.pipeline().problem(error);
        }
        let files = input
            .pipeline()
            .apply(Impulse)
            .try_flat_map("Match", move |_: Vec<u8>| find(&pattern, empty));
        self.read(files)
    }
}

impl<S: FileSource> PTransform<PCollection<String>> for ReadRecords<S> {
    type Output = PCollection<S::Record>;

    fn name(&self) -> String {
        S::NAME.replacen("Read", "ReadAll", 1)
    }

    fn expand(self, input: PCollection<String>) -> PCollection<S::Record> {
        let empty = self.empty.unwrap_or(EmptyMatch::AllowIfWildcard);
        if let Some(pattern) = &self.pattern {
            input.pipeline().problem(format!(
                "{} has a pattern of its own, \"{pattern}\", but is applied to a collection of patterns: use {0}::all()",
                S::NAME
            ));
        }
        let files = input.try_flat_map("Match", move |pattern: String| find(&pattern, empty));
        self.read(files)
    }
}
