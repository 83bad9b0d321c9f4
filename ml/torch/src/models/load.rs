//! From a weights file to a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use purlin_inference::hash_bytes;
use tch::{CModule, Kind, TchError, Tensor};
use thiserror::Error;

use super::network::{BuildError, Network};
use super::package::{Compiled, Takes};
use super::{Architecture, Model, UnknownModel};
use crate::preprocess::{Fit, Preprocess};
use crate::tuning::{Device, DeviceError, Precision};
use crate::weights::{Mismatch, OpenWeightsError, ReadTensorError, WeightsFile};

/// What to load, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// The network; `None` for a TorchScript file or a compiled package, which bring their own.
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
    /// libtorch refused a compiled package.
    #[error("cannot load the compiled package {}: {}", path.display(), first_line(source))]
    Package {
        /// The file.
        path: PathBuf,
        /// libtorch's answer.
        source: TchError,
    },
    /// The package was compiled for another device.
    #[error("the package {} was compiled for {made_for}, not for {wanted}: try the other --device, or compile it again", path.display())]
    PackageDevice {
        /// The file.
        path: PathBuf,
        /// What it was compiled for.
        made_for: String,
        /// What was asked for.
        wanted: String,
    },
    /// The package was compiled for another processor.
    #[error(
        "the package {} was compiled for a processor with {instructions}, which this one lacks: compile it on a machine like this one",
        path.display()
    )]
    PackageProcessor {
        /// The file.
        path: PathBuf,
        /// PyTorch's name of the instructions.
        instructions: String,
    },
    /// The compiled network takes neither one blank image nor two.
    #[error(
        "the compiled network in {} takes no batches of {precision} images of {}x{}x{} (standard error has libtorch's reason): compile it \
         in the number format that it is to run in, with a first dimension of any size \
         (dynamic_shapes={{\"x\": {{0: torch.export.Dim(\"batch\")}}}})",
        path.display(), preprocess.channels(), preprocess.height, preprocess.width
    )]
    PackageProbe {
        /// The file.
        path: PathBuf,
        /// The number format tried.
        precision: Precision,
        /// The image size tried.
        preprocess: Box<Preprocess>,
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
    /// The network gives something else than one row of logits per image.
    #[error("the network in {} gives a tensor of shape {shape:?} for one image, not [1, classes]", path.display())]
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
/// A TorchScript or compiled network is tried on blank images, so that a file that does not fit is an error here, not in the first
/// batch. It does not say how images are prepared for it: where no architecture is named, the first of ImageNet's way and the digits
/// network's that the network takes is used.
pub fn load_model(path: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadModelError> {
    let device = options.device.open()?;
    let bytes = WeightsFile::read(path)?;
    let hash = Some(hash_bytes(&bytes));
    let loaded = load(path, bytes, options, device)?;
    Ok(Arc::new(Loaded { hash, ..loaded }))
}

fn load(
    path: &Path,
    bytes: Vec<u8>,
    options: &LoadOptions,
    device: tch::Device,
) -> Result<Loaded, LoadModelError> {
    let kind = options.precision.kind();
    let _no_grad = tch::no_grad_guard();
    let weights = match WeightsFile::parse(bytes, path, options.state_dict_key.as_deref())? {
        WeightsFile::TorchScript(bytes) => return load_torchscript(path, &bytes, options, device, kind),
        WeightsFile::Package => return load_package(path, options, device, kind),
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
    let preprocess = options.fitted(architecture.preprocess());
    let network =
        Network::build(&plan, &weights, device, kind, preprocess.shape()).map_err(|error| match error {
            BuildError::Read(source) => LoadModelError::Tensor {
                path: path.to_owned(),
                source,
            },
            BuildError::Torch(source) => LoadModelError::Torch {
                path: path.to_owned(),
                source,
            },
        })?;
    Ok(Loaded {
        net: Net::Named(network),
        preprocess,
        num_classes,
        device,
        kind,
        hash: None,
    })
}

fn load_torchscript(
    path: &Path,
    bytes: &[u8],
    options: &LoadOptions,
    device: tch::Device,
    kind: Kind,
) -> Result<Loaded, LoadModelError> {
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
    let (preprocess, logits) = probe(
        options,
        |preprocess| blank(1, preprocess, kind, device).and_then(|blank| module.forward_ts(&[blank])),
        |preprocess, source| LoadModelError::Probe {
            path: path.to_owned(),
            precision: options.precision,
            preprocess: Box::new(preprocess),
            source,
        },
    )?;
    let num_classes = classes_of(path, options, &logits, 1)?;
    Ok(Loaded {
        net: Net::Script(module),
        preprocess: options.fitted(preprocess),
        num_classes,
        device,
        kind,
        hash: None,
    })
}

fn load_package(
    path: &Path,
    options: &LoadOptions,
    device: tch::Device,
    kind: Kind,
) -> Result<Loaded, LoadModelError> {
    let compiled = Compiled::open(path, device)?;
    let refused = |preprocess: Preprocess, source| LoadModelError::PackageProbe {
        path: path.to_owned(),
        precision: options.precision,
        preprocess: Box::new(preprocess),
        source,
    };
    let attempt = |takes: Takes| {
        let forward = |preprocess: &Preprocess| {
            compiled.forward(&blank(takes.least(), preprocess, kind, device)?, takes)
        };
        probe(options, forward, refused).map(|found| (takes, found))
    };
    // The first refusal is of the usual way to compile.
    let [usual, others @ ..] = Takes::ALL;
    let found = attempt(usual);
    let found = found.or_else(|error| {
        others
            .into_iter()
            .find_map(|takes| attempt(takes).ok())
            .ok_or(error)
    });
    let (takes, (preprocess, logits)) = found?;
    let num_classes = classes_of(path, options, &logits, takes.least())?;
    Ok(Loaded {
        net: Net::Compiled(compiled, takes),
        preprocess: options.fitted(preprocess),
        num_classes,
        device,
        kind,
        hash: None,
    })
}

/// So many images of zeros.
fn blank(count: i64, preprocess: &Preprocess, kind: Kind, device: tch::Device) -> Result<Tensor, TchError> {
    let [channels, height, width] = preprocess.shape();
    Tensor::f_zeros([count, channels, height, width], (kind, device))
}

/// The first of the ways to prepare images that a network takes, and what it gives for blank ones.
fn probe(
    options: &LoadOptions,
    forward: impl Fn(&Preprocess) -> Result<Tensor, TchError>,
    refused: impl Fn(Preprocess, TchError) -> LoadModelError,
) -> Result<(Preprocess, Tensor), LoadModelError> {
    let (first, other) = match options.architecture {
        Some(architecture) => (architecture.preprocess(), None),
        None => (Preprocess::imagenet(), Some(Preprocess::digits())),
    };
    // The first refusal is the one that a user of ImageNet's networks expects.
    let error = match forward(&first) {
        Ok(logits) => return Ok((first, logits)),
        Err(error) => error,
    };
    if let Some(other) = other
        && let Ok(logits) = forward(&other)
    {
        return Ok((other, logits));
    }
    Err(refused(first, error))
}

/// How many classes a network has, by the logits that it gave for so many images.
fn classes_of(
    path: &Path,
    options: &LoadOptions,
    logits: &Tensor,
    count: i64,
) -> Result<i64, LoadModelError> {
    let size = logits.size();
    let &[rows, num_classes] = size.as_slice() else {
        return Err(LoadModelError::NotAClassifier {
            path: path.to_owned(),
            shape: size,
        });
    };
    if rows != count {
        return Err(LoadModelError::NotAClassifier {
            path: path.to_owned(),
            shape: size,
        });
    }
    if let Some(expected) = options.num_classes
        && expected != num_classes
    {
        return Err(LoadModelError::Classes {
            path: path.to_owned(),
            expected,
            found: num_classes,
        });
    }
    Ok(num_classes)
}

/// What computes the logits.
#[derive(Debug)]
enum Net {
    /// A network by name.
    Named(Network),
    /// A TorchScript file that brings its own.
    Script(CModule),
    /// A package that brings its own.
    Compiled(Compiled, Takes),
}

#[derive(Debug)]
struct Loaded {
    net: Net,
    preprocess: Preprocess,
    num_classes: i64,
    device: tch::Device,
    kind: Kind,
    hash: Option<String>,
}

impl Model for Loaded {
    fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let _no_grad = tch::no_grad_guard();
        match &self.net {
            Net::Named(network) => network.forward(images),
            Net::Script(module) => module.forward_ts(&[images]),
            Net::Compiled(compiled, takes) => compiled.forward(images, *takes),
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

    fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }
}
