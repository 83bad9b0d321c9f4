//! Networks as data: a plan lists layers under torchvision's parameter names.
//!
//! One description gives both the tensors that a weights file must hold and the order in which they are applied, so the two cannot
//! drift apart.

/// What follows a convolution or a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Relu,
    Relu6,
}

/// A square convolution, with the batch normalization that follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conv {
    pub name: String,
    /// The batch normalization's name; the convolution has a bias of its own where there is none.
    pub norm: Option<String>,
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: i64,
    pub stride: i64,
    pub groups: i64,
    pub activation: Activation,
}

/// One step of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layer {
    Conv(Conv),
    MaxPool {
        kernel: i64,
        stride: i64,
        padding: i64,
    },
    /// `activation(main(x) + shortcut(x))`; the shortcut is the identity where it has no convolution.
    Residual {
        main: Vec<Conv>,
        shortcut: Option<Conv>,
        activation: Activation,
    },
    /// Averages each channel over all positions.
    GlobalAveragePool,
    /// `[N, C, H, W]` to `[N, C·H·W]`.
    Flatten,
    Linear {
        name: String,
        inputs: i64,
        outputs: i64,
        activation: Activation,
    },
}

/// A network: its layers, first to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub layers: Vec<Layer>,
}

/// A tensor that a weights file must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in `model.state_dict()`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<i64>,
}

impl Plan {
    /// Every tensor that the network reads, in torchvision's order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        for layer in &self.layers {
            match layer {
                Layer::Conv(conv) => conv.tensors(&mut specs),
                Layer::Residual { main, shortcut, .. } => {
                    main.iter()
                        .chain(shortcut)
                        .for_each(|conv| conv.tensors(&mut specs));
                }
                Layer::Linear {
                    name,
                    inputs,
                    outputs,
                    ..
                } => {
                    specs.push(TensorSpec {
                        name: format!("{name}.weight"),
                        shape: vec![*outputs, *inputs],
                    });
                    specs.push(TensorSpec {
                        name: format!("{name}.bias"),
                        shape: vec![*outputs],
                    });
                }
                Layer::MaxPool { .. } | Layer::GlobalAveragePool | Layer::Flatten => {}
            }
        }
        specs
    }
}

/// The `[C, H, W]` that layers take and give, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub [i64; 3]);

impl Size {
    /// What a square kernel leaves of it, of so many channels.
    pub(crate) fn moved(self, channels: i64, kernel: i64, stride: i64, padding: i64) -> Size {
        let Size([_, height, width]) = self;
        let side = |side: i64| (side + 2 * padding - kernel) / stride.max(1) + 1;
        Size([channels, side(height), side(width)])
    }

    /// What a convolution makes of it.
    pub(crate) fn convolved(self, conv: &Conv) -> Size {
        self.moved(conv.outputs, conv.kernel, conv.stride, conv.padding())
    }

    fn numbers(self) -> i64 {
        self.0.iter().product()
    }
}

impl Plan {
    /// How many numbers are in memory at a time while one image goes through, at most: what a layer takes and what it gives.
    pub(crate) fn activations(&self, image: [i64; 3]) -> i64 {
        let mut size = Size(image);
        let mut most = size.numbers();
        for layer in &self.layers {
            let input = size.numbers();
            match layer {
                Layer::Conv(conv) => {
                    size = size.convolved(conv);
                    most = most.max(input + size.numbers());
                }
                &Layer::MaxPool {
                    kernel,
                    stride,
                    padding,
                } => {
                    size = size.moved(size.0[0], kernel, stride, padding);
                    most = most.max(input + size.numbers());
                }
                // The input stays for the shortcut.
                Layer::Residual { main, .. } => {
                    for conv in main {
                        let before = size.numbers();
                        size = size.convolved(conv);
                        most = most.max(input + before + size.numbers());
                    }
                }
                Layer::GlobalAveragePool => size.0 = [size.0[0], 1, 1],
                Layer::Flatten | Layer::Linear { .. } => {}
            }
        }
        most
    }
}

impl Conv {
    /// So many zeros go around the input.
    pub(crate) fn padding(&self) -> i64 {
        self.kernel / 2
    }

    fn tensors(&self, specs: &mut Vec<TensorSpec>) {
        let mut push = |name: String, shape: Vec<i64>| specs.push(TensorSpec { name, shape });
        let Conv {
            name,
            inputs,
            outputs,
            kernel,
            groups,
            ..
        } = self;
        push(
            format!("{name}.weight"),
            vec![*outputs, inputs / groups, *kernel, *kernel],
        );
        match &self.norm {
            None => push(format!("{name}.bias"), vec![*outputs]),
            Some(norm) => {
                for field in ["weight", "bias", "running_mean", "running_var"] {
                    push(format!("{norm}.{field}"), vec![*outputs]);
                }
            }
        }
    }
}

/// ResNet as torchvision builds it; `bottleneck` for 50 layers and more.
pub(crate) fn resnet(blocks: [i64; 4], bottleneck: bool, num_classes: i64) -> Plan {
    use Activation::{None as Linear, Relu};
    let conv = |name: String, norm: String, inputs, outputs, kernel, stride, activation| Conv {
        name,
        norm: Some(norm),
        inputs,
        outputs,
        kernel,
        stride,
        groups: 1,
        activation,
    };
    let expansion = if bottleneck { 4 } else { 1 };
    let mut layers = vec![
        Layer::Conv(conv("conv1".into(), "bn1".into(), 3, 64, 7, 2, Relu)),
        Layer::MaxPool {
            kernel: 3,
            stride: 2,
            padding: 1,
        },
    ];
    let mut inputs = 64;
    for (stage, (count, width)) in blocks.into_iter().zip([64, 128, 256, 512]).enumerate() {
        for block in 0..count {
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let at = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let outputs = width * expansion;
            let main = if bottleneck {
                vec![
                    conv(at("conv1"), at("bn1"), inputs, width, 1, 1, Relu),
                    conv(at("conv2"), at("bn2"), width, width, 3, stride, Relu),
                    conv(at("conv3"), at("bn3"), width, outputs, 1, 1, Linear),
                ]
            } else {
                vec![
                    conv(at("conv1"), at("bn1"), inputs, width, 3, stride, Relu),
                    conv(at("conv2"), at("bn2"), width, width, 3, 1, Linear),
                ]
            };
            let shortcut = (stride != 1 || inputs != outputs).then(|| {
                conv(
                    at("downsample.0"),
                    at("downsample.1"),
                    inputs,
                    outputs,
                    1,
                    stride,
                    Linear,
                )
            });
            layers.push(Layer::Residual {
                main,
                shortcut,
                activation: Relu,
            });
            inputs = outputs;
        }
    }
    layers.extend([
        Layer::GlobalAveragePool,
        Layer::Flatten,
        Layer::Linear {
            name: "fc".into(),
            inputs,
            outputs: num_classes,
            activation: Linear,
        },
    ]);
    Plan { layers }
}

/// MobileNetV2 as torchvision builds it, width 1.0.
pub(crate) fn mobilenet_v2(num_classes: i64) -> Plan {
    use Activation::{None as Linear, Relu6};
    let conv = |name: String, norm: String, inputs, outputs, kernel, stride, groups, activation| Conv {
        name,
        norm: Some(norm),
        inputs,
        outputs,
        kernel,
        stride,
        groups,
        activation,
    };
    let mut layers = vec![Layer::Conv(conv(
        "features.0.0".into(),
        "features.0.1".into(),
        3,
        32,
        3,
        2,
        1,
        Relu6,
    ))];
    let mut inputs = 32;
    let mut index = 1;
    // Expansion, output channels, blocks, stride of the first block: table 2 of the MobileNetV2 paper.
    for (expansion, outputs, blocks, first_stride) in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ] {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let at = |part: &str| format!("features.{index}.conv.{part}");
            let hidden = inputs * expansion;
            let main = if expansion == 1 {
                vec![
                    conv(at("0.0"), at("0.1"), hidden, hidden, 3, stride, hidden, Relu6),
                    conv(at("1"), at("2"), hidden, outputs, 1, 1, 1, Linear),
                ]
            } else {
                vec![
                    conv(at("0.0"), at("0.1"), inputs, hidden, 1, 1, 1, Relu6),
                    conv(at("1.0"), at("1.1"), hidden, hidden, 3, stride, hidden, Relu6),
                    conv(at("2"), at("3"), hidden, outputs, 1, 1, 1, Linear),
                ]
            };
            if stride == 1 && inputs == outputs {
                layers.push(Layer::Residual {
                    main,
                    shortcut: None,
                    activation: Linear,
                });
            } else {
                layers.extend(main.into_iter().map(Layer::Conv));
            }
            inputs = outputs;
            index += 1;
        }
    }
    layers.extend([
        Layer::Conv(conv(
            "features.18.0".into(),
            "features.18.1".into(),
            inputs,
            1280,
            1,
            1,
            1,
            Relu6,
        )),
        Layer::GlobalAveragePool,
        Layer::Flatten,
        Layer::Linear {
            name: "classifier.1".into(),
            inputs: 1280,
            outputs: num_classes,
            activation: Linear,
        },
    ]);
    Plan { layers }
}

/// The small network shipped with the image-classification example: three convolutions and two linear layers on 32x32 greyscale images.
pub(crate) fn digits_cnn(num_classes: i64) -> Plan {
    use Activation::{None as Linear, Relu};
    let mut layers = Vec::new();
    for (name, inputs, outputs) in [("conv1", 1, 16), ("conv2", 16, 32), ("conv3", 32, 32)] {
        layers.push(Layer::Conv(Conv {
            name: name.into(),
            norm: None,
            inputs,
            outputs,
            kernel: 3,
            stride: 1,
            groups: 1,
            activation: Relu,
        }));
        layers.push(Layer::MaxPool {
            kernel: 2,
            stride: 2,
            padding: 0,
        });
    }
    layers.extend([
        Layer::Flatten,
        Layer::Linear {
            name: "fc1".into(),
            inputs: 512,
            outputs: 64,
            activation: Relu,
        },
        Layer::Linear {
            name: "fc2".into(),
            inputs: 64,
            outputs: num_classes,
            activation: Linear,
        },
    ]);
    Plan { layers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(plan: &Plan) -> i64 {
        plan.tensors()
            .iter()
            .map(|spec| spec.shape.iter().product::<i64>())
            .sum()
    }

    /// The widest point of each network, by hand: a layer's input and output, and what waits for the shortcut.
    #[test]
    fn activations_are_those_of_the_widest_point() {
        let resnet18 = resnet([2, 2, 2, 2], false, 1000);
        assert_eq!(resnet18.activations([3, 224, 224]), 64 * 112 * 112 + 64 * 56 * 56);
        // The second block widens 16 channels of 112x112 to 96, and takes them to 56x56.
        let mobilenet = mobilenet_v2(1000);
        assert_eq!(
            mobilenet.activations([3, 224, 224]),
            96 * 112 * 112 + 96 * 56 * 56
        );
        let digits = digits_cnn(10);
        assert_eq!(digits.activations([1, 32, 32]), 16 * 32 * 32 + 16 * 16 * 16);
    }

    #[test]
    fn plans_have_the_published_number_of_parameters() {
        // torchvision's parameter counts, plus two running statistics for each normalized channel.
        assert_eq!(
            numbers(&resnet([2, 2, 2, 2], false, 1000)),
            11_689_512 + 2 * 4_800
        );
        assert_eq!(
            numbers(&resnet([3, 4, 6, 3], true, 1000)),
            25_557_032 + 2 * 26_560
        );
        assert_eq!(numbers(&mobilenet_v2(1000)), 3_504_872 + 2 * 17_056);
        assert_eq!(numbers(&digits_cnn(10)), 160 + 4_640 + 9_248 + 32_832 + 650);
    }
}
