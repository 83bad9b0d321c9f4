//! Images to tensors, as torchvision's transforms do it on PIL images.
//!
//! `Image.open(path).convert("RGB")`, `Resize((224, 224))` (bilinear with antialias), `ToTensor()`, `Normalize(mean, std)`: decoding
//! and resizing give Pillow 12's bytes, and the rest is exact up to float rounding. What
//! Pillow opens with its default settings is opened, and what it refuses is refused, of the formats that are read: JPEG, PNG, WebP,
//! GIF and BMP. TIFF and AVIF are not. Decoding and resizing work on bytes and run per image on any thread; normalization runs once
//! per batch, on the model's device.

mod crop;
mod decode;
mod gif;
mod jpeg;
mod png;
mod resize;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use crate::tuning::UnknownChoice;

pub use decode::{DecodeError, Decoded, ImageFormat, MAX_PIXELS};
pub use resize::ResizeError;

/// The channels that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorMode {
    /// Red, green and blue: PIL's `convert("RGB")`.
    Rgb,
    /// One channel: PIL's `convert("L")`.
    Grey,
}

/// How an image of any size becomes one of the network's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// Resized to it; the aspect ratio is not kept: torchvision's `Resize((224, 224))`.
    #[default]
    Resize,
    /// Resized so that its shorter side is 256/224 of the network's, and the middle cut out: torchvision's `Resize(256)` and
    /// `CenterCrop(224)`, which its published weights were measured with.
    CenterCrop,
}

impl Fit {
    /// All of them.
    pub const ALL: [Fit; 2] = [Fit::Resize, Fit::CenterCrop];

    /// The name that options take.
    pub fn name(self) -> &'static str {
        match self {
            Fit::Resize => "resize",
            Fit::CenterCrop => "center_crop",
        }
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fit {
    type Err = UnknownChoice;

    /// `resize` or `center_crop`.
    fn from_str(text: &str) -> Result<Fit, UnknownChoice> {
        let found = Fit::ALL.into_iter().find(|fit| fit.name() == text);
        found.ok_or_else(|| UnknownChoice::new("preprocessing", text, Fit::ALL.map(Fit::name).join(" or ")))
    }
}

/// How images are prepared for a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// Width in pixels of what the network takes.
    pub width: usize,
    /// Height in pixels of what the network takes.
    pub height: usize,
    /// How images become so large.
    pub fit: Fit,
    /// The channels.
    pub color: ColorMode,
    /// Subtracted from each channel, which then lies in 0 to 1.
    pub mean: Vec<f32>,
    /// What each channel is divided by after that.
    pub std: Vec<f32>,
}

/// An image that is ready for a batch: `height * width * channels` bytes, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, purlin::Element)]
pub struct Pixels {
    /// The bytes.
    pub data: Vec<u8>,
}

/// Why an image cannot be classified.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It cannot be resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

impl Preprocess {
    /// ImageNet's: RGB, 224x224, mean and standard deviation of ImageNet's training images.
    pub fn imagenet() -> Preprocess {
        Preprocess {
            width: 224,
            height: 224,
            fit: Fit::Resize,
            color: ColorMode::Rgb,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// The digits network's: greyscale, 32x32, -1 to 1.
    pub fn digits() -> Preprocess {
        Preprocess {
            width: 32,
            height: 32,
            fit: Fit::Resize,
            color: ColorMode::Grey,
            mean: vec![0.5],
            std: vec![0.5],
        }
    }

    /// Channels, height and width of an image as the network takes it.
    pub fn shape(&self) -> [i64; 3] {
        [self.channels(), self.height, self.width].map(|size| i64::try_from(size).unwrap_or(i64::MAX))
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        match self.color {
            ColorMode::Rgb => 3,
            ColorMode::Grey => 1,
        }
    }

    /// Decodes a file's bytes; the format is told by the content.
    pub fn decode(&self, bytes: &[u8]) -> Result<Decoded, DecodeError> {
        decode::decode(bytes)
    }

    /// Converts the channels, resizes, and cuts where the fit says so.
    pub fn resize(&self, image: Decoded) -> Result<Pixels, ResizeError> {
        let image = match self.color {
            ColorMode::Rgb => image.into_rgb(),
            ColorMode::Grey => image.into_grey(),
        };
        let data = match self.fit {
            Fit::Resize => resize::bilinear(image, self.width, self.height)?,
            Fit::CenterCrop => {
                let grown = crop::resized(&image, (self.width, self.height))?;
                let data = resize::bilinear(image, grown.0, grown.1)?;
                crop::center(&data, grown, (self.width, self.height), self.channels())
            }
        };
        Ok(Pixels { data })
    }

    /// Decodes and resizes.
    pub fn prepare(&self, bytes: &[u8]) -> Result<Pixels, PrepareError> {
        Ok(self.resize(self.decode(bytes)?)?)
    }

    /// Makes a normalized batch `[N, C, H, W]` of prepared images, channels-last in memory, on a device.
    ///
    /// Bytes travel to the device and become floats there. An image of another size is an error.
    pub fn batch(&self, images: &[&Pixels], device: tch::Device, kind: Kind) -> Result<Tensor, TchError> {
        let size = self.height * self.width * self.channels();
        let mut data = Vec::with_capacity(images.len() * size);
        for image in images {
            if image.data.len() != size {
                let what = format!(
                    "an image of {} bytes, not {}x{}x{}",
                    image.data.len(),
                    self.height,
                    self.width,
                    self.channels()
                );
                return Err(TchError::Shape(what));
            }
            data.extend_from_slice(&image.data);
        }
        let shape = [images.len(), self.height, self.width, self.channels()].map(|dim| dim as i64);
        // (x / 255 - mean) / std as one multiplication and one addition.
        let scale: Vec<f32> = self.std.iter().map(|std| 1.0 / (255.0 * std)).collect();
        let shift: Vec<f32> = self
            .mean
            .iter()
            .zip(&self.std)
            .map(|(mean, std)| -mean / std)
            .collect();
        let scale = Tensor::f_from_slice(&scale)?.f_to_device(device)?;
        let shift = Tensor::f_from_slice(&shift)?.f_to_device(device)?;
        let bytes = Tensor::f_from_data_size(&data, &shape, Kind::Uint8)?.f_to_device(device)?;
        let normalized = shift.f_addcmul(&bytes.f_to_kind(Kind::Float)?, &scale)?;
        normalized.f_to_kind(kind)?.f_permute([0, 3, 1, 2])
    }
}
