//! One temporary file for each bundle.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use purlin_coders::{Element, Timestamp, Window};

use super::target::{Target, unique};
use super::{WriteTextError, record_time};
use crate::dofn::{Context, DoFn, FinishContext};
use crate::error::DoFnResult;
use crate::io::compression::Encoder;
use crate::side_input::{SideInput, Singleton};

const BUFFER: usize = 128 << 10;

/// Writes the elements of a bundle to a file and emits its path when the bundle ends.
pub(super) struct WriteBundle<T> {
    target: Target,
    folder: SideInput<Singleton<String>>,
    open: Option<Open>,
    element: PhantomData<fn(T)>,
}

impl<T> WriteBundle<T> {
    pub fn new(target: Target, folder: SideInput<Singleton<String>>) -> WriteBundle<T> {
        WriteBundle {
            target,
            folder,
            open: None,
            element: PhantomData,
        }
    }
}

impl<T> Clone for WriteBundle<T> {
    fn clone(&self) -> Self {
        // A clone writes a file of its own.
        WriteBundle::new(self.target.clone(), self.folder.clone())
    }
}

/// A file that is being written. It is removed when it is dropped unfinished.
struct Open {
    path: PathBuf,
    encoder: Option<Encoder<File>>,
    /// Lines gather here: files get them by large writes.
    buffer: Vec<u8>,
}

impl Open {
    fn create(target: &Target, folder: &str) -> Result<Open, WriteTextError> {
        // In the order of time, which puts lines of one worker in the order in which they came.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let path = PathBuf::from(format!("{folder}/bundle-{since:024x}-{:016x}", unique()));
        let encoder = File::create_new(&path).and_then(|file| Encoder::new(target.compression, file));
        match encoder {
            Ok(encoder) => Ok(Open {
                path,
                encoder: Some(encoder),
                buffer: Vec::with_capacity(BUFFER + 4096),
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

    fn finish(mut self) -> io::Result<PathBuf> {
        self.flush()?;
        if let Some(encoder) = self.encoder.take() {
            encoder.finish()?;
        }
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A finished file has given its path away. Another is removed with its folder, if not here.
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl<T: Element + Display> DoFn for WriteBundle<T> {
    type In = T;
    type Out = String;

    fn start_bundle(&mut self) -> DoFnResult {
        self.open = None;
        Ok(())
    }

    fn process(&mut self, element: T, ctx: &mut Context<'_, String>) -> DoFnResult {
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let folder = ctx.side(&self.folder)?;
                none.insert(Open::create(&self.target, &folder)?)
            }
        };
        write!(open.buffer, "{element}{}", self.target.line_end)?;
        if open.buffer.len() >= BUFFER {
            let started = Instant::now();
            open.flush()
                .map_err(|source| self.target.error("cannot write to", &open.path, source))?;
            record_time(started);
        }
        Ok(())
    }

    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, String>) -> DoFnResult {
        if let Some(open) = self.open.take() {
            let started = Instant::now();
            let path = open.path.clone();
            let path = open
                .finish()
                .map_err(|source| self.target.error("cannot write to", &path, source))?;
            record_time(started);
            ctx.output(path.display().to_string(), Timestamp::MIN, Window::Global);
        }
        Ok(())
    }
}
