//! The first frame of a GIF, on the canvas that PIL gives it.

use ::gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::decode::{DecodeError, Decoded, ImageFormat, MAX_PIXELS, check_size};

/// The canvas around a smaller first frame has the transparent colour's index, or index 0. Transparent pixels keep their colour.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let damaged = |reason: String| DecodeError::Damaged {
        format: ImageFormat::Gif,
        reason,
    };
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Bytes(
        std::num::NonZeroU64::new(MAX_PIXELS).unwrap_or(std::num::NonZeroU64::MAX),
    ));
    let mut decoder = options
        .read_info(bytes)
        .map_err(|error| damaged(error.to_string()))?;
    let (mut width, mut height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder
        .read_next_frame()
        .map_err(|error| damaged(error.to_string()))?;
    let frame = frame.ok_or_else(|| damaged("it has no frame".to_owned()))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
    width = width.max(left + frame_width);
    height = height.max(top + frame_height);
    check_size(ImageFormat::Gif, width as u64, height as u64)?;
    let palette = frame
        .palette
        .clone()
        .or(global)
        .unwrap_or_else(|| (0..=255).flat_map(|v| [v; 3]).collect());
    let color = |index: u8| match palette.get(usize::from(index) * 3..usize::from(index) * 3 + 3) {
        Some(&[r, g, b]) => [r, g, b],
        _ => [0; 3],
    };
    let background = color(frame.transparent.unwrap_or(0));
    let mut data: Vec<u8> = background
        .iter()
        .copied()
        .cycle()
        .take(width * height * 3)
        .collect();
    if frame_width > 0 {
        for (row, indices) in frame
            .buffer
            .chunks_exact(frame_width)
            .enumerate()
            .take(frame_height)
        {
            let start = ((top + row) * width + left) * 3;
            for (pixel, &index) in data[start..start + frame_width * 3]
                .chunks_exact_mut(3)
                .zip(indices)
            {
                pixel.copy_from_slice(&color(index));
            }
        }
    }
    Ok(Decoded {
        width,
        height,
        grey: false,
        data,
    })
}
