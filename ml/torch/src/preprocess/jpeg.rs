//! JPEG through libjpeg-turbo, as Pillow uses it: accurate integer DCT, fancy upsampling, no scaling while decoding.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::decode::{DecodeError, Decoded, ImageFormat, check_size};

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    check_segments(bytes).map_err(damaged)?;
    match pixels(bytes) {
        // libjpeg warned while it read the header, and turbojpeg then tells nothing of it: again without what it warns of.
        Err(Failure::Header(reason)) if is_harmless(&reason) => {
            pixels(&plain_header(bytes)).map_err(Failure::into_error)
        }
        // The data may have ended where the image did, before bytes that are no end marker. Pillow has the whole image then.
        Err(Failure::Pixels(reason)) if is_cut_off(&reason) => {
            let ended = [bytes, b"\xff\xd9"].concat();
            match pixels_and_warning(&ended) {
                Ok((decoded, Some(warning))) if warning.contains("extraneous bytes before marker 0xd9") => {
                    Ok(decoded)
                }
                _ => Err(damaged(reason)),
            }
        }
        other => other.map_err(Failure::into_error),
    }
}

fn damaged(reason: impl Into<String>) -> DecodeError {
    DecodeError::Damaged {
        format: ImageFormat::Jpeg,
        reason: reason.into(),
    }
}

enum Failure {
    /// Of the header.
    Header(String),
    /// Of what comes after it.
    Pixels(String),
    Other(DecodeError),
}

impl Failure {
    fn into_error(self) -> DecodeError {
        match self {
            Failure::Header(reason) | Failure::Pixels(reason) => damaged(reason),
            Failure::Other(error) => error,
        }
    }
}

fn pixels(bytes: &[u8]) -> Result<Decoded, Failure> {
    pixels_and_warning(bytes).map(|(decoded, _)| decoded)
}

/// The pixels, with libjpeg's last warning if there was one.
fn pixels_and_warning(bytes: &[u8]) -> Result<(Decoded, Option<String>), Failure> {
    let failed = |error: turbojpeg::Error| Failure::Header(reason(&error));
    let mut decompressor = Decompressor::new().map_err(failed)?;
    let header = decompressor.read_header(bytes).map_err(failed)?;
    let (width, height) = (header.width, header.height);
    check_size(ImageFormat::Jpeg, width as u64, height as u64).map_err(Failure::Other)?;
    let format = match header.colorspace {
        Colorspace::Gray => PixelFormat::GRAY,
        Colorspace::CMYK | Colorspace::YCCK => PixelFormat::CMYK,
        Colorspace::RGB | Colorspace::YCbCr => PixelFormat::RGB,
    };
    let pitch = width * format.size();
    let mut image = Image {
        pixels: vec![0; pitch * height],
        width,
        pitch,
        height,
        format,
    };
    let warning = match decompressor.decompress(bytes, image.as_deref_mut()) {
        Ok(()) => None,
        Err(error) if is_harmless(&reason(&error)) => Some(reason(&error)),
        Err(error) => return Err(Failure::Pixels(reason(&error))),
    };
    let data = if format == PixelFormat::CMYK {
        cmyk_to_rgb(&image.pixels)
    } else {
        image.pixels
    };
    let decoded = Decoded {
        width,
        height,
        grey: format == PixelFormat::GRAY,
        data,
    };
    Ok((decoded, warning))
}

/// Warnings under which libjpeg-turbo has decoded the whole image, and Pillow gives it. A file that is cut off is not among them.
fn is_harmless(reason: &str) -> bool {
    [
        "Corrupt JPEG data",
        "Inconsistent progression sequence",
        "Invalid SOS parameters",
        "Unknown Adobe color transform code",
        "Warning: unknown JFIF revision number",
    ]
    .iter()
    .any(|warning| reason.starts_with(warning))
}

fn is_cut_off(reason: &str) -> bool {
    reason.starts_with("Premature end of JPEG file")
}

fn reason(error: &turbojpeg::Error) -> String {
    match error {
        turbojpeg::Error::TurboJpegError(message) => message.clone(),
        other => other.to_string(),
    }
}

const APP0: u8 = 0xe0;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;
const APP15: u8 = 0xef;
const COMMENT: u8 = 0xfe;
const START_OF_SCAN: u8 = 0xda;

/// A header's marker with its content.
struct Segment<'a> {
    marker: u8,
    content: &'a [u8],
    /// Where it ends.
    end: usize,
}

/// The segments before the first scan's data, which is the last of them; bytes between them that belong to none are passed over.
fn segments(bytes: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut at = 2;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        loop {
            let rest = bytes.get(at..)?;
            let start = at + rest.iter().position(|&byte| byte == 0xff)?;
            let marker = start + bytes.get(start..)?.iter().position(|&byte| byte != 0xff)?;
            at = marker + 1;
            match *bytes.get(marker)? {
                // A byte of data, and the markers that have no content.
                0 | 1 | 0xd0..=0xd8 => {}
                name => {
                    let len = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
                    let content = bytes.get(at + 2..at + len.max(2))?;
                    at += len.max(2);
                    done = name == START_OF_SCAN;
                    return Some(Segment {
                        marker: name,
                        content,
                        end: at,
                    });
                }
            }
        }
    })
}

/// Segments that Pillow does not get past, though libjpeg passes them over.
fn check_segments(bytes: &[u8]) -> Result<(), String> {
    for segment in segments(bytes) {
        let (name, needed) = match (segment.marker, segment.content) {
            (APP0, content) if content.starts_with(b"JFIF") => ("JFIF", 7),
            (APP14, content) if content.starts_with(b"Adobe") => ("Adobe", 7),
            (APP2, content) if content.starts_with(b"ICC_PROFILE\0") => ("ICC_PROFILE", 14),
            _ => continue,
        };
        if segment.content.len() < needed {
            return Err(format!("its {name} segment is cut off"));
        }
    }
    Ok(())
}

/// The same image with a header that libjpeg does not warn of.
///
/// Bytes between segments are left out, and so are all that change no pixel. A JFIF segment says that colours are YCbCr whatever its
/// version; an unknown transform of Adobe's means YCbCr for three channels and YCCK for four.
fn plain_header(bytes: &[u8]) -> Vec<u8> {
    let mut plain = b"\xff\xd8".to_vec();
    let mut rest = bytes.len();
    for segment in segments(bytes) {
        let mut content = segment.content.to_vec();
        rest = segment.end;
        match segment.marker {
            APP0 if content.starts_with(b"JFIF\0") => {
                if let Some(version) = content.get_mut(5..7) {
                    version.copy_from_slice(&[1, 1]);
                }
            }
            APP14 if content.starts_with(b"Adobe") => {
                let channels = channels(bytes);
                if let Some(transform) = content.get_mut(11).filter(|transform| **transform > 2) {
                    *transform = if channels == Some(4) { 2 } else { 1 };
                }
            }
            APP0..=APP15 | COMMENT => continue,
            _ => {}
        }
        let len = u16::try_from(content.len() + 2).unwrap_or(u16::MAX);
        plain.extend([0xff, segment.marker]);
        plain.extend(len.to_be_bytes());
        plain.extend(content);
    }
    plain.extend(bytes.get(rest..).unwrap_or_default());
    plain
}

/// As the frame's header has it.
fn channels(bytes: &[u8]) -> Option<u8> {
    segments(bytes)
        .find(|segment| matches!(segment.marker, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf))
        .and_then(|segment| segment.content.get(5).copied())
}

/// PIL takes every CMYK JPEG as inverted, as Adobe writes them, and converts without a colour profile.
fn cmyk_to_rgb(pixels: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() / 4 * 3);
    for pixel in pixels.chunks_exact(4) {
        let white = u32::from(pixel[3]);
        rgb.extend(pixel[..3].iter().map(|&stored| {
            // ink * white / 255, rounded
            let product = (255 - u32::from(stored)) * white + 128;
            (white - ((product + (product >> 8)) >> 8)) as u8
        }));
    }
    rgb
}
