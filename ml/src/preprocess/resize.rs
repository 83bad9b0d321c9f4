//! PIL's bilinear resize with antialias.

use std::cell::RefCell;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use thiserror::Error;

use super::decode::Decoded;

/// An image that cannot be resized.
#[derive(Debug, Error)]
#[error("cannot resize an image of {width}x{height} pixels: {reason}")]
pub struct ResizeError {
    /// Width in pixels.
    width: usize,
    /// Height in pixels.
    height: usize,
    /// What the resizer says.
    reason: String,
}

thread_local! {
    // It keeps its buffers between images.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Resizes to exactly `width` by `height`; when shrinking, the triangle filter is widened by the factor, which is PIL's antialias.
pub(super) fn bilinear(image: Decoded, width: usize, height: usize) -> Result<Vec<u8>, ResizeError> {
    if (image.width, image.height) == (width, height) {
        return Ok(image.data);
    }
    let failed = |reason: String| ResizeError {
        width: image.width,
        height: image.height,
        reason,
    };
    let dim = |value: usize| u32::try_from(value).map_err(|error| failed(error.to_string()));
    let from = (dim(image.width)?, dim(image.height)?);
    let to = (dim(width)?, dim(height)?);
    if image.grey {
        resized::<U8>(&image.data, from, to)
    } else {
        resized::<U8x3>(&image.data, from, to)
    }
    .map_err(failed)
}

/// By pixel type, so that no more than the two that are needed are compiled.
fn resized<P: PixelTrait>(data: &[u8], from: (u32, u32), to: (u32, u32)) -> Result<Vec<u8>, String> {
    let mut buffer = vec![0; to.0 as usize * to.1 as usize * size_of::<P>()];
    let source = TypedImageRef::<P>::from_buffer(from.0, from.1, data).map_err(|error| error.to_string())?;
    let mut target =
        TypedImage::<P>::from_buffer(to.0, to.1, &mut buffer).map_err(|error| error.to_string())?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .map_err(|error| error.to_string())?;
    Ok(buffer)
}
