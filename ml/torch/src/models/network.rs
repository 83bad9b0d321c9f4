//! A plan with weights: the network that runs.

use tch::{Kind, TchError, Tensor};

use super::plan::{Activation, Conv, Layer, Plan};
use crate::frozen::Frozen;
use crate::weights::{ReadTensorError, StateDict};

/// Added to the variance by torchvision's batch normalizations.
const NORM_EPSILON: f64 = 1e-5;

/// A network ready for inference.
///
/// Batch normalizations are folded into the convolutions before them, and weights lie in channels-last order: both are faster and
/// change logits by rounding only.
#[derive(Debug)]
pub(crate) struct Network {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Conv(Convolution),
    MaxPool {
        kernel: i64,
        stride: i64,
        padding: i64,
    },
    Residual {
        main: Vec<Convolution>,
        shortcut: Option<Convolution>,
        activation: Activation,
    },
    GlobalAveragePool,
    Flatten,
    Linear {
        weight: Frozen,
        bias: Frozen,
        activation: Activation,
    },
}

#[derive(Debug)]
struct Convolution {
    weight: Frozen,
    bias: Frozen,
    stride: i64,
    padding: i64,
    groups: i64,
    activation: Activation,
}

/// Why weights could not be made into a network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Read(#[from] ReadTensorError),
    #[error(transparent)]
    Torch(#[from] TchError),
}

impl Network {
    /// Reads the plan's tensors, folds and lays them out. The caller has checked names and shapes.
    pub fn build(
        plan: &Plan,
        weights: &StateDict,
        device: tch::Device,
        kind: Kind,
    ) -> Result<Network, BuildError> {
        let loader = Loader {
            weights,
            device,
            kind,
        };
        let steps = plan
            .layers
            .iter()
            .map(|layer| loader.step(layer))
            .collect::<Result<_, _>>()?;
        Ok(Network { steps })
    }

    /// Images `[N, C, H, W]` to logits `[N, classes]`.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let mut x = images.shallow_clone();
        for step in &self.steps {
            x = step.forward(&x)?;
        }
        Ok(x)
    }
}

impl Step {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Step::Conv(conv) => conv.forward(x),
            Step::MaxPool {
                kernel,
                stride,
                padding,
            } => x.f_max_pool2d([*kernel; 2], [*stride; 2], [*padding; 2], [1, 1], false),
            Step::Residual {
                main,
                shortcut,
                activation,
            } => {
                let mut y = x.shallow_clone();
                for conv in main {
                    y = conv.forward(&y)?;
                }
                // `y` is the last convolution's own output, so writing to it in place changes no one's input.
                let _sum = match shortcut {
                    Some(conv) => y.f_add_(&conv.forward(x)?)?,
                    None => y.f_add_(x)?,
                };
                activation.apply(y)
            }
            Step::GlobalAveragePool => x.f_adaptive_avg_pool2d([1, 1]),
            Step::Flatten => x.f_flatten(1, -1),
            Step::Linear {
                weight,
                bias,
                activation,
            } => activation.apply(x.f_linear(weight, Some(&**bias))?),
        }
    }
}

impl Convolution {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        self.activation.apply(x.f_conv2d(
            &self.weight,
            Some(&*self.bias),
            stride,
            padding,
            [1, 1],
            self.groups,
        )?)
    }
}

impl Activation {
    /// Works in place on a layer's output.
    fn apply(self, mut x: Tensor) -> Result<Tensor, TchError> {
        match self {
            Activation::None => Ok(x),
            Activation::Relu => x.f_relu_(),
            Activation::Relu6 => x.f_clamp_(0, 6),
        }
    }
}

struct Loader<'a> {
    weights: &'a StateDict,
    device: tch::Device,
    kind: Kind,
}

impl Loader<'_> {
    fn step(&self, layer: &Layer) -> Result<Step, BuildError> {
        Ok(match layer {
            Layer::Conv(conv) => Step::Conv(self.conv(conv)?),
            &Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => Step::MaxPool {
                kernel,
                stride,
                padding,
            },
            Layer::Residual {
                main,
                shortcut,
                activation,
            } => Step::Residual {
                main: main
                    .iter()
                    .map(|conv| self.conv(conv))
                    .collect::<Result<_, _>>()?,
                shortcut: shortcut.as_ref().map(|conv| self.conv(conv)).transpose()?,
                activation: *activation,
            },
            Layer::GlobalAveragePool => Step::GlobalAveragePool,
            Layer::Flatten => Step::Flatten,
            Layer::Linear { name, activation, .. } => Step::Linear {
                weight: self.freeze(self.read(name, "weight")?)?,
                bias: self.freeze(self.read(name, "bias")?)?,
                activation: *activation,
            },
        })
    }

    fn conv(&self, conv: &Conv) -> Result<Convolution, BuildError> {
        let mut weight = self.read(&conv.name, "weight")?;
        let bias = match &conv.norm {
            None => self.read(&conv.name, "bias")?,
            Some(norm) => {
                // norm(w·x) = (γ/√(σ²+ε))·w·x + (β - μ·γ/√(σ²+ε))
                let variance = self.read(norm, "running_var")?;
                let scale = self
                    .read(norm, "weight")?
                    .f_div(&variance.f_add_scalar(NORM_EPSILON)?.f_sqrt()?)?;
                weight = weight.f_mul(&scale.f_reshape([-1, 1, 1, 1])?)?;
                self.read(norm, "bias")?
                    .f_sub(&self.read(norm, "running_mean")?.f_mul(&scale)?)?
            }
        };
        Ok(Convolution {
            weight: self.freeze(channels_last(&weight.f_to_kind(self.kind)?)?)?,
            bias: self.freeze(bias)?,
            stride: conv.stride,
            padding: conv.kernel / 2,
            groups: conv.groups,
            activation: conv.activation,
        })
    }

    /// Reads in double precision, so that folding rounds once.
    fn read(&self, layer: &str, field: &str) -> Result<Tensor, BuildError> {
        Ok(self
            .weights
            .tensor(&format!("{layer}.{field}"))?
            .f_to_kind(Kind::Double)?)
    }

    fn freeze(&self, tensor: Tensor) -> Result<Frozen, BuildError> {
        Ok(Frozen::new(
            tensor
                .f_to_kind(self.kind)?
                .f_to_device(self.device)?
                .f_detach()?,
        ))
    }
}

/// The same four-dimensional tensor with the channels next to each other in memory, the order in which convolutions are fastest.
pub(crate) fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor
        .f_permute([0, 2, 3, 1])?
        .f_contiguous()?
        .f_permute([0, 3, 1, 2])
}
