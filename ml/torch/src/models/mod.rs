//! Models by torchvision's names, and any TorchScript file or compiled package.
//!
//! A model is loaded once and shared by all threads (`Arc<dyn Model>`). Parameter names are torchvision's, so the files that
//! `torch.save(model.state_dict(), path)` writes fit as they are.

mod load;
mod network;
mod package;
mod plan;

use std::fmt;
use std::str::FromStr;

use tch::{TchError, Tensor};

pub(crate) use load::first_line;
pub use load::{LoadModelError, LoadOptions, load_model};
pub use plan::TensorSpec;

use crate::preprocess::Preprocess;
pub(crate) use plan::Activation;
use plan::Plan;

/// A network in evaluation mode; any number of threads may call it at once.
pub trait Model: Send + Sync + fmt::Debug {
    /// Images `[N, C, H, W]`, normalized, to logits `[N, classes]`.
    fn forward(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// The number of classes, as long as the labels must be.
    fn num_classes(&self) -> i64;

    /// Where the model lies and images must go.
    fn device(&self) -> tch::Device;

    /// How images are prepared for it.
    fn preprocess(&self) -> &Preprocess;

    /// The number format that images must have.
    fn kind(&self) -> tch::Kind;

    /// The SHA-256 of the file that it was loaded from in hexadecimal digits, where it is known.
    fn hash(&self) -> Option<&str> {
        None
    }
}

/// The networks that are known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// torchvision's MobileNetV2, width 1.0.
    MobileNetV2,
    /// torchvision's ResNet-18.
    ResNet18,
    /// torchvision's ResNet-34.
    ResNet34,
    /// torchvision's ResNet-50.
    ResNet50,
    /// torchvision's ResNet-101.
    ResNet101,
    /// torchvision's ResNet-152.
    ResNet152,
    /// The small network for 32x32 greyscale digits that ships with the image-classification example.
    DigitsCnn,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 7] = [
        Architecture::MobileNetV2,
        Architecture::ResNet18,
        Architecture::ResNet34,
        Architecture::ResNet50,
        Architecture::ResNet101,
        Architecture::ResNet152,
        Architecture::DigitsCnn,
    ];

    /// The name that `--model_name` takes, torchvision's own.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::MobileNetV2 => "mobilenet_v2",
            Architecture::ResNet18 => "resnet18",
            Architecture::ResNet34 => "resnet34",
            Architecture::ResNet50 => "resnet50",
            Architecture::ResNet101 => "resnet101",
            Architecture::ResNet152 => "resnet152",
            Architecture::DigitsCnn => "digits_cnn",
        }
    }

    /// How images are prepared for it: ImageNet's way, or 32x32 greyscale for the digits network.
    pub fn preprocess(self) -> Preprocess {
        match self {
            Architecture::DigitsCnn => Preprocess::digits(),
            _ => Preprocess::imagenet(),
        }
    }

    /// How many numbers its weights are, and how many are in memory at a time while one image goes through.
    pub(crate) fn numbers(self, num_classes: i64) -> (i64, i64) {
        let plan = self.plan(num_classes);
        let weights = plan
            .tensors()
            .iter()
            .map(|spec| spec.shape.iter().product::<i64>())
            .sum();
        (weights, plan.activations(self.preprocess().shape()))
    }

    /// The number of classes where nothing says otherwise.
    pub fn default_classes(self) -> i64 {
        match self {
            Architecture::DigitsCnn => 10,
            _ => 1000,
        }
    }

    /// Every tensor that a weights file for it must hold, by name and shape. `num_batches_tracked` counts are not read.
    pub fn tensors(self, num_classes: i64) -> Vec<TensorSpec> {
        self.plan(num_classes).tensors()
    }

    /// The last layer's weight, whose first dimension is the number of classes.
    fn classifier_weight(self) -> &'static str {
        match self {
            Architecture::MobileNetV2 => "classifier.1.weight",
            Architecture::DigitsCnn => "fc2.weight",
            _ => "fc.weight",
        }
    }

    fn plan(self, num_classes: i64) -> Plan {
        match self {
            Architecture::MobileNetV2 => plan::mobilenet_v2(num_classes),
            Architecture::ResNet18 => plan::resnet([2, 2, 2, 2], false, num_classes),
            Architecture::ResNet34 => plan::resnet([3, 4, 6, 3], false, num_classes),
            Architecture::ResNet50 => plan::resnet([3, 4, 6, 3], true, num_classes),
            Architecture::ResNet101 => plan::resnet([3, 4, 23, 3], true, num_classes),
            Architecture::ResNet152 => plan::resnet([3, 8, 36, 3], true, num_classes),
            Architecture::DigitsCnn => plan::digits_cnn(num_classes),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A model name that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown model {name:?}: known are {}; any other network can be given as a TorchScript file with the model name {TORCHSCRIPT}",
    Architecture::ALL.map(Architecture::name).join(", ")
)]
pub struct UnknownModel {
    /// What was asked for.
    pub name: String,
}

/// The model name for a TorchScript file of any network; see [`load_model`] for how images are prepared for it.
pub const TORCHSCRIPT: &str = "torchscript";

impl FromStr for Architecture {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Architecture, UnknownModel> {
        let all = Architecture::ALL.into_iter();
        all.into_iter()
            .find(|a| a.name() == name)
            .ok_or_else(|| UnknownModel {
                name: name.to_owned(),
            })
    }
}
