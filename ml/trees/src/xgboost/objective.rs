//! What the model was trained for, which says how margins become predictions, all in single precision as XGBoost has it.

/// From margins to predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The margin itself.
    Identity,
    /// The logistic function.
    Sigmoid,
    /// The exponential.
    Exp,
    /// 1 for more than 0, else 0.
    Hinge,
    /// The softmax over the classes.
    Softmax,
    /// The first class of the largest margin.
    Class,
}

impl Objective {
    /// By XGBoost's name; none if it has none.
    pub fn of(name: &str) -> Option<Objective> {
        Some(match name {
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "reg:expectileerror"
            | "binary:logitraw"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => Objective::Identity,
            "reg:logistic" | "binary:logistic" => Objective::Sigmoid,
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => Objective::Exp,
            "binary:hinge" => Objective::Hinge,
            "multi:softprob" => Objective::Softmax,
            "multi:softmax" => Objective::Class,
            _ => return None,
        })
    }

    /// The margin of a `base_score`, which the file tells as a prediction.
    pub fn margin(self, base_score: f32) -> f32 {
        match self {
            Objective::Sigmoid => -(1.0 / base_score - 1.0).ln(),
            Objective::Exp => base_score.ln(),
            _ => base_score,
        }
    }

    /// How many values a row of so many margins gives.
    pub fn width(self, margins: usize) -> usize {
        match self {
            Objective::Class => 1,
            _ => margins,
        }
    }

    /// Makes the predictions of a row of its margins.
    pub fn apply(self, margins: &[f32], out: &mut [f32]) {
        let mut each = |function: fn(f32) -> f32| {
            for (out, margin) in out.iter_mut().zip(margins) {
                *out = function(*margin);
            }
        };
        match self {
            Objective::Identity => each(|margin| margin),
            Objective::Sigmoid => each(sigmoid),
            Objective::Exp => each(f32::exp),
            Objective::Hinge => each(|margin| f32::from(u8::from(margin > 0.0))),
            Objective::Softmax => softmax(margins, out),
            Objective::Class => {
                let largest = (0..margins.len()).reduce(|best, class| {
                    // Of equal ones the first.
                    if margins[class] > margins[best] {
                        class
                    } else {
                        best
                    }
                });
                out.fill(largest.unwrap_or(0) as f32);
            }
        }
    }
}

fn sigmoid(margin: f32) -> f32 {
    // So far the exponential is finite, and what is added keeps it from being 0: both as XGBoost has it.
    let power = smaller(-margin, 88.7);
    1.0 / (power.exp() + 1.0 + 1e-16)
}

/// NaN on the left stays.
fn smaller(left: f32, right: f32) -> f32 {
    if right < left { right } else { left }
}

fn softmax(margins: &[f32], out: &mut [f32]) {
    let largest = margins.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f64;
    for (out, margin) in out.iter_mut().zip(margins) {
        *out = (margin - largest).exp();
        sum += f64::from(*out);
    }
    for out in out.iter_mut() {
        *out /= sum as f32;
    }
}
