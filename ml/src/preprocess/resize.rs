//! PIL's bilinear resize with antialias.

use std::cell::RefCell;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
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
    let pixel_type = if image.grey {
        PixelType::U8
    } else {
        PixelType::U8x3
    };
    let dim = |value: usize| u32::try_from(value).map_err(|error| failed(error.to_string()));
    let source = ImageRef::new(dim(image.width)?, dim(image.height)?, &image.data, pixel_type)
        .map_err(|error| failed(error.to_string()))?;
    let mut target = Image::new(dim(width)?, dim(height)?, pixel_type);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize(&source, &mut target, &options))
        .map_err(|error| failed(error.to_string()))?;
    Ok(target.into_vec())
}
