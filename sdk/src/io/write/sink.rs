//! Formats of files that are written.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;

use purlin_model::Element;

use crate::error::BoxError;

/// A format of files. Each file is written by a clone of its own.
///
/// ```
/// use purlin::io::{FileSink, WriteFiles};
/// use purlin::prelude::*;
///
/// /// Numbers as eight bytes each.
/// #[derive(Clone)]
/// struct Raw;
///
/// impl FileSink<i64> for Raw {
///     const NAME: &'static str = "WriteRaw";
///     const CONCATENATES: bool = true;
///
///     fn write(&mut self, element: i64, out: &mut Vec<u8>) -> Result<(), BoxError> {
///         out.extend_from_slice(&element.to_le_bytes());
///         Ok(())
///     }
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let output = format!("{}/numbers", folder.path().display());
/// let p = TestPipeline::new();
/// p.apply(Create::new([1i64])).apply(WriteFiles::with(&output, Raw).without_sharding());
/// p.run();
/// assert_eq!(std::fs::read(&output)?, [1, 0, 0, 0, 0, 0, 0, 0]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait FileSink<T>: Clone + Send + 'static {
    /// The transform's name.
    const NAME: &'static str;
    /// Whether several files, one after the other, make a file, but for the header and the footer.
    const CONCATENATES: bool;

    /// What is wrong with the settings, or with the type of the elements: known when the pipeline is built.
    fn check(&self) -> Vec<String> {
        Vec::new()
    }

    /// Appends what a file starts with. Not for the header of a format that concatenates.
    ///
    /// # Errors
    /// When the file cannot be started.
    fn start(&mut self, _out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(())
    }

    /// Appends an element. What is appended is written to the file from time to time.
    ///
    /// # Errors
    /// When the element cannot be written in this format.
    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError>;

    /// Appends what a file ends with. Not for the footer of a format that concatenates.
    ///
    /// # Errors
    /// When the file cannot be ended.
    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(())
    }

    /// What stands before the elements of a file that was put together; asked for when a part of it has been written.
    fn header(&self) -> Vec<u8> {
        Vec::new()
    }

    /// What stands behind the elements of a file that was put together.
    fn footer(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Where elements go.
pub trait DestinationFn<T>: Clone + Send + 'static {
    /// Whether all go to the same files.
    const ONE: bool;
    /// What is added to the prefix for an element.
    fn of(&self, element: &T) -> Cow<'static, str>;
}

/// All elements go to the same files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneDestination;

impl<T> DestinationFn<T> for OneDestination {
    const ONE: bool = true;
    #[inline]
    fn of(&self, _element: &T) -> Cow<'static, str> {
        Cow::Borrowed("")
    }
}

/// Elements go to the files that a closure names: [`WriteFiles::by`](super::WriteFiles::by).
#[derive(Clone, Copy, Debug)]
pub struct KeyedBy<F>(pub(super) F);

impl<T, F: Fn(&T) -> String + Clone + Send + 'static> DestinationFn<T> for KeyedBy<F> {
    const ONE: bool = false;
    fn of(&self, element: &T) -> Cow<'static, str> {
        Cow::Owned((self.0)(element))
    }
}

/// Lines of text.
#[derive(Clone, Debug)]
pub struct TextSink {
    pub(super) header: Option<String>,
    pub(super) footer: Option<String>,
    pub(super) line_end: String,
}

impl Default for TextSink {
    fn default() -> Self {
        TextSink {
            header: None,
            footer: None,
            line_end: "\n".to_owned(),
        }
    }
}

impl TextSink {
    fn line(&self, line: &Option<String>) -> Vec<u8> {
        line.as_ref()
            .map(|line| format!("{line}{}", self.line_end).into_bytes())
            .unwrap_or_default()
    }
}

impl<T: Element + Display> FileSink<T> for TextSink {
    const NAME: &'static str = "WriteText";
    const CONCATENATES: bool = true;

    #[inline]
    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(write!(out, "{element}{}", self.line_end)?)
    }

    fn header(&self) -> Vec<u8> {
        self.line(&self.header)
    }

    fn footer(&self) -> Vec<u8> {
        self.line(&self.footer)
    }
}
