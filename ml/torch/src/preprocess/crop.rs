//! torchvision's `Resize(256)` and `CenterCrop(224)`, of any size.

use super::decode::{Decoded, MAX_PIXELS};
use super::resize::ResizeError;

/// The size that an image is resized to before its middle is cut out: the shorter side is 256/224 of the network's, the longer one keeps
/// the aspect ratio, rounded down.
pub(super) fn resized(image: &Decoded, network: (usize, usize)) -> Result<(usize, usize), ResizeError> {
    let shorter = network.0.min(network.1) * 256 / 224;
    let longer = |long: usize, short: usize| (shorter * long).checked_div(short).unwrap_or(shorter);
    let size = if image.width <= image.height {
        (shorter, longer(image.height, image.width))
    } else {
        (longer(image.width, image.height), shorter)
    };
    if size.0.saturating_mul(size.1) as u64 > MAX_PIXELS {
        let reason = format!(
            "with a shorter side of {shorter} it would have {} x {}",
            size.0, size.1
        );
        return Err(ResizeError::new(image, reason));
    }
    Ok(size)
}

/// The middle of an image of `from` pixels, `to` pixels large; no larger than the image.
pub(super) fn center(data: &[u8], from: (usize, usize), to: (usize, usize), channels: usize) -> Vec<u8> {
    let (left, top) = (margin(from.0, to.0), margin(from.1, to.1));
    let rows = data.chunks_exact(from.0 * channels).skip(top).take(to.1);
    rows.flat_map(|row| &row[left * channels..(left + to.0) * channels])
        .copied()
        .collect()
}

/// Half of what is left over, rounded as Python rounds: halves to the even number.
fn margin(from: usize, to: usize) -> usize {
    let over = from - to;
    over / 2 + usize::from(over % 4 == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, height: usize) -> Decoded {
        Decoded {
            width,
            height,
            grey: true,
            data: Vec::new(),
        }
    }

    #[test]
    fn sizes_are_torchvisions() {
        let size = |width, height| resized(&image(width, height), (224, 224)).unwrap();
        assert_eq!(size(500, 375), (341, 256));
        assert_eq!(size(375, 500), (256, 341));
        assert_eq!(size(256, 256), (256, 256));
        assert_eq!(size(10, 33), (256, 844));
        let error = resized(&image(1, 1 << 21), (224, 224)).unwrap_err();
        assert!(error.to_string().contains("shorter side"), "{error}");
    }

    #[test]
    fn margins_are_torchvisions() {
        // round((from - to) / 2) of Python.
        let margins = [0, 1, 2, 3, 4, 5, 6, 7].map(|over| margin(224 + over, 224));
        assert_eq!(margins, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn the_middle_is_cut_out() {
        let data: Vec<u8> = (0..4 * 3 * 2).collect();
        assert_eq!(center(&data, (4, 3), (2, 1), 2), [10, 11, 12, 13]);
    }
}
