//! The container of a PNG, with Pillow's strictness: what it checks is checked, what it passes over is passed over.
//!
//! Chunks before the image data must be whole with a right checksum, those of the image data and after it need none, and the image is
//! there when all its rows are. What is left is the same image in a PNG that no reader objects to.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::decode::{DecodeError, ImageFormat, check_size};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A compressed text or colour profile gives no more bytes than this.
const MAX_TEXT: usize = 1 << 20;

/// All texts of a file together.
const MAX_TEXTS: usize = 64 << 20;

/// What the first chunks say of the image.
#[derive(Default)]
struct Header {
    width: u32,
    height: u32,
    depth: u8,
    color: u8,
    interlaced: bool,
    palette: Option<Vec<u8>>,
    /// Bytes of text so far.
    texts: usize,
    /// The chunk that says the above was there.
    known: bool,
}

struct Chunk<'a> {
    name: [u8; 4],
    /// Cut off at the file's end.
    content: &'a [u8],
    /// As it says.
    len: usize,
    checksum: Option<u32>,
    end: usize,
}

/// The chunk at `at`; none where the file ends or is none.
fn chunk(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let head: &[u8; 8] = bytes.get(at..)?.first_chunk()?;
    let [a, b, c, d, name @ ..] = *head;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if !name.iter().all(is_name) {
        return None;
    }
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    let start = at + 8;
    let end = start.checked_add(len)?;
    let checksum = bytes.get(end..).and_then(<[u8]>::first_chunk::<4>);
    Some(Chunk {
        name,
        content: &bytes[start..end.min(bytes.len())],
        len,
        checksum: checksum.map(|sum| u32::from_be_bytes(*sum)),
        end: end.saturating_add(4),
    })
}

/// The same image in a PNG of three chunks; the data is not compressed.
pub(super) fn plain(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let damaged = |reason: &str| DecodeError::Damaged {
        format: ImageFormat::Png,
        reason: reason.to_owned(),
    };
    let mut header = Header::default();
    let mut at = SIGNATURE.len();
    let first = loop {
        let chunk = chunk(bytes, at).ok_or_else(|| damaged("it ends before its image data"))?;
        match &chunk.name {
            b"IDAT" => break at,
            b"IEND" => return Err(damaged("it has no image data")),
            _ => {}
        }
        header.take(&chunk).map_err(damaged)?;
        let mut sum = Crc::new();
        sum.update(&chunk.name);
        sum.update(chunk.content);
        if chunk.checksum != Some(sum.sum()) {
            let name = String::from_utf8_lossy(&chunk.name).into_owned();
            return Err(damaged(&format!("the checksum of its {name} chunk is wrong")));
        }
        at = chunk.end;
    };
    let channels = header
        .channels()
        .ok_or_else(|| damaged("its kind of pixels is not known"))?;
    check_size(ImageFormat::Png, header.width.into(), header.height.into())?;
    let size = header.size(channels).ok_or_else(|| damaged("it is too large"))?;
    let (data, mut at) = inflate(bytes, first, size).map_err(damaged)?;
    // What follows needs no checksum, but must be whole and sound where Pillow looks at it.
    while let Some(chunk) = chunk(bytes, at).filter(|chunk| &chunk.name != b"IEND") {
        header.take(&chunk).map_err(damaged)?;
        at = chunk.end;
    }
    Ok(header.write(&data))
}

impl Header {
    /// Checks a chunk that is not of the image data, and keeps what pixels depend on.
    fn take(&mut self, chunk: &Chunk<'_>) -> Result<(), &'static str> {
        let content = chunk.content;
        if content.len() < chunk.len {
            return Err("it is cut off");
        }
        let at_least = |len: usize| match content.len() < len {
            true => Err("one of its chunks is too short"),
            false => Ok(()),
        };
        match &chunk.name {
            b"IHDR" => {
                let &[a, b, c, d, e, f, g, h, depth, color, _, filter, interlaced, ..] = content else {
                    return Err("its header is too short");
                };
                if filter != 0 {
                    return Err("its way to filter rows is not known");
                }
                self.width = u32::from_be_bytes([a, b, c, d]);
                self.height = u32::from_be_bytes([e, f, g, h]);
                (self.depth, self.color, self.interlaced) = (depth, color, interlaced != 0);
                self.known = true;
            }
            b"PLTE" if self.color == 3 && self.known => self.palette = Some(content.to_vec()),
            b"tRNS" if self.known && matches!(self.color, 0) => at_least(2)?,
            b"tRNS" if self.known && matches!(self.color, 2) => at_least(6)?,
            b"gAMA" => at_least(4)?,
            b"cHRM" if !content.len().is_multiple_of(4) => return Err("its cHRM chunk is cut off"),
            b"sRGB" => at_least(1)?,
            b"pHYs" => at_least(9)?,
            b"acTL" => at_least(8)?,
            b"iCCP" => {
                let after = match content.iter().position(|&byte| byte == 0) {
                    Some(end) => &content[end + 1..],
                    None => content,
                };
                match after {
                    [0, profile @ ..] => text_size(profile).map(drop)?,
                    _ => return Err("its colour profile is compressed in an unknown way"),
                }
            }
            b"tEXt" => {
                let text = after_zero(content).unwrap_or_default();
                self.add_text(text.len())?;
            }
            b"zTXt" => match after_zero(content) {
                None | Some([]) => {}
                Some([0, text @ ..]) => self.add_text(text_size(text)?)?,
                Some(_) => return Err("a text is compressed in an unknown way"),
            },
            b"iTXt" => {
                let text = after_zero(content)
                    .and_then(|rest| Some((rest.first_chunk::<2>()?, rest.get(2..)?)))
                    .and_then(|(how, rest)| Some((how, after_zero(after_zero(rest)?)?)));
                match text {
                    Some(([0, _], text)) => self.add_text(text.len())?,
                    Some(([_, 0], text)) => self.add_text(text_size(text)?)?,
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_text(&mut self, len: usize) -> Result<(), &'static str> {
        self.texts = self.texts.saturating_add(len);
        match self.texts > MAX_TEXTS {
            true => Err("its texts have more than 64 MiB"),
            false => Ok(()),
        }
    }

    /// Numbers of a pixel, where the kind of pixels is known.
    fn channels(&self) -> Option<usize> {
        match (self.color, self.depth) {
            _ if !self.known => None,
            (0, 1 | 2 | 4 | 8 | 16) | (3, 1 | 2 | 4 | 8) => Some(1),
            (4, 8 | 16) => Some(2),
            (2, 8 | 16) => Some(3),
            (6, 8 | 16) => Some(4),
            _ => None,
        }
    }

    /// Bytes of all rows, each with its filter's number before it.
    fn size(&self, channels: usize) -> Option<usize> {
        let bits = channels * usize::from(self.depth);
        let rows = |width: usize, height: usize| match width {
            0 => Some(0),
            _ => width
                .checked_mul(bits)?
                .div_ceil(8)
                .checked_add(1)?
                .checked_mul(height),
        };
        let (width, height) = (self.width as usize, self.height as usize);
        if !self.interlaced {
            return rows(width, height);
        }
        // Adam7: the first column and row of each pass, and the steps to the next.
        let passes = [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ];
        passes.iter().try_fold(0usize, |sum, &(x, y, step_x, step_y)| {
            let count = |len: usize, first: usize, step: usize| len.saturating_sub(first).div_ceil(step);
            sum.checked_add(rows(count(width, x, step_x), count(height, y, step_y))?)
        })
    }

    fn write(&self, data: &[u8]) -> Vec<u8> {
        let mut png = SIGNATURE.to_vec();
        png.reserve(data.len() + data.len() / 1000 + 2048);
        let mut header = [self.width.to_be_bytes(), self.height.to_be_bytes()].concat();
        header.extend([self.depth, self.color, 0, 0, self.interlaced.into()]);
        write_chunk(&mut png, b"IHDR", |png| png.extend(header));
        if self.color == 3 {
            // Colours that are not there are black.
            let given = self.palette.as_deref().unwrap_or_default();
            let mut colors: Vec<u8> = given.chunks_exact(3).flatten().copied().collect();
            colors.resize(3 << self.depth.min(8), 0);
            write_chunk(&mut png, b"PLTE", |png| png.extend(colors));
        }
        write_chunk(&mut png, b"IDAT", |png| {
            png.extend([0x78, 0x01]);
            let mut blocks = data.chunks(usize::from(u16::MAX)).peekable();
            while let Some(block) = blocks.next() {
                let len = block.len() as u16;
                png.push(blocks.peek().is_none().into());
                png.extend(len.to_le_bytes());
                png.extend((!len).to_le_bytes());
                png.extend(block);
            }
            // The sum of the whole, which is not looked at.
            png.extend([0; 4]);
        });
        write_chunk(&mut png, b"IEND", |_| {});
        png
    }
}

fn write_chunk(png: &mut Vec<u8>, name: &[u8; 4], content: impl FnOnce(&mut Vec<u8>)) {
    let start = png.len();
    png.extend([0; 4]);
    png.extend(name);
    content(png);
    let len = u32::try_from(png.len() - start - 8).unwrap_or(u32::MAX);
    png[start..start + 4].copy_from_slice(&len.to_be_bytes());
    let mut sum = Crc::new();
    sum.update(&png[start + 4..]);
    png.extend(sum.sum().to_be_bytes());
}

fn after_zero(bytes: &[u8]) -> Option<&[u8]> {
    let zero = bytes.iter().position(|&byte| byte == 0)?;
    bytes.get(zero + 1..)
}

/// How long a compressed text is; 0 if it is damaged, which does no harm. A long one is refused.
fn text_size(packed: &[u8]) -> Result<usize, &'static str> {
    let mut text = Vec::with_capacity(MAX_TEXT);
    let mut inflater = Decompress::new(true);
    match inflater.decompress_vec(packed, &mut text, FlushDecompress::None) {
        Ok(Status::Ok | Status::BufError)
            if text.len() == MAX_TEXT && (inflater.total_in() as usize) < packed.len() =>
        {
            Err("a compressed text has more than 1 MiB")
        }
        Ok(_) => Ok(text.len()),
        Err(_) => Ok(0),
    }
}

/// The first `size` bytes of the image data in the chunks from `at` on, and where the chunk after them starts.
fn inflate(bytes: &[u8], mut at: usize, size: usize) -> Result<(Vec<u8>, usize), &'static str> {
    /// The buffer grows by this much, so that a file's word for its size takes no memory.
    const STEP: usize = 1 << 20;
    let mut inflater = Decompress::new(true);
    let mut data = Vec::new();
    let mut ended = false;
    while let Some(chunk) = chunk(bytes, at).filter(|chunk| &chunk.name == b"IDAT") {
        at = chunk.end;
        let mut packed = chunk.content;
        while !ended {
            // One byte more than the image has shows whether the data's own checksum holds.
            let room = (size + 1).saturating_sub(data.len()).min(STEP);
            if room == 0 {
                break;
            }
            // Vec::reserve may give more, of which nothing is used.
            let before = (inflater.total_in(), data.len());
            data.resize(before.1 + room, 0);
            let status = inflater
                .decompress(packed, &mut data[before.1..], FlushDecompress::None)
                .map_err(|_| "its image data is damaged")?;
            let read = (inflater.total_in() - before.0) as usize;
            let written = inflater.total_out() as usize;
            packed = &packed[read..];
            ended = status == Status::StreamEnd;
            let stuck = read == 0 && written == before.1;
            data.truncate(written);
            if stuck {
                break;
            }
        }
        if data.len() > size {
            break;
        }
    }
    if data.len() < size {
        return Err("it is cut off");
    }
    data.truncate(size);
    Ok((data, at))
}
