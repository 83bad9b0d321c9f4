//! Image files to pixels, as PIL's `Image.open(path).convert("RGB")` gives them.
//!
//! Alpha is dropped, not blended; EXIF orientation is not applied; of an animation the first frame is taken.

use std::borrow::Cow;
use std::fmt;
use std::io::Cursor;

use image::{DynamicImage, ImageDecoder};
use thiserror::Error;

use super::{gif, jpeg, png};

/// The largest image that is decoded, in pixels: where PIL's `DecompressionBombError` begins.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    WebP,
    /// GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
}

impl ImageFormat {
    /// Tells the format by the first bytes.
    pub fn detect(bytes: &[u8]) -> Option<ImageFormat> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(ImageFormat::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(ImageFormat::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(ImageFormat::WebP)
        } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
            Some(ImageFormat::Gif)
        } else if bytes.starts_with(b"BM") {
            Some(ImageFormat::Bmp)
        } else {
            None
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageFormat::Jpeg => "JPEG",
            ImageFormat::Png => "PNG",
            ImageFormat::WebP => "WebP",
            ImageFormat::Gif => "GIF",
            ImageFormat::Bmp => "BMP",
        })
    }
}

/// Why a file gives no image.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// None of the known formats.
    #[error("not an image in a known format (JPEG, PNG, WebP, GIF, BMP); it starts with {start}")]
    UnknownFormat {
        /// The first bytes.
        start: String,
    },
    /// A format that Pillow reads and this does not.
    #[error("{format} images are not read: convert them, to PNG for instance")]
    NotRead {
        /// The format.
        format: &'static str,
    },
    /// More pixels than `MAX_PIXELS`.
    #[error("the {format} image has {width}x{height} pixels, more than {MAX_PIXELS}")]
    TooLarge {
        /// The format.
        format: ImageFormat,
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
    },
    /// The decoder gave up.
    #[error("damaged {format} image: {reason}")]
    Damaged {
        /// The format.
        format: ImageFormat,
        /// What the decoder says.
        reason: String,
    },
}

/// An image's pixels: one byte a pixel if greyscale, else three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// One channel rather than three.
    pub grey: bool,
    /// The bytes, row by row.
    pub data: Vec<u8>,
}

impl Decoded {
    /// PIL's `convert("RGB")` of what it is.
    pub fn into_rgb(self) -> Decoded {
        if !self.grey {
            return self;
        }
        let mut data = Vec::with_capacity(self.data.len() * 3);
        data.extend(self.data.iter().flat_map(|&v| [v; 3]));
        Decoded {
            grey: false,
            data,
            ..self
        }
    }

    /// PIL's `convert("L")`: the ITU-R 601-2 luma in 16-bit fixed point.
    pub fn into_grey(self) -> Decoded {
        if self.grey {
            return self;
        }
        let luma = |rgb: &[u8]| {
            let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
            ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
        };
        Decoded {
            grey: true,
            data: self.data.chunks_exact(3).map(luma).collect(),
            ..self
        }
    }
}

/// Decodes a file's bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let decoded = match ImageFormat::detect(bytes) {
        None if bytes.is_empty() => return Err(DecodeError::Empty),
        None if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") => {
            return Err(DecodeError::NotRead { format: "TIFF" });
        }
        None if bytes.get(4..11) == Some(b"ftypavi") => return Err(DecodeError::NotRead { format: "AVIF" }),
        None => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).into_owned();
            return Err(DecodeError::UnknownFormat {
                start: format!("{start:?}"),
            });
        }
        Some(ImageFormat::Jpeg) => jpeg::decode(bytes),
        Some(ImageFormat::Gif) => gif::decode(bytes),
        Some(ImageFormat::Png) => png(bytes),
        Some(ImageFormat::WebP) => {
            let whole = whole_webp(bytes).ok_or_else(|| DecodeError::Damaged {
                format: ImageFormat::WebP,
                reason: "it is cut off".to_owned(),
            })?;
            let decoder = image::codecs::webp::WebPDecoder::new(Cursor::new(whole));
            eight_bit(ImageFormat::WebP, read(ImageFormat::WebP, decoder)?)
        }
        Some(ImageFormat::Bmp) => {
            let bytes = with_one_plane(bytes);
            let decoder = image::codecs::bmp::BmpDecoder::new(Cursor::new(&bytes));
            let mut decoded = eight_bit(ImageFormat::Bmp, read(ImageFormat::Bmp, decoder)?)?;
            round_as_pil_does(&bytes, &mut decoded);
            Ok(decoded)
        }
    }?;
    Ok(decoded)
}

/// Refuses sizes that PIL refuses, before anything is allocated.
pub(super) fn check_size(format: ImageFormat, width: u64, height: u64) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged {
            format,
            reason: format!("it has {width}x{height} pixels"),
        });
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge {
            format,
            width,
            height,
        });
    }
    Ok(())
}

fn read<D: ImageDecoder>(
    format: ImageFormat,
    decoder: image::ImageResult<D>,
) -> Result<DynamicImage, DecodeError> {
    let damaged = |error: image::ImageError| DecodeError::Damaged {
        format,
        reason: error.to_string(),
    };
    let decoder = decoder.map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(format, width.into(), height.into())?;
    DynamicImage::from_decoder(decoder).map_err(damaged)
}

/// A WebP without what follows it; none where it, or its first chunk, is not all there.
fn whole_webp(bytes: &[u8]) -> Option<&[u8]> {
    let size = |at: usize| {
        let size = bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)?;
        usize::try_from(size).ok()
    };
    let end = size(4)?.checked_add(8)?;
    (size(16)?.checked_add(20)? <= end).then_some(())?;
    bytes.get(..end)
}

/// A bitmap whose header says that it has one plane, which it has whatever the header says.
fn with_one_plane(bytes: &[u8]) -> Cow<'_, [u8]> {
    // Behind the file's header of 14 bytes: the size of the next header, and where that is a modern one, width, height and planes.
    match bytes.get(14..28) {
        Some(&[size, 0, 0, 0, .., low, high]) if size >= 40 && [low, high] != [1, 0] => {
            let mut bytes = bytes.to_vec();
            bytes[26..28].copy_from_slice(&[1, 0]);
            bytes.into()
        }
        _ => bytes.into(),
    }
}

/// Channels of 5 and 6 bits come rounded to the nearest of 8 bits, where PIL rounds down.
fn round_as_pil_does(bmp: &[u8], decoded: &mut Decoded) {
    /// Where a modern header has the bits of a pixel, the compression, and the mask of the green channel.
    const BITS: std::ops::Range<usize> = 28..30;
    const COMPRESSION: usize = 30;
    const GREEN_MASK: std::ops::Range<usize> = 58..62;
    if bmp.get(BITS) != Some(&[16, 0]) || decoded.grey {
        return;
    }
    let six = bmp.get(COMPRESSION) == Some(&3) && bmp.get(GREEN_MASK) == Some(&[0xe0, 0x07, 0, 0]);
    let most = [31, if six { 63 } else { 31 }, 31];
    for pixel in decoded.data.chunks_exact_mut(3) {
        for (value, most) in pixel.iter_mut().zip(most) {
            let stored = (u32::from(*value) * most + 127) / 255;
            *value = (stored * 255 / most) as u8;
        }
    }
}

fn png(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let bytes = &png::plain(bytes)?[..];
    let image = read(
        ImageFormat::Png,
        image::codecs::png::PngDecoder::new(Cursor::new(bytes)),
    )?;
    // The header's bit depth and colour type: 16 and 0 is plain 16-bit grey, whose values PIL clips at 255 rather than scaling
    // them down; all other 16-bit kinds lose their lower byte.
    if bytes.get(24..26) == Some(&[16, 0]) {
        let clip = |value: u16| value.min(255) as u8;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let data = match &image {
            DynamicImage::ImageLuma16(grey) => grey.as_raw().iter().copied().map(clip).collect(),
            DynamicImage::ImageLumaA16(grey) => grey
                .as_raw()
                .chunks_exact(2)
                .map(|pixel| clip(pixel[0]))
                .collect(),
            _ => return eight_bit(ImageFormat::Png, image),
        };
        return Ok(Decoded {
            width,
            height,
            grey: true,
            data,
        });
    }
    eight_bit(ImageFormat::Png, image)
}

/// Drops alpha, and the lower byte of 16-bit channels.
fn eight_bit(format: ImageFormat, image: DynamicImage) -> Result<Decoded, DecodeError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let high = |value: u16| (value >> 8) as u8;
    let (grey, data) = match image {
        DynamicImage::ImageLuma8(image) => (true, image.into_raw()),
        DynamicImage::ImageLumaA8(image) => (
            true,
            image.as_raw().chunks_exact(2).map(|pixel| pixel[0]).collect(),
        ),
        DynamicImage::ImageRgb8(image) => (false, image.into_raw()),
        DynamicImage::ImageRgba8(image) => (
            false,
            image
                .as_raw()
                .chunks_exact(4)
                .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
                .collect(),
        ),
        DynamicImage::ImageLuma16(image) => (true, image.as_raw().iter().copied().map(high).collect()),
        DynamicImage::ImageLumaA16(image) => (
            true,
            image
                .as_raw()
                .chunks_exact(2)
                .map(|pixel| high(pixel[0]))
                .collect(),
        ),
        DynamicImage::ImageRgb16(image) => (false, image.as_raw().iter().copied().map(high).collect()),
        DynamicImage::ImageRgba16(image) => (
            false,
            image
                .as_raw()
                .chunks_exact(4)
                .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]].map(high))
                .collect(),
        ),
        _ => {
            let reason = "its channels are floating-point numbers".to_owned();
            return Err(DecodeError::Damaged { format, reason });
        }
    };
    Ok(Decoded {
        width,
        height,
        grey,
        data,
    })
}
