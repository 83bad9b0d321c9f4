//! Text files, line by line.

use std::io;

use purlin_model::Element;

use super::files::{EmptyMatch, FileMetadata, find};
use super::lines::Lines;
use super::{Compression, fs};
use crate::dofn::{Context, DoFn};
use crate::error::{BoxError, DoFnResult};
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
pub type ReadText = ReadLines<Plain>;

/// What the lines of text files hold: [`ReadText`] or [`ReadJson`](super::ReadJson).
#[derive(Clone, Debug)]
pub struct ReadLines<P> {
    pattern: String,
    empty: EmptyMatch,
    settings: ReadSettings,
    format: P,
}

/// What a line is.
pub trait LineFormat: Clone + Send + 'static {
    /// What comes out.
    type Record: Element;
    /// The transform's name.
    const NAME: &'static str;
    /// Reads a line; `None`: it holds nothing.
    ///
    /// # Errors
    /// When it is not in this format.
    fn parse(&self, line: &str) -> Result<Option<Self::Record>, BoxError>;
}

/// Lines as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl LineFormat for Plain {
    type Record = String;
    const NAME: &'static str = "ReadText";
    fn parse(&self, line: &str) -> Result<Option<String>, BoxError> {
        Ok(Some(line.to_owned()))
    }
}

/// ReadSettings to read a file.
#[derive(Clone, Debug)]
struct ReadSettings {
    compression: Compression,
    skip: u64,
    range: u64,
}

/// Small ranges spread the work evenly, but each costs an opening of the file.
const MIN_RANGE: u64 = 1 << 20;
const MAX_RANGE: u64 = 64 << 20;
/// So many ranges per file are enough.
const RANGES: u64 = 256;

impl Default for ReadSettings {
    fn default() -> Self {
        ReadSettings {
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
    /// A line is not in the format.
    #[error("\"{path}\" cannot be read in the line that starts at byte {offset}: {source}")]
    Format {
        /// Which file.
        path: String,
        /// Where the line starts, in the decompressed data.
        offset: u64,
        /// Why.
        source: BoxError,
    },
}

impl ReadLines<Plain> {
    /// The lines of the files that match this pattern.
    pub fn from(pattern: &str) -> ReadText {
        ReadLines::of(pattern, Plain)
    }
}

impl<P: LineFormat> ReadLines<P> {
    /// Lines of this format, of the files that match this pattern.
    pub fn of(pattern: &str, format: P) -> ReadLines<P> {
        ReadLines {
            pattern: pattern.to_owned(),
            empty: EmptyMatch::Disallow,
            settings: ReadSettings::default(),
            format,
        }
    }

    /// ReadSettings the files are compressed. By their extension, unless told otherwise.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Leaves out so many lines at the start of each file.
    #[must_use]
    pub fn skip_header_lines(mut self, lines: u64) -> Self {
        self.settings.skip = lines;
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
        self.settings.range = bytes;
        self
    }
}

impl<P: LineFormat> PTransform<PBegin> for ReadLines<P> {
    type Output = PCollection<P::Record>;

    fn name(&self) -> String {
        P::NAME.into()
    }

    fn expand(self, input: PBegin) -> PCollection<P::Record> {
        let ReadLines {
            pattern,
            empty,
            settings,
            format,
        } = self;
        if let Err(error) = fs::check(&pattern) {
            input.pipeline().problem(error);
        }
        let files = input
            .pipeline()
            .apply(Impulse)
            .try_flat_map("Match", move |_: Vec<u8>| find(&pattern, empty));
        read(files, settings, format)
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
pub type ReadAllText = ReadAllLines<Plain>;

/// What the lines of the files that match the patterns of a collection hold.
#[derive(Clone, Debug)]
pub struct ReadAllLines<P> {
    empty: EmptyMatch,
    settings: ReadSettings,
    format: P,
}

impl ReadAllLines<Plain> {
    /// A file that is named without wildcards must be there, unless told otherwise.
    pub fn new() -> ReadAllText {
        ReadAllLines::of(Plain)
    }
}

impl<P: LineFormat> ReadAllLines<P> {
    /// Lines of this format.
    pub fn of(format: P) -> ReadAllLines<P> {
        ReadAllLines {
            empty: EmptyMatch::AllowIfWildcard,
            settings: ReadSettings::default(),
            format,
        }
    }

    /// ReadSettings the files are compressed. By their extension, unless told otherwise.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Leaves out so many lines at the start of each file.
    #[must_use]
    pub fn skip_header_lines(mut self, lines: u64) -> Self {
        self.settings.skip = lines;
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
        self.settings.range = bytes;
        self
    }
}

impl Default for ReadAllLines<Plain> {
    fn default() -> Self {
        ReadAllText::new()
    }
}

impl<P: LineFormat> PTransform<PCollection<String>> for ReadAllLines<P> {
    type Output = PCollection<P::Record>;

    fn name(&self) -> String {
        P::NAME.replacen("Read", "ReadAll", 1)
    }

    fn expand(self, input: PCollection<String>) -> PCollection<P::Record> {
        let empty = self.empty;
        read(
            input.try_flat_map("Match", move |pattern: String| find(&pattern, empty)),
            self.settings,
            self.format,
        )
    }
}

/// Path, start and end of a range; the end of a file's last range is `u64::MAX`.
type Range = (String, u64, u64);

fn read<P: LineFormat>(
    files: PCollection<FileMetadata>,
    settings: ReadSettings,
    format: P,
) -> PCollection<P::Record> {
    let split = settings.clone();
    files
        .try_flat_map("Split", move |file: FileMetadata| {
            ranges(&file, &split).map_err(|source| ReadTextError::Io {
                path: file.path,
                source,
            })
        })
        .reshuffle("Reshuffle")
        .par_do("Read", ReadRange { settings, format })
}

/// Cuts a file into ranges.
fn ranges(file: &FileMetadata, settings: &ReadSettings) -> io::Result<Vec<Range>> {
    if settings.compression.of(&file.path)? != Compression::Uncompressed {
        return Ok(vec![(file.path.clone(), 0, u64::MAX)]);
    }
    let mut start = 0;
    if settings.skip > 0 {
        // The ranges start behind the header, so none of them has to know of it.
        let mut lines = Lines::new(fs::open(&file.path, 0)?, 0);
        for _ in 0..settings.skip {
            lines.next_line()?;
        }
        start = lines.offset();
    }
    let range = match settings.range {
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
struct ReadRange<P> {
    settings: ReadSettings,
    format: P,
}

impl<P: LineFormat> DoFn for ReadRange<P> {
    type In = Range;
    type Out = P::Record;
    const OBSERVES_WINDOW: bool = false;

    fn process(&mut self, (path, start, end): Range, ctx: &mut Context<'_, P::Record>) -> DoFnResult {
        let parse = |line: &str| self.format.parse(line);
        match read_range(&path, start, end, &self.settings, parse, |record| {
            ctx.output(record)
        }) {
            Ok(()) => Ok(()),
            Err(Problem::Io(source)) => Err(ReadTextError::Io { path, source }.into()),
            Err(Problem::NotUtf8(offset)) => Err(ReadTextError::NotUtf8 { path, offset }.into()),
            Err(Problem::Format(offset, source)) => {
                Err(ReadTextError::Format { path, offset, source }.into())
            }
        }
    }
}

/// Some programs write it at the start of UTF-8 files, where it means nothing.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

enum Problem {
    Io(io::Error),
    NotUtf8(u64),
    Format(u64, BoxError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}

/// Gives what the lines hold that start in a range.
fn read_range<T>(
    path: &str,
    start: u64,
    end: u64,
    settings: &ReadSettings,
    parse: impl Fn(&str) -> Result<Option<T>, BoxError>,
    give: impl FnMut(T),
) -> Result<(), Problem> {
    let compression = settings.compression.of(path)?;
    if compression != Compression::Uncompressed {
        let mut lines = Lines::new(compression.reader(fs::open(path, 0)?)?, 0);
        for _ in 0..settings.skip {
            lines.next_line()?;
        }
        return give_lines(lines, u64::MAX, parse, give);
    }
    // The line that holds the byte before the range started there or earlier: what follows it is the range's first.
    let before = start.saturating_sub(1);
    let mut lines = Lines::new(fs::open(path, before)?, before);
    if start > 0 {
        lines.next_line()?;
    }
    give_lines(lines, end, parse, give)
}

fn give_lines<R: io::Read, T>(
    mut lines: Lines<R>,
    end: u64,
    parse: impl Fn(&str) -> Result<Option<T>, BoxError>,
    mut give: impl FnMut(T),
) -> Result<(), Problem> {
    while lines.offset() < end {
        let offset = lines.offset();
        let Some(mut line) = lines.next_line()? else { break };
        if offset == 0 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        let line = std::str::from_utf8(line).map_err(|_| Problem::NotUtf8(offset))?;
        if let Some(record) = parse(line).map_err(|error| Problem::Format(offset, error))? {
            give(record);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(path: &str, size: usize, settings: &ReadSettings) -> Vec<String> {
        let file = FileMetadata {
            path: path.to_owned(),
            size: size as u64,
            last_modified_millis: 0,
        };
        let mut lines = Vec::new();
        for (path, start, end) in ranges(&file, settings).unwrap() {
            let parse = |line: &str| Plain.parse(line);
            assert!(read_range(&path, start, end, settings, parse, |line| lines.push(line)).is_ok());
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
                    let settings = ReadSettings {
                        range,
                        skip,
                        ..ReadSettings::default()
                    };
                    assert_eq!(
                        read_all(path, text.len(), &settings),
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
            ranges(&file, &ReadSettings::default()).unwrap().len()
        };
        assert_eq!((count(0), count(MIN_RANGE), count(10 * MIN_RANGE)), (1, 1, 10));
        assert_eq!(count(1 << 30), 256);
    }
}
