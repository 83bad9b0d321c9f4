//! PIL's bilinear resize with antialias, to the last bit.
//!
//! Two passes, first along rows and then along columns, with a rounding to bytes between them. Each output pixel is a weighted sum of
//! the input pixels under a triangle that is as wide as the shrinking factor demands; weights are integers with 22 bits behind the
//! point. Sums of integers do not depend on their order, so any processor gives the same bytes.
//!
//! That is the order of Pillow up to 12; from 13 on it takes columns first where an image shrinks much more in height than in width.

use std::cell::RefCell;

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
    /// What is wrong.
    reason: String,
}

impl ResizeError {
    pub(super) fn new(image: &Decoded, reason: String) -> ResizeError {
        ResizeError {
            width: image.width,
            height: image.height,
            reason,
        }
    }
}

/// Bits of a weight behind the point.
const PRECISION: u32 = 22;

/// Half of one, for rounding.
const HALF: i32 = 1 << (PRECISION - 1);

/// Weights are multiplied in two parts, of which the lower has so many bits: both fit 16 bits, which processors multiply in pairs.
const LOWER: u32 = 11;

/// Resizes to exactly `width` by `height`.
pub(super) fn bilinear(image: Decoded, width: usize, height: usize) -> Result<Vec<u8>, ResizeError> {
    if (image.width, image.height) == (width, height) {
        return Ok(image.data);
    }
    let channels = if image.grey { 1 } else { 3 };
    let failed = |reason: &str| ResizeError {
        width: image.width,
        height: image.height,
        reason: reason.to_owned(),
    };
    if image.width == 0 || image.height == 0 || width == 0 || height == 0 {
        return Err(failed("an image has at least one pixel"));
    }
    if image.data.len() != image.width * image.height * channels {
        return Err(failed("it has more or fewer bytes than pixels"));
    }
    let down = |data: &[u8]| down(data, width * channels, &Weights::new(image.height, height));
    if image.width == width {
        return Ok(down(&image.data));
    }
    let across = |narrow: &mut Vec<u8>| {
        let weights = Weights::new(image.width, width);
        match channels {
            1 => across::<1>(&image.data, image.width, &weights, narrow),
            _ => across::<3>(&image.data, image.width, &weights, narrow),
        }
    };
    if image.height == height {
        let mut narrow = Vec::new();
        across(&mut narrow);
        return Ok(narrow);
    }
    Ok(BETWEEN.with_borrow_mut(|narrow| {
        across(narrow);
        let resized = down(narrow);
        if narrow.capacity() > KEPT {
            *narrow = Vec::new();
        }
        resized
    }))
}

thread_local! {
    /// What lies between the two passes; kept, as fresh memory costs more than the passes.
    static BETWEEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// So many bytes at most are kept: the rows of a photo of 10,000 pixels' height at ImageNet's width.
const KEPT: usize = 8 << 20;

/// The input pixels of each output pixel along one side, with their weights.
struct Weights {
    taps: Vec<Taps>,
    /// The weights of all output pixels, one after the other; each has an even number, the last 0 where it must be.
    all: Vec<i32>,
    /// Pairs of upper parts, and of lower parts, of the same.
    pairs: Vec<(i32, i32)>,
}

/// The input pixels of one output pixel.
#[derive(Clone, Copy)]
struct Taps {
    /// The first of them.
    start: usize,
    len: usize,
    /// Where its weights start.
    weights: usize,
}

impl Weights {
    fn new(from: usize, to: usize) -> Weights {
        let scale = from as f64 / to as f64;
        let radius = scale.max(1.0);
        let inverse = 1.0 / radius;
        let mut weights = Weights {
            taps: Vec::with_capacity(to),
            all: Vec::new(),
            pairs: Vec::new(),
        };
        let mut exact = Vec::new();
        for pixel in 0..to {
            let center = (pixel as f64 + 0.5) * scale;
            let start = (center - radius + 0.5).max(0.0) as usize;
            let end = ((center + radius + 0.5) as usize).min(from);
            exact.clear();
            exact.extend((start..end).map(|x| {
                let distance = ((x as f64 - center + 0.5) * inverse).abs();
                if distance < 1.0 { 1.0 - distance } else { 0.0 }
            }));
            let sum: f64 = exact.iter().sum();
            weights.taps.push(Taps {
                start,
                len: exact.len(),
                weights: weights.all.len(),
            });
            let one = f64::from(1 << PRECISION);
            let fixed = exact.iter().map(|&weight| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                (0.5 + weight * one) as i32
            });
            weights.all.extend(fixed);
            if exact.len() % 2 == 1 {
                weights.all.push(0);
            }
        }
        let pair = |pair: &[i32]| {
            let lower = |weight: i32| weight & ((1 << LOWER) - 1);
            (
                pair[0] >> LOWER | pair[1] >> LOWER << 16,
                lower(pair[0]) | lower(pair[1]) << 16,
            )
        };
        weights.pairs = weights.all.chunks_exact(2).map(pair).collect();
        weights
    }

    fn of(&self, taps: Taps) -> &[i32] {
        &self.all[taps.weights..][..taps.len]
    }
}

fn round(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Along rows.
fn across<const CHANNELS: usize>(data: &[u8], width: usize, weights: &Weights, output: &mut Vec<u8>) {
    let (row, to) = (width * CHANNELS, weights.taps.len() * CHANNELS);
    let rows = data.len() / row;
    output.resize(rows.next_multiple_of(4) * to, 0);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has AVX2.
        unsafe {
            x86::across::<CHANNELS>(data, row, weights, output)
        };
        output.truncate(rows * to);
        return;
    }
    output.truncate(rows * to);
    for (row, output) in data.chunks_exact(row).zip(output.chunks_exact_mut(to)) {
        for (taps, output) in weights.taps.iter().zip(output.chunks_exact_mut(CHANNELS)) {
            let mut sums = [HALF; CHANNELS];
            let pixels = row[taps.start * CHANNELS..].chunks_exact(CHANNELS);
            for (pixel, weight) in pixels.zip(weights.of(*taps)) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (output, sum) in output.iter_mut().zip(sums) {
                *output = round(sum);
            }
        }
    }
}

/// Along columns; `row` is the length of a row in bytes.
fn down(data: &[u8], row: usize, weights: &Weights) -> Vec<u8> {
    let mut output = vec![0; row * weights.taps.len()];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has AVX2.
        unsafe {
            x86::down(data, row, weights, &mut output)
        };
        return output;
    }
    down_into(data, row, weights, &mut output);
    output
}

/// Compiled for each kind of processor.
#[inline(always)]
fn down_into(data: &[u8], row: usize, weights: &Weights, output: &mut [u8]) {
    /// Sums that fit the registers.
    const BLOCK: usize = 32;
    for (taps, output) in weights.taps.iter().zip(output.chunks_exact_mut(row)) {
        let rows = &data[taps.start * row..(taps.start + taps.len) * row];
        let weights = weights.of(*taps);
        let mut blocks = output.chunks_exact_mut(BLOCK);
        let mut at = 0;
        for block in &mut blocks {
            let mut sums = [HALF; BLOCK];
            for (row, &weight) in rows.chunks_exact(row).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(&row[at..at + BLOCK]) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (output, sum) in block.iter_mut().zip(sums) {
                *output = round(sum);
            }
            at += BLOCK;
        }
        for (column, output) in blocks.into_remainder().iter_mut().enumerate() {
            let values = rows.chunks_exact(row).map(|row| row[at + column]);
            let sum = values
                .zip(weights)
                .fold(HALF, |sum, (value, weight)| sum + i32::from(value) * weight);
            *output = round(sum);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::borrow::Cow;

    use super::{HALF, LOWER, PRECISION, Weights};

    /// Bytes that are read beyond the last that counts.
    const SLACK: usize = 16;

    /// As `super::across`, four rows at a time; `row` is the length of a row in bytes. `output` has a multiple of four rows.
    #[target_feature(enable = "avx2")]
    pub(super) fn across<const CHANNELS: usize>(
        data: &[u8],
        row: usize,
        weights: &Weights,
        output: &mut [u8],
    ) {
        let to = weights.taps.len() * CHANNELS;
        let rows = data.len() / row;
        for (block, output) in output.chunks_exact_mut(4 * to).enumerate() {
            let first = block * 4;
            let a = &*line(data, row, first);
            let b = &*line(data, row, (first + 1).min(rows - 1));
            let c = &*line(data, row, (first + 2).min(rows - 1));
            let d = &*line(data, row, (first + 3).min(rows - 1));
            let (ab, cd) = output.split_at_mut(2 * to);
            let (out_a, out_b) = ab.split_at_mut(to);
            let (out_c, out_d) = cd.split_at_mut(to);
            let ab = out_a
                .chunks_exact_mut(CHANNELS)
                .zip(out_b.chunks_exact_mut(CHANNELS));
            let cd = out_c
                .chunks_exact_mut(CHANNELS)
                .zip(out_d.chunks_exact_mut(CHANNELS));
            for ((taps, (out_a, out_b)), (out_c, out_d)) in weights.taps.iter().zip(ab).zip(cd) {
                let count = taps.len.div_ceil(2);
                let pairs = &weights.pairs[taps.weights / 2..][..count];
                let start = taps.start * CHANNELS;
                let end = start + (count - 1) * 2 * CHANNELS + SLACK;
                let sums = pixel::<CHANNELS>(
                    &a[start..end],
                    &b[start..end],
                    &c[start..end],
                    &d[start..end],
                    pairs,
                );
                out_a.copy_from_slice(&_mm256_extract_epi32::<0>(sums).to_le_bytes()[..CHANNELS]);
                out_b.copy_from_slice(&_mm256_extract_epi32::<4>(sums).to_le_bytes()[..CHANNELS]);
                out_c.copy_from_slice(&_mm256_extract_epi32::<1>(sums).to_le_bytes()[..CHANNELS]);
                out_d.copy_from_slice(&_mm256_extract_epi32::<5>(sums).to_le_bytes()[..CHANNELS]);
            }
        }
    }

    /// A row, with bytes behind it that may be read.
    fn line(data: &[u8], row: usize, y: usize) -> Cow<'_, [u8]> {
        match data.get(y * row..(y + 1) * row + SLACK) {
            Some(line) => Cow::Borrowed(line),
            None => {
                let mut padded = data[y * row..].to_vec();
                padded.resize(row + SLACK, 0);
                Cow::Owned(padded)
            }
        }
    }

    /// One pixel of four rows: the rows a and c in the first half, b and d in the second.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn pixel<const CHANNELS: usize>(a: &[u8], b: &[u8], c: &[u8], d: &[u8], pairs: &[(i32, i32)]) -> __m256i {
        // A row's two pixels side by side: channel by channel, in 16 bits.
        let order = match CHANNELS {
            1 => _mm_setr_epi8(0, -1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
            _ => _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1),
        };
        let next_order = match CHANNELS {
            1 => _mm_setr_epi8(2, -1, 3, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
            _ => _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1),
        };
        let order = _mm256_broadcastsi128_si256(order);
        let next_order = _mm256_broadcastsi128_si256(next_order);
        let half = _mm256_set1_epi32(HALF);
        let zero = _mm256_setzero_si256();
        let (mut upper_ab, mut upper_cd, mut lower_ab, mut lower_cd) = (zero, zero, half, half);
        let mut at = 0;
        let (quads, last) = pairs.as_chunks::<2>();
        for [pair, next_pair] in quads {
            let ab = _mm256_set_m128i(sixteen(b, at), sixteen(a, at));
            let cd = _mm256_set_m128i(sixteen(d, at), sixteen(c, at));
            for (&(upper, lower), order) in [(pair, order), (next_pair, next_order)] {
                let (ab, cd) = (_mm256_shuffle_epi8(ab, order), _mm256_shuffle_epi8(cd, order));
                let (upper, lower) = (_mm256_set1_epi32(upper), _mm256_set1_epi32(lower));
                upper_ab = _mm256_add_epi32(upper_ab, _mm256_madd_epi16(ab, upper));
                upper_cd = _mm256_add_epi32(upper_cd, _mm256_madd_epi16(cd, upper));
                lower_ab = _mm256_add_epi32(lower_ab, _mm256_madd_epi16(ab, lower));
                lower_cd = _mm256_add_epi32(lower_cd, _mm256_madd_epi16(cd, lower));
            }
            at += 4 * CHANNELS;
        }
        for &(upper, lower) in last {
            let ab = _mm256_set_m128i(sixteen(b, at), sixteen(a, at));
            let cd = _mm256_set_m128i(sixteen(d, at), sixteen(c, at));
            let (ab, cd) = (_mm256_shuffle_epi8(ab, order), _mm256_shuffle_epi8(cd, order));
            let (upper, lower) = (_mm256_set1_epi32(upper), _mm256_set1_epi32(lower));
            upper_ab = _mm256_add_epi32(upper_ab, _mm256_madd_epi16(ab, upper));
            upper_cd = _mm256_add_epi32(upper_cd, _mm256_madd_epi16(cd, upper));
            lower_ab = _mm256_add_epi32(lower_ab, _mm256_madd_epi16(ab, lower));
            lower_cd = _mm256_add_epi32(lower_cd, _mm256_madd_epi16(cd, lower));
        }
        const UP: i32 = LOWER as i32;
        const DOWN: i32 = PRECISION as i32;
        let ab = _mm256_add_epi32(_mm256_slli_epi32::<UP>(upper_ab), lower_ab);
        let cd = _mm256_add_epi32(_mm256_slli_epi32::<UP>(upper_cd), lower_cd);
        let words = _mm256_packs_epi32(_mm256_srai_epi32::<DOWN>(ab), _mm256_srai_epi32::<DOWN>(cd));
        _mm256_packus_epi16(words, words)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn sixteen(line: &[u8], at: usize) -> __m128i {
        let bytes = &line[at..at + 16];
        // SAFETY: the slice has sixteen bytes.
        #[allow(unsafe_code)]
        unsafe {
            _mm_loadu_si128(bytes.as_ptr().cast())
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn down(data: &[u8], row: usize, weights: &Weights, output: &mut [u8]) {
        super::down_into(data, row, weights, output);
    }
}
