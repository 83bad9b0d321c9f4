//! Lines of a stream, read by large buffers.

use std::io::{self, Read};

use memchr::memchr;

/// Small enough to stay in a processor's cache.
const BUFFER: usize = 128 << 10;

/// Lines end with `\n` or `\r\n`, which are not part of them; the last one may lack its end.
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// The part of the buffer that holds bytes not yet given.
    start: usize,
    end: usize,
    /// Offset in the stream of `start`.
    offset: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// Lines of a stream that stands at this offset.
    pub fn new(reader: R, offset: u64) -> Lines<R> {
        Lines {
            reader,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            offset,
            ended: false,
        }
    }

    /// Where the next line starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line, or none at the end.
    #[inline]
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let (start, end) = match memchr(b'\n', &self.buffer[self.start..self.end]) {
            Some(length) => (self.start, self.start + length),
            None => match self.fill()? {
                Some(range) => range,
                None => return Ok(None),
            },
        };
        // A last line has no end to be skipped.
        let next = (end + 1).min(self.end);
        self.offset += (next - start) as u64;
        self.start = next;
        let line = &self.buffer[start..end];
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Reads on until the line that has begun is whole.
    #[cold]
    fn fill(&mut self) -> io::Result<Option<(usize, usize)>> {
        loop {
            let looked = self.end - self.start;
            if self.ended {
                // A lone `\r` at the end of the stream is part of the line's end as well: nobody means it.
                return Ok((looked > 0).then_some((self.start, self.end)));
            }
            self.buffer.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = looked;
            if self.end == self.buffer.len() {
                // A line longer than the buffer.
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
            let read = match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.ended = read == 0;
            self.end += read;
            if let Some(at) = memchr(b'\n', &self.buffer[looked..self.end]) {
                return Ok(Some((0, looked + at)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len()).min(self.0.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn lines(data: &[u8], step: usize) -> Vec<(u64, String)> {
        let mut lines = Lines::new(Trickle(data, step), 100);
        let mut all = Vec::new();
        loop {
            let offset = lines.offset();
            let Some(line) = lines.next_line().unwrap() else {
                break;
            };
            all.push((offset, String::from_utf8(line.to_vec()).unwrap()));
        }
        all
    }

    #[test]
    fn lines_come_whole_however_they_are_read() {
        let long = "x".repeat(3 * BUFFER);
        let data = format!("a\r\n\nb c\n{long}\nlast");
        let expected = [
            (100, "a"),
            (103, ""),
            (104, "b c"),
            (108, &long),
            (109 + long.len() as u64, "last"),
        ]
        .map(|(at, line)| (at, line.to_owned()));
        for step in [1, 7, 4096, 1 << 20] {
            assert_eq!(lines(data.as_bytes(), step), expected);
        }
        assert_eq!(lines(b"", 1), []);
        assert_eq!(lines(b"\n", 1), [(100, String::new())]);
    }
}
