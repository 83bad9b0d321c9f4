//! Link functions and normalizations of regressions and networks.

use super::Precision;
use crate::expression::standard_normal_cdf;

/// From a linear predictor to a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    Identity,
    Log,
    Logc,
    Logit,
    Probit,
    Cloglog,
    Loglog,
    Cauchit,
    /// With its parameter.
    Negbin(f64),
    Oddspower(f64),
    Power(f64),
}

impl Link {
    /// In single precision each step of the logistic function is rounded, as it is the one that boosted models have.
    pub fn invert(self, x: f64, precision: Precision) -> f64 {
        let round = |number| precision.round(number);
        round(match self {
            Link::Identity => x,
            Link::Log => x.exp(),
            Link::Logc => 1.0 - x.exp(),
            Link::Logit => 1.0 / round(1.0 + round((-x).exp())),
            Link::Probit => standard_normal_cdf(x),
            Link::Cloglog => 1.0 - (-x.exp()).exp(),
            Link::Loglog => (-(-x).exp()).exp(),
            Link::Cauchit => 0.5 + x.atan() / std::f64::consts::PI,
            Link::Negbin(c) => 1.0 / (c * ((-x).exp() - 1.0)),
            Link::Oddspower(d) => match d == 0.0 {
                true => Link::Logit.invert(x, precision),
                false => 1.0 / (1.0 + (1.0 + d * x).powf(-1.0 / d)),
            },
            Link::Power(d) => match d == 0.0 {
                true => x.exp(),
                false => x.powf(1.0 / d),
            },
        })
    }
}

/// Makes shares of numbers, by their exponentials.
pub fn softmax(numbers: &mut [f64], precision: Precision) {
    let largest = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for number in numbers.iter_mut() {
        *number = precision.round(precision.round(*number - largest).exp());
    }
    simplemax(numbers, precision);
}

/// Makes shares of numbers.
pub fn simplemax(numbers: &mut [f64], precision: Precision) {
    let sum = numbers
        .iter()
        .fold(0.0, |sum, number| precision.round(sum + number));
    for number in numbers {
        *number = precision.round(*number / sum);
    }
}
