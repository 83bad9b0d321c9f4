//! A plan with weights: the network that runs.

use tch::{Kind, TchError, Tensor};

use super::plan::{Activation, Conv, Layer, Plan, Size};
use crate::frozen::Frozen;
use crate::shim::{self, Moves};
use crate::weights::{ReadTensorError, StateDict};

/// Added to the variance by torchvision's batch normalizations.
const NORM_EPSILON: f64 = 1e-5;

/// A network ready for inference.
///
/// Batch normalizations are folded into the convolutions before them. On the processor, in fp32, weights lie in the order that oneDNN
/// computes in, and activations and sums are part of the convolutions before them; elsewhere weights lie in channels-last order. All of it
/// changes logits by rounding only. On a processor with AVX2 alone, oneDNN's order and what is fused gained nothing: 1.04 of the
/// images a second of mobilenet_v2, 0.98 of resnet18's, whole program.
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
    /// The weight lies in oneDNN's own order.
    packed: bool,
    bias: Frozen,
    moves: Moves,
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
    /// Reads the plan's tensors, folds and lays them out, for images of `[C, H, W]` first of all. The caller has checked names and
    /// shapes.
    pub fn build(
        plan: &Plan,
        weights: &StateDict,
        device: tch::Device,
        kind: Kind,
        image: [i64; 3],
    ) -> Result<Network, BuildError> {
        let loader = Loader {
            weights,
            device,
            kind,
            packs: device == tch::Device::Cpu && kind == Kind::Float && shim::packs_convolutions(),
        };
        let mut size = Size(image);
        let steps = plan
            .layers
            .iter()
            .map(|layer| loader.step(layer, &mut size))
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
                let Some((last, first)) = main.split_last() else {
                    return activation.apply(x.shallow_clone());
                };
                let mut y = x.shallow_clone();
                for conv in first {
                    y = conv.forward(&y)?;
                }
                // Written to below. No network begins with a residual block, so `x` is a layer's own output, and of no more use.
                let sum = match shortcut {
                    Some(conv) => conv.forward(x)?,
                    None => x.shallow_clone(),
                };
                last.forward_onto(&y, sum, *activation)
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
        if self.packed {
            return shim::conv(x, &self.weight, &self.bias, self.moves, self.activation, None);
        }
        self.activation.apply(self.plain(x)?)
    }

    /// `activation(conv(x) + sum)`; the convolution has no activation of its own. Writes to `sum`.
    fn forward_onto(&self, x: &Tensor, mut sum: Tensor, activation: Activation) -> Result<Tensor, TchError> {
        if self.packed {
            return shim::conv(x, &self.weight, &self.bias, self.moves, activation, Some(&sum));
        }
        activation.apply(sum.f_add_(&self.plain(x)?)?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (stride, padding) = ([self.moves.stride; 2], [self.moves.padding; 2]);
        x.f_conv2d(
            &self.weight,
            Some(&*self.bias),
            stride,
            padding,
            [1, 1],
            self.moves.groups,
        )
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
    /// Whether weights may go into oneDNN's order.
    packs: bool,
}

/// How many images a batch is taken to have where weights are packed for it.
const USUAL_BATCH: i64 = 32;

impl Loader<'_> {
    /// Makes a layer into a step. `size` is that of its input, and after the call that of its output.
    fn step(&self, layer: &Layer, size: &mut Size) -> Result<Step, BuildError> {
        Ok(match layer {
            Layer::Conv(conv) => Step::Conv(self.conv(conv, size)?),
            &Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => {
                *size = size.moved(size.0[0], kernel, stride, padding);
                Step::MaxPool {
                    kernel,
                    stride,
                    padding,
                }
            }
            Layer::Residual {
                main,
                shortcut,
                activation,
            } => {
                let mut input = *size;
                Step::Residual {
                    main: main
                        .iter()
                        .map(|conv| self.conv(conv, size))
                        .collect::<Result<_, _>>()?,
                    shortcut: shortcut
                        .as_ref()
                        .map(|conv| self.conv(conv, &mut input))
                        .transpose()?,
                    activation: *activation,
                }
            }
            Layer::GlobalAveragePool => Step::GlobalAveragePool,
            Layer::Flatten => Step::Flatten,
            Layer::Linear { name, activation, .. } => Step::Linear {
                weight: self.freeze(self.read(name, "weight")?)?,
                bias: self.freeze(self.read(name, "bias")?)?,
                activation: *activation,
            },
        })
    }

    fn conv(&self, conv: &Conv, size: &mut Size) -> Result<Convolution, BuildError> {
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
        let moves = Moves {
            stride: conv.stride,
            padding: conv.padding(),
            groups: conv.groups,
        };
        let [channels, height, width] = size.0;
        *size = size.convolved(conv);
        let weight = weight.f_to_kind(self.kind)?;
        let bias = self.freeze(bias)?;
        let packed = match self.packs {
            true => shim::pack_conv(&weight.f_detach()?, moves, [USUAL_BATCH, channels, height, width]).ok(),
            false => None,
        };
        Ok(Convolution {
            packed: packed.is_some(),
            weight: match packed {
                Some(packed) => Frozen::new(packed),
                None => self.freeze(channels_last(&weight)?)?,
            },
            bias,
            moves,
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
