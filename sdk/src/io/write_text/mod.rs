//! Writing text files.
//!
//! ```text
//! Impulse ── CreateTempFolder ──┐ (side input)
//!                               ▼
//! elements ─────────────── WriteBundles ── names of temporary files ──┐ (side input)
//!                                                                     ▼
//! Impulse ───────────────────────────────────────────────────────── Finalize ── names of files ──┐ (side input)
//!                                                                                                ▼
//! Impulse ──────────────────────────────────────────────────────────────────────────────── RemoveTempFolder
//! ```
//!
//! Each bundle writes a temporary file of its own. Only the names that committed bundles gave are put together, so nothing
//! of a bundle that failed or ran twice gets into the files. Finalizing copies and renames; it leaves the temporary files
//! where they are, so it can be tried again. They go when it is committed, or when the run ends where it failed.

mod bundles;
mod finalize;
mod target;

use std::fmt::Display;
use std::io;
use std::time::Instant;

use purlin_coders::Element;

use self::bundles::WriteBundle;
use self::target::{Target, TempFolders};
use super::Compression;
use super::files::{MatchError, has_scheme};
use crate::dofn::Context;
use crate::metrics::Metrics;
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::{Impulse, ParDo};
use crate::windowing::Windowing;

/// Writes elements as lines of text files. What comes out are the paths of the files, once they are there.
///
/// The files are called `PREFIX-00000-of-00003SUFFIX`, or just `PREFIX` and `SUFFIX` [without
/// sharding](WriteText::without_sharding). They appear under these names when all of them are whole, and replace files of
/// these names; before, they lie in a folder `.purlin-temp-...` beside them. Folders are created. Lines are in no order.
/// The distribution `write_micros` of the namespace `WriteText` shows the time that the writing takes.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # let output = format!("{}/counts.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let written = p.apply(Create::new([2i64])).apply(WriteText::to(&output).without_sharding().header("number"));
/// PAssert::that(&written).equals(output.clone());
/// p.run();
/// assert_eq!(std::fs::read_to_string(&output)?, "number\n2\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriteText {
    target: Target,
}

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteTextError {
    /// The folder is not there and cannot be made, or nothing can be written to it.
    #[error(
        "cannot write \"{output}\": no file can be made in the folder \"{folder}\": {source}; choose another output or \
         change the folder's permissions"
    )]
    Folder {
        /// What was to be written.
        output: String,
        /// Where.
        folder: String,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write \"{output}\": {action} \"{path}\": {source}")]
    Io {
        /// What was to be written.
        output: String,
        /// What failed.
        action: &'static str,
        /// The file that it failed for.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl WriteText {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteText {
        WriteText {
            target: Target::new(prefix),
        }
    }

    /// How the paths end, such as `.txt` or `.txt.gz`.
    #[must_use]
    pub fn suffix(mut self, suffix: &str) -> Self {
        self.target.suffix = suffix.to_owned();
        self
    }

    /// So many files. Where it is not said, there is one for about every 256 MiB.
    #[must_use]
    pub fn num_shards(mut self, shards: usize) -> Self {
        self.target.shards = Some(shards);
        self
    }

    /// One file, whose name has no number.
    #[must_use]
    pub fn without_sharding(mut self) -> Self {
        self.target.shards = None;
        self.target.single = true;
        self
    }

    /// The first line of each file.
    #[must_use]
    pub fn header(mut self, line: &str) -> Self {
        self.target.header = Some(line.to_owned());
        self
    }

    /// The last line of each file.
    #[must_use]
    pub fn footer(mut self, line: &str) -> Self {
        self.target.footer = Some(line.to_owned());
        self
    }

    /// How the files are compressed: as the path's end says, unless told otherwise.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.target.compression = compression;
        self
    }

    /// What ends each line: `\n`, unless told otherwise.
    #[must_use]
    pub fn line_end(mut self, end: &str) -> Self {
        self.target.line_end = end.to_owned();
        self
    }
}

impl<T: Element + Display> PTransform<PCollection<T>> for WriteText {
    type Output = PCollection<String>;

    fn name(&self) -> String {
        "WriteText".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<String> {
        let pipeline = input.pipeline().clone();
        let mut target = self.target;
        if has_scheme(&target.prefix) {
            pipeline.problem(MatchError::Scheme(target.prefix.clone()));
        } else if let Err(error) = target.check() {
            pipeline.problem(error);
        }
        if !input.is_bounded() {
            pipeline.problem(
                "WriteText writes its files when all elements are there, but this collection may never end",
            );
        }
        match target.compression.of(&target.file_name(None)) {
            Ok(compression) => target.compression = compression,
            Err(error) => pipeline.problem(format!("cannot write \"{}\": {error}", target.file_name(None))),
        }

        let made = target.clone();
        let folders = TempFolders::default();
        let left = folders.clone();
        pipeline.at_end(move || left.remove());
        let folder = pipeline
            .apply(Impulse)
            .try_map("CreateTempFolder", move |_: Vec<u8>| {
                made.create_temp_folder().inspect(|folder| folders.add(folder))
            })
            .as_singleton();
        let elements = match input.windowing() {
            windowing if windowing == Windowing::global() => input,
            _ => input.window_into("Global", Windowing::global()),
        };
        let parts = elements
            .apply(
                ParDo::new("WriteBundles", WriteBundle::new(target.clone(), folder.clone()))
                    .with_side_input(&folder),
            )
            .as_list();
        let written = pipeline.apply(Impulse).apply(
            ParDo::of("Finalize", {
                let (folder, parts) = (folder.clone(), parts.clone());
                move |_: Vec<u8>, ctx: &mut Context<'_, String>| {
                    let folder = ctx.side(&folder)?;
                    let parts = ctx.side(&parts)?;
                    let started = Instant::now();
                    let files = finalize::finalize(&target, &folder, &parts)?;
                    record_time(started);
                    files.into_iter().for_each(|path| ctx.output(path));
                    Ok(())
                }
            })
            .with_side_input(&folder)
            .with_side_input(&parts),
        );
        let done = written.as_list();
        pipeline.apply(Impulse).apply(
            ParDo::of("RemoveTempFolder", {
                let (folder, done) = (folder.clone(), done.clone());
                move |_: Vec<u8>, ctx: &mut Context<'_, ()>| {
                    // Not read for its value: it is there when the files are, so the step waits for them.
                    ctx.side(&done)?;
                    target::remove_temp_folder(&ctx.side(&folder)?);
                    Ok(())
                }
            })
            .with_side_input(&folder)
            .with_side_input(&done),
        );
        written
    }
}

/// Adds to the time that writing took.
fn record_time(started: Instant) {
    let micros = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
    Metrics::distribution("WriteText", "write_micros").update(micros);
}
