//! Link functions and normalizations of regressions and networks.

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
    pub fn invert(self, x: f64) -> f64 {
        match self {
            Link::Identity => x,
            Link::Log => x.exp(),
            Link::Logc => 1.0 - x.exp(),
            Link::Logit => 1.0 / (1.0 + (-x).exp()),
            Link::Probit => standard_normal_cdf(x),
            Link::Cloglog => 1.0 - (-x.exp()).exp(),
            Link::Loglog => (-(-x).exp()).exp(),
            Link::Cauchit => 0.5 + x.atan() / std::f64::consts::PI,
            Link::Negbin(c) => 1.0 / (c * ((-x).exp() - 1.0)),
            Link::Oddspower(d) => match d == 0.0 {
                true => Link::Logit.invert(x),
                false => 1.0 / (1.0 + (1.0 + d * x).powf(-1.0 / d)),
            },
            Link::Power(d) => match d == 0.0 {
                true => x.exp(),
                false => x.powf(1.0 / d),
            },
        }
    }
}

/// Makes shares of numbers, by their exponentials.
pub fn softmax(numbers: &mut [f64]) {
    let largest = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for number in numbers.iter_mut() {
        *number = (*number - largest).exp();
    }
    simplemax(numbers);
}

/// Makes shares of numbers.
pub fn simplemax(numbers: &mut [f64]) {
    let sum: f64 = numbers.iter().sum();
    for number in numbers {
        *number /= sum;
    }
}
