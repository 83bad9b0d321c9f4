//! One temporary file for each bundle, and for each destination of its elements.

use std::borrow::Cow;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use purlin_model::{Element, Timestamp, Window};
use rustc_hash::FxHashMap;

use super::sink::{DestinationFn, FileSink};
use super::target::{Target, unique};
use super::{WriteError, record_time};
use crate::dofn::{Context, DoFn, FinishContext};
use crate::error::DoFnResult;
use crate::io::compression::Encoder;
use crate::io::fs::{self, FileWriter};
use crate::side_input::{SideInput, Singleton};

const BUFFER: usize = 128 << 10;
/// So many files of one bundle are open at once: then the one that was written to longest ago is finished.
const MAX_OPEN: usize = 64;

/// A temporary file: its destination, its path, what stands before its elements, and its shard (-1: any).
pub(super) type Part = (String, String, Vec<u8>, i64);

/// Writes the elements of a bundle to files and tells of them when the bundle ends.
pub(super) struct WriteBundle<T, S, D> {
    target: Target,
    sink: S,
    destination: D,
    folder: SideInput<Singleton<String>>,
    /// The destination of the element before.
    last: Option<(Cow<'static, str>, Open<S>)>,
    others: FxHashMap<Cow<'static, str>, Open<S>>,
    finished: Vec<Part>,
    clock: u64,
    element: PhantomData<fn(T)>,
}

impl<T, S: FileSink<T>, D: DestinationFn<T>> WriteBundle<T, S, D> {
    pub fn new(target: Target, sink: S, destination: D, folder: SideInput<Singleton<String>>) -> Self {
        WriteBundle {
            target,
            sink,
            destination,
            folder,
            last: None,
            others: FxHashMap::default(),
            finished: Vec::new(),
            clock: 0,
            element: PhantomData,
        }
    }

    fn clear(&mut self) {
        self.last = None;
        self.others.clear();
        self.finished.clear();
    }

    fn write(
        &mut self,
        element: T,
        folder: impl FnOnce() -> Result<String, crate::error::BoxError>,
    ) -> DoFnResult {
        let destination = self.destination.of(&element);
        if self.last.as_ref().is_none_or(|(last, _)| *last != destination) {
            self.turn_to(destination, folder)?;
        }
        let Some((_, open)) = &mut self.last else {
            return Err("no file is open".into());
        };
        let target = &self.target;
        let output = |source| WriteError::Format {
            output: target.file_name("", None),
            source,
        };
        open.sink.write(element, &mut open.buffer).map_err(output)?;
        if open.buffer.len() >= BUFFER {
            let started = Instant::now();
            open.flush()
                .map_err(|source| self.target.error("cannot write to", &open.path, source))?;
            record_time(S::NAME, started);
        }
        Ok(())
    }

    /// Makes the file of another destination the current one.
    fn turn_to(
        &mut self,
        destination: Cow<'static, str>,
        folder: impl FnOnce() -> Result<String, crate::error::BoxError>,
    ) -> DoFnResult {
        self.clock += 1;
        if let Some((last, mut open)) = self.last.take() {
            open.used = self.clock;
            self.others.insert(last, open);
        }
        let open = match self.others.remove(&destination) {
            Some(open) => open,
            None => {
                if self.others.len() >= MAX_OPEN
                    && let Some(oldest) = self
                        .others
                        .iter()
                        .min_by_key(|(_, open)| open.used)
                        .map(|(name, _)| name.clone())
                    && let Some(open) = self.others.remove(&oldest)
                {
                    self.finish_one(oldest, open, -1)?;
                }
                let mut open = Open::create(&self.target, self.sink.clone(), &folder()?)?;
                open.sink.start(&mut open.buffer)?;
                open
            }
        };
        self.last = Some((destination, open));
        Ok(())
    }

    fn finish_one(&mut self, destination: Cow<'static, str>, mut open: Open<S>, shard: i64) -> DoFnResult {
        let started = Instant::now();
        open.sink
            .end(&mut open.buffer)
            .map_err(|source| WriteError::Format {
                output: self.target.file_name(&destination, None),
                source,
            })?;
        let header = open.sink.header();
        let path = open.path.clone();
        let path = open
            .finish()
            .map_err(|source| self.target.error("cannot write to", &path, source))?;
        record_time(S::NAME, started);
        self.finished
            .push((destination.into_owned(), path, header, shard));
        Ok(())
    }

    /// Finishes all files.
    fn finish(&mut self, shard: i64) -> Result<Vec<Part>, crate::error::BoxError> {
        let all: Vec<_> = self.last.take().into_iter().chain(self.others.drain()).collect();
        for (destination, open) in all {
            self.finish_one(destination, open, shard)?;
        }
        Ok(std::mem::take(&mut self.finished))
    }
}

impl<T, S: FileSink<T>, D: DestinationFn<T>> Clone for WriteBundle<T, S, D> {
    fn clone(&self) -> Self {
        // A clone writes files of its own.
        WriteBundle::new(
            self.target.clone(),
            self.sink.clone(),
            self.destination.clone(),
            self.folder.clone(),
        )
    }
}

/// A file that is being written. It is removed when it is dropped unfinished.
struct Open<S> {
    path: String,
    sink: S,
    encoder: Option<Encoder<Box<dyn FileWriter>>>,
    /// Elements gather here: files get them by large writes.
    buffer: Vec<u8>,
    used: u64,
}

impl<S> Open<S> {
    fn create(target: &Target, sink: S, folder: &str) -> Result<Open<S>, WriteError> {
        // In the order of time, which puts elements of one worker in the order in which they came.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let path = format!("{folder}/bundle-{since:024x}-{:016x}", unique());
        let encoder = fs::create(&path).and_then(|file| Encoder::new(target.compression, file));
        match encoder {
            Ok(encoder) => Ok(Open {
                path,
                sink,
                encoder: Some(encoder),
                buffer: Vec::with_capacity(BUFFER + 4096),
                used: 0,
            }),
            Err(error) => Err(target.error("cannot create", &path, error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(encoder) = &mut self.encoder {
            encoder.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<String> {
        self.flush()?;
        if let Some(encoder) = self.encoder.take() {
            encoder.finish()?.finish()?;
        }
        Ok(std::mem::take(&mut self.path))
    }
}

impl<S> Drop for Open<S> {
    fn drop(&mut self) {
        // A finished file has given its path away. Another is removed with its folder, if not here.
        if !self.path.is_empty() && self.encoder.take().is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl<T: Element, S: FileSink<T>, D: DestinationFn<T>> DoFn for WriteBundle<T, S, D> {
    type In = T;
    type Out = Part;

    fn start_bundle(&mut self) -> DoFnResult {
        self.clear();
        Ok(())
    }

    fn process(&mut self, element: T, ctx: &mut Context<'_, Part>) -> DoFnResult {
        let folder = self.folder.clone();
        self.write(element, || ctx.side(&folder).map(|folder| (*folder).clone()))
    }

    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, Part>) -> DoFnResult {
        for part in self.finish(-1)? {
            ctx.output(part, Timestamp::MIN, Window::Global);
        }
        Ok(())
    }
}

/// Writes each group of elements to files of its own.
pub(super) struct WriteShard<T, S, D>(WriteBundle<T, S, D>);

impl<T, S: FileSink<T>, D: DestinationFn<T>> WriteShard<T, S, D> {
    pub fn new(bundles: WriteBundle<T, S, D>) -> Self {
        WriteShard(bundles)
    }
}

impl<T, S: FileSink<T>, D: DestinationFn<T>> Clone for WriteShard<T, S, D> {
    fn clone(&self) -> Self {
        WriteShard(self.0.clone())
    }
}

impl<T: Element, S: FileSink<T>, D: DestinationFn<T>> DoFn for WriteShard<T, S, D> {
    type In = (u64, Vec<T>);
    type Out = Part;

    fn process(&mut self, (shard, mut elements): (u64, Vec<T>), ctx: &mut Context<'_, Part>) -> DoFnResult {
        self.0.clear();
        // One file at a time: a shard has one file of each destination.
        elements.sort_by_cached_key(|element| self.0.destination.of(element));
        let folder = ctx.side(&self.0.folder)?;
        let shard = i64::try_from(shard)?;
        let mut at = None;
        for element in elements {
            let destination = self.0.destination.of(&element);
            if at.as_ref().is_some_and(|at| *at != destination) {
                for part in self.0.finish(shard)? {
                    ctx.output(part);
                }
            }
            at = Some(destination);
            self.0.write(element, || Ok((*folder).clone()))?;
        }
        for part in self.0.finish(shard)? {
            ctx.output(part);
        }
        Ok(())
    }
}
