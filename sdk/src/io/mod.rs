//! Reading and writing files.
//!
//! | for | transforms |
//! |---|---|
//! | text, line by line | [`ReadText`], [`ReadAllText`], [`WriteText`] |
//! | whole files | [`MatchFiles`], [`MatchAll`], [`ReadFiles`] |
//!
//! Files are those of the machine that a worker runs on. Patterns are globs: `*` and `?` match within a name, `[ab]` one of
//! several characters, `**` folders of any depth; a file whose name is the pattern itself is always found.

mod compression;
mod files;
mod lines;
mod read_files;
mod read_text;
mod write_text;

pub use compression::Compression;
pub use files::{EmptyMatch, FileMetadata, MatchError};
pub use read_files::{MatchAll, MatchFiles, ReadFiles};
pub use read_text::{ReadAllText, ReadText, ReadTextError};
pub use write_text::{WriteText, WriteTextError};
