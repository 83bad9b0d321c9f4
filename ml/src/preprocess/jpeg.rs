//! JPEG through libjpeg-turbo, as Pillow uses it: accurate integer DCT, fancy upsampling, no scaling while decoding.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::decode::{DecodeError, Decoded, ImageFormat, check_size};

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let damaged = |error: turbojpeg::Error| DecodeError::Damaged {
        format: ImageFormat::Jpeg,
        reason: reason(&error),
    };
    let mut decompressor = Decompressor::new().map_err(damaged)?;
    let header = decompressor.read_header(bytes).map_err(damaged)?;
    let (width, height) = (header.width, header.height);
    check_size(ImageFormat::Jpeg, width as u64, height as u64)?;
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
    match decompressor.decompress(bytes, image.as_deref_mut()) {
        Err(error) if !is_harmless(&reason(&error)) => return Err(damaged(error)),
        Ok(()) | Err(_) => {}
    }
    let data = if format == PixelFormat::CMYK {
        cmyk_to_rgb(&image.pixels)
    } else {
        image.pixels
    };
    Ok(Decoded {
        width,
        height,
        grey: format == PixelFormat::GRAY,
        data,
    })
}

/// Warnings under which libjpeg-turbo has decoded the whole image, and Pillow gives it. A file that is cut off is not among them.
fn is_harmless(reason: &str) -> bool {
    [
        "Corrupt JPEG data",
        "Inconsistent progression sequence",
        "Invalid SOS parameters",
    ]
    .iter()
    .any(|warning| reason.starts_with(warning))
}

fn reason(error: &turbojpeg::Error) -> String {
    match error {
        turbojpeg::Error::TurboJpegError(message) => message.clone(),
        other => other.to_string(),
    }
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
