//! Networks that PyTorch compiled ahead of time (AOTInductor's `.pt2` packages).

use std::path::Path;

use tch::{TchError, Tensor};

use super::load::LoadModelError;
use super::network::channels_last;
use crate::shim::Package;

/// A compiled network from images to logits.
#[derive(Debug)]
pub(super) struct Compiled {
    package: Package,
}

impl Compiled {
    /// Opens a package for a device. As many calls may run at once as the machine has cores.
    pub(super) fn open(path: &Path, device: tch::Device) -> Result<Compiled, LoadModelError> {
        let refused = |source| LoadModelError::Package {
            path: path.to_owned(),
            source,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let package = Package::open(&path.to_string_lossy(), cores, device).map_err(refused)?;
        let metadata = |key| {
            package
                .metadata(key)
                .map_err(refused)
                .map(Option::unwrap_or_default)
        };
        let made_for = metadata(c"AOTI_DEVICE_KEY")?;
        let wanted = if device == tch::Device::Cpu { "cpu" } else { "cuda" };
        if !made_for.is_empty() && made_for != wanted {
            return Err(LoadModelError::PackageDevice {
                path: path.to_owned(),
                made_for,
                wanted: wanted.to_owned(),
            });
        }
        let instructions = metadata(c"AOTI_CPU_ISA")?;
        if !has_instructions(&instructions) {
            return Err(LoadModelError::PackageProcessor {
                path: path.to_owned(),
                instructions,
            });
        }
        Ok(Compiled { package })
    }

    /// Images `[N, C, H, W]` to logits `[N, classes]`.
    ///
    /// A network that was compiled for batches of many sizes takes none of one image: torch.export makes of 1 a size of its own. Such
    /// an image goes twice. One that was compiled for a single image takes one at a time.
    pub(super) fn forward(&self, images: &Tensor, takes: Takes) -> Result<Tensor, TchError> {
        let count = images.size().first().copied().unwrap_or(0);
        if !takes.many {
            let rows = (0..count)
                .map(|row| self.run(&images.f_narrow(0, row, 1)?, takes))
                .collect::<Result<Vec<_>, _>>()?;
            return Tensor::f_cat(&rows, 0);
        }
        if count == 1 {
            let twice = Tensor::f_cat(&[images, images], 0)?;
            return self.run(&twice, takes)?.f_narrow(0, 0, 1);
        }
        self.run(images, takes)
    }

    fn run(&self, images: &Tensor, takes: Takes) -> Result<Tensor, TchError> {
        let images = match takes.channels_last {
            true => channels_last(images)?,
            false => images.f_contiguous()?,
        };
        self.package.run(&[&images])
    }
}

/// The batches that a network was compiled for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Takes {
    /// Of two images and more, or of one.
    pub many: bool,
    /// The numbers of a pixel lie next to each other in memory, or those of a channel.
    pub channels_last: bool,
}

impl Takes {
    /// All that there are, the usual first.
    pub(super) const ALL: [Takes; 4] = [
        Takes::new(true, false),
        Takes::new(true, true),
        Takes::new(false, false),
        Takes::new(false, true),
    ];

    const fn new(many: bool, channels_last: bool) -> Takes {
        Takes { many, channels_last }
    }

    /// A batch to try a network with.
    pub(super) fn least(self) -> i64 {
        if self.many { 2 } else { 1 }
    }
}

/// Whether this processor has the instructions that a package was compiled for. Names that are not known pass.
fn has_instructions(name: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let name = name.to_ascii_lowercase();
        if name.contains("avx512") || name.contains("amx") {
            return is_x86_feature_detected!("avx512f");
        }
        if name.contains("avx2") {
            return is_x86_feature_detected!("avx2");
        }
    }
    true
}
