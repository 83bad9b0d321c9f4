//! TFRecord files: byte strings, each with its length and checksums.

use std::io::{self, BufReader, Read};

use bytes::Bytes;

use super::read_records::{FileSource, ReadRecords, SourceFile};
use super::write::{FileSink, WriteFiles};
use crate::error::BoxError;

/// The records of TFRecord files. Their checksums are checked.
///
/// ```
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = format!("{}/examples.tfrecord", folder.path().display());
/// let p = TestPipeline::new();
/// let records = p.apply(Create::new([b"one".to_vec(), b"two".to_vec()]));
/// let written = records.apply(WriteTfRecord::to(&path).without_sharding());
/// let read = written.apply(ReadTfRecord::all()).map("Vec", |record| record.to_vec());
/// PAssert::that(&read).contains_in_any_order([b"one".to_vec(), b"two".to_vec()]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
pub type ReadTfRecord = ReadRecords<TfRecordSource>;

/// The format of [`ReadTfRecord`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TfRecordSource;

/// Why a file is not one of TFRecords.
#[derive(Debug, thiserror::Error)]
pub enum TfRecordError {
    /// A checksum is another.
    #[error(
        "the checksum of the {what} of the record at byte {offset} is wrong: the file is broken, or no TFRecord file, or it is \
         compressed and its name does not say so"
    )]
    Checksum {
        /// Length or data.
        what: &'static str,
        /// Where the record starts.
        offset: u64,
    },
    /// The file ends in a record.
    #[error("the file ends inside the record at byte {offset}: it was not written to its end")]
    Truncated {
        /// Where the record starts.
        offset: u64,
    },
}

/// The checksum that the format uses: it differs from that of data which holds checksums itself.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

impl ReadRecords<TfRecordSource> {
    /// The records of the files that match this pattern.
    pub fn from(pattern: &str) -> ReadTfRecord {
        ReadRecords::with(pattern, TfRecordSource)
    }

    /// The records of the files that match the patterns of a collection.
    pub fn all() -> ReadTfRecord {
        ReadRecords::all_with(TfRecordSource)
    }
}

/// Reads to the end of the buffer, or of the file: then how much there was.
fn fill(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match reader.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn read_records(reader: impl Read, give: &mut dyn FnMut(Bytes)) -> Result<(), BoxError> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let mut offset = 0u64;
    loop {
        let mut head = [0; 12];
        match fill(&mut reader, &mut head)? {
            0 => return Ok(()),
            12 => {}
            _ => return Err(TfRecordError::Truncated { offset }.into()),
        }
        if masked_crc(&head[..8]) != u32_at(&head, 8) {
            return Err(TfRecordError::Checksum {
                what: "length",
                offset,
            }
            .into());
        }
        let length = u64::from(u32_at(&head, 0)) | u64::from(u32_at(&head, 4)) << 32;
        // Room is made as data comes: a checksum does not make a length true.
        let mut data = Vec::new();
        let read = (&mut reader)
            .take(length.saturating_add(4))
            .read_to_end(&mut data)?;
        if (read as u64) < length.saturating_add(4) {
            return Err(TfRecordError::Truncated { offset }.into());
        }
        let end = read - 4;
        if masked_crc(&data[..end]) != u32_at(&data, end) {
            return Err(TfRecordError::Checksum { what: "data", offset }.into());
        }
        data.truncate(end);
        offset += 12 + read as u64;
        give(data.into());
    }
}

impl FileSource for TfRecordSource {
    type Record = Bytes;
    const NAME: &'static str = "ReadTfRecord";

    fn read(&self, file: &SourceFile, give: &mut dyn FnMut(Bytes)) -> Result<(), BoxError> {
        read_records(file.reader()?, give)
    }
}

/// Writes byte strings (`Vec<u8>`, `Bytes` or `String`) as TFRecord files: see [`WriteFiles`].
pub type WriteTfRecord = WriteFiles<TfRecordSink>;

/// The format of [`WriteTfRecord`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TfRecordSink;

impl WriteFiles<TfRecordSink> {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteTfRecord {
        WriteFiles::with(prefix, TfRecordSink)
    }
}

impl<T: AsRef<[u8]>> FileSink<T> for TfRecordSink {
    const NAME: &'static str = "WriteTfRecord";
    const CONCATENATES: bool = true;

    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let data = element.as_ref();
        let length = (data.len() as u64).to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&masked_crc(&length).to_le_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(&masked_crc(data).to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(data: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let mut records = Vec::new();
        read_records(data, &mut |record| records.push(record))?;
        Ok(records)
    }

    #[test]
    fn records_are_read_and_damage_is_found() {
        let mut file = Vec::new();
        for record in ["", "abc", &"x".repeat(1000)] {
            FileSink::<&str>::write(&mut TfRecordSink, record, &mut file).unwrap();
        }
        let all = records(&file).unwrap();
        assert_eq!(all.iter().map(Bytes::len).collect::<Vec<_>>(), [0, 3, 1000]);
        assert_eq!(all[1], "abc");
        for cut in [5, 14, 16 + 13, 16 + 18] {
            let error = records(&file[..cut]).unwrap_err().to_string();
            assert!(error.contains("ends inside the record at byte"), "{error}");
        }
        for (at, what) in [(0, "length"), (8, "length"), (16 + 12, "data"), (16 + 15, "data")] {
            let mut broken = file.clone();
            broken[at] ^= 1;
            let error = records(&broken).unwrap_err().to_string();
            assert!(error.contains(&format!("checksum of the {what}")), "{error}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_the_format() {
        // A file of one record "abc", by TensorFlow's definition.
        let mut file = Vec::new();
        FileSink::<&str>::write(&mut TfRecordSink, "123456789", &mut file).unwrap();
        // CRC-32C of "123456789" is e3069283.
        let masked = 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(u32_at(&file, file.len() - 4), masked);
    }
}
