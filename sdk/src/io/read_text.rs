//! Text files, line by line.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use super::Compression;
use super::files::{EmptyMatch, FileMetadata, MatchError, find, has_scheme};
use super::lines::Lines;
use crate::dofn::{Context, DoFn};
use crate::error::DoFnResult;
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::Impulse;

/// The lines of text files, without their ends (`\n` or `\r\n`). Files are UTF-8.
///
/// Several threads read one large file that is not compressed: it is read in ranges, and a line belongs to the range in
/// which it starts.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.txt"), "name\nto be\nor not\n")?;
/// # let pattern = format!("{}/*.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let lines = p.apply(ReadText::from(&pattern).skip_header_lines(1));
/// PAssert::that(&lines).contains_in_any_order(["to be".to_string(), "or not".to_string()]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReadText {
    pattern: String,
    empty: EmptyMatch,
    how: How,
}

/// How to read a file.
#[derive(Clone, Debug)]
struct How {
    compression: Compression,
    skip: u64,
    range: u64,
}

/// Small ranges spread the work evenly, but each costs an opening of the file.
const MIN_RANGE: u64 = 1 << 20;
const MAX_RANGE: u64 = 64 << 20;
/// So many ranges per file are enough.
const RANGES: u64 = 256;

impl Default for How {
    fn default() -> Self {
        How {
            compression: Compression::Auto,
            skip: 0,
            range: 0,
        }
    }
}

/// Why lines could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTextError {
    /// The file cannot be read.
    #[error("cannot read \"{path}\": {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line is not text.
    #[error(
        "\"{path}\" is not UTF-8 in the line that starts at byte {offset}: convert it to UTF-8, or read it as bytes with \
         ReadFiles"
    )]
    NotUtf8 {
        /// Which file.
        path: String,
        /// Where the line starts, in the decompressed data.
        offset: u64,
    },
}

impl ReadText {
    /// The lines of the files that match this pattern.
    pub fn from(pattern: &str) -> ReadText {
        ReadText {
            pattern: pattern.to_owned(),
            empty: EmptyMatch::Disallow,
            how: How::default(),
        }
    }

    /// How the files are compressed. By their extension, unless told otherwise.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.how.compression = compression;
        self
    }

    /// Leaves out so many lines at the start of each file.
    #[must_use]
    pub fn skip_header_lines(mut self, lines: u64) -> Self {
        self.how.skip = lines;
        self
    }

    /// What to do where no file matches. It is an error, unless told otherwise.
    #[must_use]
    pub fn empty_match(mut self, empty: EmptyMatch) -> Self {
        self.empty = empty;
        self
    }

    /// Reads files in ranges of about so many bytes; 0: as suits the file.
    #[must_use]
    pub fn range_bytes(mut self, bytes: u64) -> Self {
        self.how.range = bytes;
        self
    }
}

impl PTransform<PBegin> for ReadText {
    type Output = PCollection<String>;

    fn name(&self) -> String {
        "ReadText".into()
    }

    fn expand(self, input: PBegin) -> PCollection<String> {
        let ReadText { pattern, empty, how } = self;
        if has_scheme(&pattern) {
            input.pipeline().problem(MatchError::Scheme(pattern.clone()));
        }
        let files = input
            .pipeline()
            .apply(Impulse)
            .try_flat_map("Match", move |_: Vec<u8>| find(&pattern, empty));
        read(files, how)
    }
}

/// The lines of the files that match the patterns of a collection.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.txt"), "to be\nor not\n")?;
/// # let pattern = format!("{}/*.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let lines = p.apply(Create::new([pattern])).apply(ReadAllText::new());
/// PAssert::that(&lines).contains_in_any_order(["to be".to_string(), "or not".to_string()]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReadAllText {
    empty: EmptyMatch,
    how: How,
}

impl ReadAllText {
    /// A file that is named without wildcards must be there, unless told otherwise.
    pub fn new() -> ReadAllText {
        ReadAllText {
            empty: EmptyMatch::AllowIfWildcard,
            how: How::default(),
        }
    }

    /// How the files are compressed. By their extension, unless told otherwise.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.how.compression = compression;
        self
    }

    /// Leaves out so many lines at the start of each file.
    #[must_use]
    pub fn skip_header_lines(mut self, lines: u64) -> Self {
        self.how.skip = lines;
        self
    }

    /// What to do where no file matches.
    #[must_use]
    pub fn empty_match(mut self, empty: EmptyMatch) -> Self {
        self.empty = empty;
        self
    }

    /// Reads files in ranges of about so many bytes; 0: as suits the file.
    #[must_use]
    pub fn range_bytes(mut self, bytes: u64) -> Self {
        self.how.range = bytes;
        self
    }
}

impl Default for ReadAllText {
    fn default() -> Self {
        ReadAllText::new()
    }
}

impl PTransform<PCollection<String>> for ReadAllText {
    type Output = PCollection<String>;

    fn name(&self) -> String {
        "ReadAllText".into()
    }

    fn expand(self, input: PCollection<String>) -> PCollection<String> {
        let empty = self.empty;
        read(
            input.try_flat_map("Match", move |pattern: String| find(&pattern, empty)),
            self.how,
        )
    }
}

/// Path, start and end of a range; the end of a file's last range is `u64::MAX`.
type Range = (String, u64, u64);

fn read(files: PCollection<FileMetadata>, how: How) -> PCollection<String> {
    let split = how.clone();
    files
        .try_flat_map("Split", move |file: FileMetadata| {
            ranges(&file, &split).map_err(|source| ReadTextError::Io {
                path: file.path,
                source,
            })
        })
        .reshuffle("Reshuffle")
        .par_do("Read", ReadRange { how })
}

/// Cuts a file into ranges.
fn ranges(file: &FileMetadata, how: &How) -> io::Result<Vec<Range>> {
    if how.compression.of(&file.path)? != Compression::Uncompressed {
        return Ok(vec![(file.path.clone(), 0, u64::MAX)]);
    }
    let mut start = 0;
    if how.skip > 0 {
        // The ranges start behind the header, so none of them has to know of it.
        let mut lines = Lines::new(File::open(&file.path)?, 0);
        for _ in 0..how.skip {
            lines.next_line()?;
        }
        start = lines.offset();
    }
    let range = match how.range {
        0 => (file.size / RANGES).clamp(MIN_RANGE, MAX_RANGE),
        bytes => bytes,
    };
    let mut ranges = Vec::new();
    while file.size.saturating_sub(start) > range {
        ranges.push((file.path.clone(), start, start + range));
        start += range;
    }
    ranges.push((file.path.clone(), start, u64::MAX));
    Ok(ranges)
}

#[derive(Clone)]
struct ReadRange {
    how: How,
}

impl DoFn for ReadRange {
    type In = Range;
    type Out = String;
    const OBSERVES_WINDOW: bool = false;

    fn process(&mut self, (path, start, end): Range, ctx: &mut Context<'_, String>) -> DoFnResult {
        match read_range(&path, start, end, &self.how, |line| ctx.output(line)) {
            Ok(()) => Ok(()),
            Err(Problem::Io(source)) => Err(ReadTextError::Io { path, source }.into()),
            Err(Problem::NotUtf8(offset)) => Err(ReadTextError::NotUtf8 { path, offset }.into()),
        }
    }
}

/// Some programs write it at the start of UTF-8 files, where it means nothing.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

enum Problem {
    Io(io::Error),
    NotUtf8(u64),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}

/// Gives the lines that start in a range.
fn read_range(
    path: &str,
    start: u64,
    end: u64,
    how: &How,
    mut give: impl FnMut(String),
) -> Result<(), Problem> {
    let mut file = File::open(path)?;
    let compression = how.compression.of(path)?;
    if compression != Compression::Uncompressed {
        let mut lines = Lines::new(compression.reader(file)?, 0);
        for _ in 0..how.skip {
            lines.next_line()?;
        }
        return give_lines(lines, u64::MAX, give);
    }
    if start == 0 {
        return give_lines(Lines::new(file, 0), end, give);
    }
    // The line that holds the byte before the range started there or earlier: what follows it is the range's first.
    file.seek(SeekFrom::Start(start - 1))?;
    let mut lines = Lines::new(file, start - 1);
    lines.next_line()?;
    give_lines(lines, end, &mut give)
}

fn give_lines<R: io::Read>(
    mut lines: Lines<R>,
    end: u64,
    mut give: impl FnMut(String),
) -> Result<(), Problem> {
    while lines.offset() < end {
        let offset = lines.offset();
        let Some(mut line) = lines.next_line()? else { break };
        if offset == 0 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        match std::str::from_utf8(line) {
            Ok(line) => give(line.to_owned()),
            Err(_) => return Err(Problem::NotUtf8(offset)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(path: &str, size: usize, how: &How) -> Vec<String> {
        let file = FileMetadata {
            path: path.to_owned(),
            size: size as u64,
            last_modified_millis: 0,
        };
        let mut lines = Vec::new();
        for (path, start, end) in ranges(&file, how).unwrap() {
            assert!(read_range(&path, start, end, how, |line| lines.push(line)).is_ok());
        }
        lines
    }

    #[test]
    fn each_line_belongs_to_one_range() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.txt");
        let path = path.to_str().unwrap();
        for text in ["", "\n", "a", "a\nb", "a\r\n\n\nlonger line\nb\n", "\n\n\nx\n"] {
            std::fs::write(path, text).unwrap();
            for skip in 0..3 {
                let expected: Vec<&str> = text.lines().skip(skip as usize).collect();
                for range in 1..=text.len() as u64 + 1 {
                    let how = How {
                        range,
                        skip,
                        ..How::default()
                    };
                    assert_eq!(
                        read_all(path, text.len(), &how),
                        expected,
                        "{text:?} in ranges of {range}, skip {skip}"
                    );
                }
            }
        }
    }

    #[test]
    fn large_files_have_many_ranges() {
        let count = |size: u64| {
            let file = FileMetadata {
                path: "x".into(),
                size,
                last_modified_millis: 0,
            };
            ranges(&file, &How::default()).unwrap().len()
        };
        assert_eq!((count(0), count(MIN_RANGE), count(10 * MIN_RANGE)), (1, 1, 10));
        assert_eq!(count(1 << 30), 256);
    }
}
