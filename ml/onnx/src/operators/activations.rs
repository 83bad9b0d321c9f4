//! Activations of networks that are newer than tract's operators.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::{Fact, Kernel, only, tensor};

/// `Gelu`, of opset 20.
#[derive(Debug)]
pub struct Gelu {
    is_tanh: bool,
}

impl Gelu {
    pub fn read(node: &NodeProto) -> TractResult<Gelu> {
        let is_tanh = match node.get_attr_opt::<&str>("approximate")? {
            None | Some("none") => false,
            Some("tanh") => true,
            Some(other) => bail!("its attribute approximate is {other}, which is not known here"),
        };
        Ok(Gelu { is_tanh })
    }

    fn of(&self, x: f32) -> f32 {
        let share = match self.is_tanh {
            true => (std::f32::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x)).tanh(),
            false => libm::erff(x * std::f32::consts::FRAC_1_SQRT_2),
        };
        0.5 * x * (1.0 + share)
    }
}

impl Kernel for Gelu {
    fn name(&self) -> &'static str {
        "Gelu"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        match only(inputs)? {
            (DatumType::F32, shape) => Ok(tvec!((DatumType::F32, shape.clone()))),
            (other, _) => bail!("its input is {other:?}: F32 alone is known here"),
        }
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let Some(input) = inputs.first() else {
            bail!("it has no input")
        };
        let values = input.as_slice::<f32>()?.iter().map(|x| self.of(*x));
        Ok(tvec!(tensor(input.shape(), values.collect())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_what_torch_gives() {
        // torch.nn.functional.gelu(torch.tensor([-2., -0.5, 0., 0.5, 2.])), and with approximate='tanh'.
        for (is_tanh, expected) in [
            (
                false,
                [-0.045_500_26, -0.154_268_77, 0.0, 0.345_731_23, 1.954_499_7],
            ),
            (true, [-0.045_402_29, -0.154_286, 0.0, 0.345_714, 1.954_597_7]),
        ] {
            let gelu = Gelu { is_tanh };
            for (x, expected) in [-2.0, -0.5, 0.0, 0.5, 2.0].into_iter().zip(expected) {
                let found: f32 = gelu.of(x);
                assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
            }
        }
    }
}
