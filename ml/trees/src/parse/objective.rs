//! What the model was trained for, which says how raw scores become predictions.

use super::text::Value;
use crate::error::ParseError;

/// From raw scores to predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Objective {
    /// The score itself: most regressions, ranking, objectives of one's own.
    Identity,
    /// The square with the score's sign: regression on square roots.
    SignedSquare,
    /// The exponential: poisson, gamma, tweedie.
    Exp,
    /// The logistic function of the score times this: binary classification, cross entropy, one against all others.
    Sigmoid(f64),
    /// The softmax over the classes.
    Softmax,
    /// The logarithm of 1 and the exponential: cross entropy with weights of its own.
    LogOnePlusExp,
}

impl Objective {
    /// Reads `objective=`, for a model with this many raw scores.
    pub fn parse(value: Value<'_>, scores: usize) -> Result<Objective, ParseError> {
        let name = value.words().next().unwrap_or("");
        let single = |objective| match scores {
            1 => Ok(objective),
            _ => Err(value.error(
                name,
                format!("an objective of many classes, as an iteration has {scores} trees"),
            )),
        };
        match name {
            "regression"
            | "regression_l2"
            | "l2"
            | "mean_squared_error"
            | "mse"
            | "l2_root"
            | "root_mean_squared_error"
            | "rmse"
            | "regression_l1"
            | "l1"
            | "mean_absolute_error"
            | "mae"
            | "fair"
            | "quantile"
            | "mape"
            | "mean_absolute_percentage_error" => {
                let square = value.words().any(|word| word == "sqrt");
                single(if square {
                    Objective::SignedSquare
                } else {
                    Objective::Identity
                })
            }
            "huber" => single(Objective::Identity),
            "lambdarank" | "rank_xendcg" | "xendcg" | "xe_ndcg" | "xe_ndcg_mart" | "xendcg_mart" => {
                single(Objective::Identity)
            }
            "poisson" | "gamma" | "tweedie" => single(Objective::Exp),
            "binary" => single(Objective::Sigmoid(sigmoid(value)?)),
            "cross_entropy" | "xentropy" => single(Objective::Sigmoid(1.0)),
            "cross_entropy_lambda" | "xentlambda" => single(Objective::LogOnePlusExp),
            "multiclass" | "softmax" => {
                check_classes(value, scores)?;
                Ok(Objective::Softmax)
            }
            "multiclassova" | "multiclass_ova" | "ova" | "ovr" => {
                check_classes(value, scores)?;
                Ok(Objective::Sigmoid(sigmoid(value)?))
            }
            "custom" | "none" | "null" | "na" => Ok(Objective::Identity),
            other => Err(value.error(
                other,
                "an objective of LightGBM, such as `regression` or `binary`",
            )),
        }
    }

    /// Makes predictions of the raw scores of one row.
    pub fn apply(self, scores: &mut [f64]) {
        match self {
            Objective::Identity => {}
            Objective::SignedSquare => each(scores, |score| {
                // The sign of NaN is 0 there, too, and NaN times it NaN.
                let sign = f64::from(i8::from(score > 0.0) - i8::from(score < 0.0));
                sign * score * score
            }),
            Objective::Exp => each(scores, f64::exp),
            Objective::Sigmoid(slope) => each(scores, |score| 1.0 / (1.0 + (-slope * score).exp())),
            Objective::LogOnePlusExp => each(scores, |score| score.exp().ln_1p()),
            Objective::Softmax => {
                let largest = scores.iter().copied().reduce(larger).unwrap_or(0.0);
                let mut sum = 0.0;
                for score in scores.iter_mut() {
                    *score = (*score - largest).exp();
                    sum += *score;
                }
                each(scores, |score| score / sum);
            }
        }
    }
}

fn each(scores: &mut [f64], function: impl Fn(f64) -> f64) {
    for score in scores {
        *score = function(*score);
    }
}

fn larger(left: f64, right: f64) -> f64 {
    if right < left { left } else { right }
}

/// `sigmoid:0.7`
fn sigmoid(value: Value<'_>) -> Result<f64, ParseError> {
    let text = parameter(value, "sigmoid:").unwrap_or("");
    match text.parse::<f64>() {
        Ok(slope) if slope > 0.0 => Ok(slope),
        _ => Err(value.error(value.text, "`sigmoid:` with a number of more than 0")),
    }
}

/// `num_class:3`
fn check_classes(value: Value<'_>, scores: usize) -> Result<(), ParseError> {
    let text = parameter(value, "num_class:").unwrap_or("");
    match text.parse::<usize>() {
        Ok(classes) if classes == scores => Ok(()),
        _ => Err(value.error(
            value.text,
            format!("`num_class:{scores}`, as an iteration has so many trees"),
        )),
    }
}

fn parameter<'a>(value: Value<'a>, name: &str) -> Option<&'a str> {
    value.words().find_map(|word| word.strip_prefix(name))
}
