//! Compressed files.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// How a file is compressed. Files of several members or frames, one after the other, are read to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As the extension says: `.gz`, `.zst` and `.zstd`; others are not compressed.
    #[default]
    Auto,
    /// Not at all.
    Uncompressed,
    /// By gzip.
    Gzip,
    /// By Zstandard.
    Zstd,
}

/// Extensions that say that a file is compressed in a way that is not known here.
const UNKNOWN: [&str; 6] = [".bz2", ".xz", ".lzma", ".lz4", ".deflate", ".zip"];

impl Compression {
    /// What a file of this name is compressed by: never `Auto`.
    ///
    /// # Errors
    /// When the extension is of a compression that is not supported.
    pub(super) fn of(self, path: &str) -> io::Result<Compression> {
        if self != Compression::Auto {
            return Ok(self);
        }
        let lower = path.to_ascii_lowercase();
        if lower.ends_with(".gz") {
            return Ok(Compression::Gzip);
        }
        if lower.ends_with(".zst") || lower.ends_with(".zstd") {
            return Ok(Compression::Zstd);
        }
        if let Some(extension) = UNKNOWN.into_iter().find(|extension| lower.ends_with(extension)) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{extension} files cannot be read or written here; use gzip or zstd, or Compression::Uncompressed to \
                     take the bytes as they are"
                ),
            ));
        }
        Ok(Compression::Uncompressed)
    }

    /// Reads what the file holds.
    pub(super) fn reader(self, file: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Compression::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(128 << 10, file))),
            Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
            Compression::Auto | Compression::Uncompressed => file,
        })
    }
}

/// Writes a file, compressed or not.
pub(super) enum Encoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(compression: Compression, writer: W) -> io::Result<Encoder<W>> {
        Ok(match compression {
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(writer, flate2::Compression::default())),
            Compression::Zstd => Encoder::Zstd(zstd::Encoder::new(writer, 0)?),
            Compression::Auto | Compression::Uncompressed => Encoder::Plain(writer),
        })
    }

    /// Writes all that is left, and the end of the compressed data.
    pub fn finish(self) -> io::Result<W> {
        let mut writer = match self {
            Encoder::Plain(writer) => writer,
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
        };
        writer.flush()?;
        Ok(writer)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Plain(writer) => writer.write(data),
            Encoder::Gzip(encoder) => encoder.write(data),
            Encoder::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Plain(writer) => writer.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_tells() {
        let of = |path: &str| Compression::Auto.of(path);
        assert_eq!(of("a/b.txt").unwrap(), Compression::Uncompressed);
        assert_eq!(of("a/b.GZ").unwrap(), Compression::Gzip);
        assert_eq!(of("a/b.txt.zst").unwrap(), Compression::Zstd);
        assert!(of("a.bz2").unwrap_err().to_string().contains(".bz2 files"));
        assert_eq!(
            Compression::Uncompressed.of("a.bz2").unwrap(),
            Compression::Uncompressed
        );
    }
}
