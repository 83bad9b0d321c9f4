//! Writing files.
//!
//! ```text
//! Impulse ── CreateTempFolder ──┐ (side input)
//!                               ▼
//! elements ─────────────── WriteBundles ── temporary files ──┐ (side input)
//!                                                            ▼
//! Impulse ──────────────────────────────────────────────── Finalize ── names of files ──┐ (side input)
//!                                                                                       ▼
//! Impulse ─────────────────────────────────────────────────────────────────────── RemoveTempFolder
//! ```
//!
//! Each bundle writes a temporary file of its own. Only those that committed bundles told of become files, so nothing
//! of a bundle that failed or ran twice gets into them. Finalizing copies and renames; it leaves the temporary files
//! where they are, so it can be tried again. They go when it is committed, or when the run ends where it failed.
//!
//! Where a format's files cannot be put together ([`FileSink::CONCATENATES`]), each bundle's file becomes a file of its own; and
//! where the number of files is given, elements are shuffled into so many groups first.

mod bundles;
mod finalize;
mod sink;
mod target;

use std::io;
use std::time::Instant;

use purlin_model::Element;

use self::bundles::{Part, WriteBundle, WriteShard};
pub use self::sink::{DestinationFn, FileSink, KeyedBy, OneDestination, TextSink};
use self::target::{Target, TempFolders};
use super::{Compression, fs};
use crate::dofn::Context;
use crate::metrics::Metrics;
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::{Impulse, ParDo};
use crate::windowing::Windowing;

/// Writes elements to files of the format of a [`FileSink`]. What comes out are the paths of the files, once they are there.
///
/// The files are called `PREFIX-00000-of-00003SUFFIX`, or just `PREFIX` and `SUFFIX` [without
/// sharding](WriteFiles::without_sharding). They appear under these names when all of them are whole, and replace files of
/// these names; before, they lie in a folder `.purlin-temp-...` beside them. Folders are created. Elements are in no order.
/// A file that is replaced gives the new one its mode and owner. Links are followed, and what they lead to is written. A pipe or a
/// device (`/dev/stdout`, say) is written to and stays what it is.
/// The distribution `write_micros` of the namespace of the transform's name shows the time that the writing takes.
///
/// [`WriteFiles::by`] writes to files that depend on the element:
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # let output = format!("{}/words/", folder.path().display());
/// let p = TestPipeline::new();
/// let words = p.apply(Create::new(["to", "be", "or"].map(str::to_string)));
/// let write = WriteText::to(&output).suffix(".txt").without_sharding().by(|word: &String| word[..1].to_string());
/// PAssert::that(&words.apply(write))
///     .contains_in_any_order(["t", "b", "o"].map(|initial| format!("{output}{initial}.txt")));
/// p.run();
/// assert_eq!(std::fs::read_to_string(format!("{output}t.txt"))?, "to\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriteFiles<S, D = OneDestination> {
    target: Target,
    sink: S,
    destination: D,
}

/// Writes elements as lines of text files. What comes out are the paths of the files, once they are there: see [`WriteFiles`].
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
pub type WriteText = WriteFiles<TextSink>;

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
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
    /// An element cannot be written in this format.
    #[error("cannot write \"{output}\": {source}")]
    Format {
        /// What was to be written.
        output: String,
        /// Why not.
        source: crate::error::BoxError,
    },
}

impl<S> WriteFiles<S> {
    /// Files whose paths start with this, in the format of the sink.
    pub fn with(prefix: &str, sink: S) -> WriteFiles<S> {
        WriteFiles {
            target: Target::new(prefix),
            sink,
            destination: OneDestination,
        }
    }

    /// Adds to the prefix what the closure gives for an element: elements go to the files of their destination. A `/` in it
    /// makes folders.
    #[must_use]
    pub fn by<T, F>(self, destination: F) -> WriteFiles<S, KeyedBy<F>>
    where
        F: Fn(&T) -> String + Clone + Send + 'static,
    {
        WriteFiles {
            target: self.target,
            sink: self.sink,
            destination: KeyedBy(destination),
        }
    }
}

impl<S, D> WriteFiles<S, D> {
    /// How the paths end, such as `.txt` or `.txt.gz`.
    #[must_use]
    pub fn suffix(mut self, suffix: &str) -> Self {
        self.target.suffix = suffix.to_owned();
        self
    }

    /// So many files, of each destination. Where it is not said, there is one for about every 256 MiB, or, in formats whose
    /// files cannot be put together, one for each bundle.
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

    /// How the files are compressed: as the path's end says, unless told otherwise. Formats that compress what they hold
    /// have a setting of their own.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.target.compression = compression;
        self
    }

    pub(super) fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }
}

impl WriteFiles<TextSink> {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteText {
        WriteFiles::with(prefix, TextSink::default())
    }
}

impl<D> WriteFiles<TextSink, D> {
    /// The first line of each file.
    #[must_use]
    pub fn header(mut self, line: &str) -> Self {
        self.sink.header = Some(line.to_owned());
        self
    }

    /// The last line of each file.
    #[must_use]
    pub fn footer(mut self, line: &str) -> Self {
        self.sink.footer = Some(line.to_owned());
        self
    }

    /// What ends each line: `\n`, unless told otherwise.
    #[must_use]
    pub fn line_end(mut self, end: &str) -> Self {
        self.sink.line_end = end.to_owned();
        self
    }
}

impl<T, S, D> PTransform<PCollection<T>> for WriteFiles<S, D>
where
    T: Element,
    S: FileSink<T>,
    D: DestinationFn<T>,
{
    type Output = PCollection<String>;

    fn name(&self) -> String {
        S::NAME.into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<String> {
        let pipeline = input.pipeline().clone();
        let WriteFiles {
            mut target,
            sink,
            destination,
        } = self;
        target.one_destination = D::ONE;
        if let Err(error) = fs::check(&target.prefix) {
            pipeline.problem(error);
        } else if let Err(error) = target.check() {
            pipeline.problem(error);
        }
        for problem in sink.check() {
            pipeline.problem(problem);
        }
        if !input.is_bounded() {
            pipeline.problem(format!(
                "{} writes its files when all elements are there, but this collection may never end",
                S::NAME
            ));
        }
        match target.compression.of(&target.file_name("", None)) {
            Ok(compression) => target.compression = compression,
            Err(error) => {
                pipeline.problem(format!(
                    "cannot write \"{}\": {error}",
                    target.file_name("", None)
                ));
            }
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
        let bundles = WriteBundle::new(target.clone(), sink.clone(), destination, folder.clone());
        let parts = match (S::CONCATENATES, target.shard_count()) {
            // How many files there are can still be decided at the end.
            (true, _) | (false, None) => {
                elements.apply(ParDo::new("WriteBundles", bundles).with_side_input(&folder))
            }
            (false, Some(shards)) => {
                let mut next = target::unique();
                elements
                    .map("Shard", move |element: T| {
                        next = next.wrapping_add(1);
                        (next % shards as u64, element)
                    })
                    .group_by_key("GroupByShard")
                    .apply(ParDo::new("WriteShards", WriteShard::new(bundles)).with_side_input(&folder))
            }
        }
        .as_list();
        let written = pipeline.apply(Impulse).apply(
            ParDo::of("Finalize", {
                let (folder, parts) = (folder.clone(), parts.clone());
                move |_: Vec<u8>, ctx: &mut Context<'_, String>| {
                    let folder = ctx.side(&folder)?;
                    let parts: std::sync::Arc<Vec<Part>> = ctx.side(&parts)?;
                    let started = Instant::now();
                    let files = finalize::finalize::<T, S>(&target, &sink, &folder, &parts)?;
                    record_time(S::NAME, started);
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
fn record_time(namespace: &'static str, started: Instant) {
    let micros = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
    Metrics::distribution(namespace, "write_micros").update(micros);
}
