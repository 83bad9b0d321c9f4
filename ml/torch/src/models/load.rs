//! From a weights file to a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{CModule, Kind, TchError, Tensor};
use thiserror::Error;

use super::network::{BuildError, Network};
use super::{Architecture, Model, UnknownModel};
use crate::preprocess::{Fit, Preprocess};
use crate::tuning::{Device, DeviceError, Precision};
use crate::weights::{Mismatch, OpenWeightsError, ReadTensorError, WeightsFile};

/// What to load, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// The network; `None` for a TorchScript file that brings its own.
    pub architecture: Option<Architecture>,
    /// Where it runs.
    pub device: Device,
    /// The number format it computes in.
    pub precision: Precision,
    /// How images become as large as the network takes them.
    pub fit: Fit,
    /// The number of classes; read off the weights where it is `None`.
    pub num_classes: Option<i64>,
    /// The key of the state dict in a checkpoint that holds several (`a.b` for one in another); `None` for the one under a usual key.
    pub state_dict_key: Option<String>,
}

impl LoadOptions {
    /// A network by name (`torchscript` for a TorchScript file of any network), on the processor in fp32.
    pub fn named(model_name: &str) -> Result<LoadOptions, UnknownModel> {
        let architecture = if model_name == super::TORCHSCRIPT {
            None
        } else {
            Some(model_name.parse()?)
        };
        Ok(LoadOptions {
            architecture,
            device: Device::Cpu,
            precision: Precision::Fp32,
            fit: Fit::default(),
            num_classes: None,
            state_dict_key: None,
        })
    }

    fn fitted(&self, preprocess: Preprocess) -> Preprocess {
        Preprocess {
            fit: self.fit,
            ..preprocess
        }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum LoadModelError {
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The file cannot be read, or is no weights file.
    #[error(transparent)]
    Open(#[from] OpenWeightsError),
    /// The file's tensors are not the network's.
    #[error("the weights in {} do not fit {architecture} with {num_classes} classes:\n{mismatch}", path.display())]
    DoesNotFit {
        /// The weights file.
        path: PathBuf,
        /// The network.
        architecture: Architecture,
        /// Its classes.
        num_classes: i64,
        /// The tensors that differ.
        mismatch: Box<Mismatch>,
    },
    /// The file holds tensors only, and no network was named.
    #[error(
        "{} holds a state dict, which does not say which network it belongs to: give the model's name (one of {})",
        path.display(), Architecture::ALL.map(Architecture::name).join(", ")
    )]
    ArchitectureNeeded {
        /// The weights file.
        path: PathBuf,
    },
    /// A tensor's data cannot be read.
    #[error("cannot read the weights in {}: {source}", path.display())]
    Tensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor, and why.
        source: ReadTensorError,
    },
    /// libtorch refused a TorchScript file.
    #[error("cannot load the TorchScript file {}: {}", path.display(), first_line(source))]
    TorchScript {
        /// The file.
        path: PathBuf,
        /// libtorch's answer.
        source: TchError,
    },
    /// The TorchScript network fails on one blank image.
    #[error(
        "the TorchScript network in {} does not take {precision} images of shape [1, {}, {}, {}]: {}; \
         a frozen file keeps the number format it was saved in: try the other --precision, or export it again",
        path.display(), preprocess.channels(), preprocess.height, preprocess.width, first_line(source)
    )]
    Probe {
        /// The file.
        path: PathBuf,
        /// The number format tried.
        precision: Precision,
        /// The image shape tried.
        preprocess: Box<Preprocess>,
        /// libtorch's answer.
        source: TchError,
    },
    /// The TorchScript network gives something else than one row of logits per image.
    #[error("the TorchScript network in {} gives a tensor of shape {shape:?} for one image, not [1, classes]", path.display())]
    NotAClassifier {
        /// The file.
        path: PathBuf,
        /// What came out.
        shape: Vec<i64>,
    },
    /// The number of classes is not the one asked for.
    #[error("the network in {} has {found} classes, not {expected}", path.display())]
    Classes {
        /// The file.
        path: PathBuf,
        /// Asked for.
        expected: i64,
        /// Found.
        found: i64,
    },
    /// libtorch failed while weights were moved to the device.
    #[error("libtorch cannot take the weights in {}: {}", path.display(), first_line(source))]
    Torch {
        /// The weights file.
        path: PathBuf,
        /// libtorch's answer.
        source: TchError,
    },
}

/// libtorch's errors carry a C++ back trace after the first line.
pub(crate) fn first_line(error: &TchError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // Errors inside TorchScript start with the interpreter's own back trace; the reason is the line that names the error.
    let first = lines.next().unwrap_or("unknown error").to_owned();
    if first.contains("following operation failed") {
        return lines
            .find(|line| line.contains("Error: "))
            .map_or(first, str::to_owned);
    }
    first
}

/// Loads a model from a weights file of any known format; the format is told by the content, not by the name.
///
/// A TorchScript network is tried on one blank image, so that a file that does not fit is an error here, not in the first batch. It
/// does not say how images are prepared for it: where no architecture is named, the first of ImageNet's way and the digits
/// network's that the network takes is used.
pub fn load_model(path: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadModelError> {
    let device = options.device.open()?;
    let kind = options.precision.kind();
    let _no_grad = tch::no_grad_guard();
    let weights = match WeightsFile::open(path, options.state_dict_key.as_deref())? {
        WeightsFile::TorchScript(bytes) => return load_torchscript(path, &bytes, options, device, kind),
        WeightsFile::StateDict(weights) => weights,
    };
    let Some(architecture) = options.architecture else {
        return Err(LoadModelError::ArchitectureNeeded {
            path: path.to_owned(),
        });
    };
    let num_classes = options
        .num_classes
        .or_else(|| match weights.shape(architecture.classifier_weight()) {
            Some(&[classes, _]) if classes > 0 => Some(classes),
            _ => None,
        })
        .unwrap_or(architecture.default_classes());
    let plan = architecture.plan(num_classes);
    weights
        .check(&plan.tensors())
        .map_err(|mismatch| LoadModelError::DoesNotFit {
            path: path.to_owned(),
            architecture,
            num_classes,
            mismatch: Box::new(mismatch),
        })?;
    let network = Network::build(&plan, &weights, device, kind).map_err(|error| match error {
        BuildError::Read(source) => LoadModelError::Tensor {
            path: path.to_owned(),
            source,
        },
        BuildError::Torch(source) => LoadModelError::Torch {
            path: path.to_owned(),
            source,
        },
    })?;
    Ok(Arc::new(Loaded {
        net: Net::Named(network),
        preprocess: options.fitted(architecture.preprocess()),
        num_classes,
        device,
        kind,
    }))
}

fn load_torchscript(
    path: &Path,
    bytes: &[u8],
    options: &LoadOptions,
    device: tch::Device,
    kind: Kind,
) -> Result<Arc<dyn Model>, LoadModelError> {
    let refused = |source| LoadModelError::TorchScript {
        path: path.to_owned(),
        source,
    };
    let mut module =
        CModule::load_data_on_device(&mut std::io::Cursor::new(bytes), device).map_err(refused)?;
    module.f_set_eval().map_err(refused)?;
    if kind != Kind::Float {
        module.to(device, kind, false);
    }
    let candidates = match options.architecture {
        Some(architecture) => vec![architecture.preprocess()],
        None => vec![Preprocess::imagenet(), Preprocess::digits()],
    };
    let mut refused = None;
    let mut taken = None;
    for preprocess in candidates {
        let shape = [
            1,
            preprocess.channels() as i64,
            preprocess.height as i64,
            preprocess.width as i64,
        ];
        let probe = Tensor::f_zeros(shape, (kind, device)).and_then(|blank| module.forward_ts(&[blank]));
        match probe {
            Ok(logits) => {
                taken = Some((preprocess, logits));
                break;
            }
            // The first refusal is the one that a user of ImageNet's networks expects.
            Err(source) => {
                let (path, precision) = (path.to_owned(), options.precision);
                refused.get_or_insert(LoadModelError::Probe {
                    path,
                    precision,
                    preprocess: Box::new(preprocess),
                    source,
                });
            }
        }
    }
    let Some((preprocess, logits)) = taken else {
        return Err(refused.unwrap_or(LoadModelError::NotAClassifier {
            path: path.to_owned(),
            shape: Vec::new(),
        }));
    };
    let &[1, num_classes] = logits.size().as_slice() else {
        return Err(LoadModelError::NotAClassifier {
            path: path.to_owned(),
            shape: logits.size(),
        });
    };
    if let Some(expected) = options.num_classes
        && expected != num_classes
    {
        return Err(LoadModelError::Classes {
            path: path.to_owned(),
            expected,
            found: num_classes,
        });
    }
    Ok(Arc::new(Loaded {
        net: Net::Script(module),
        preprocess: options.fitted(preprocess),
        num_classes,
        device,
        kind,
    }))
}

/// What computes the logits.
#[derive(Debug)]
enum Net {
    /// A network by name.
    Named(Network),
    /// A TorchScript file that brings its own.
    Script(CModule),
}

#[derive(Debug)]
struct Loaded {
    net: Net,
    preprocess: Preprocess,
    num_classes: i64,
    device: tch::Device,
    kind: Kind,
}

impl Model for Loaded {
    fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let _no_grad = tch::no_grad_guard();
        match &self.net {
            Net::Named(network) => network.forward(images),
            Net::Script(module) => module.forward_ts(&[images]),
        }
    }

    fn num_classes(&self) -> i64 {
        self.num_classes
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn device(&self) -> tch::Device {
        self.device
    }

    fn kind(&self) -> Kind {
        self.kind
    }
}
