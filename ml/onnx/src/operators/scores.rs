//! From a model's scores to probabilities and a class.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// What is made of scores: the attribute `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    None,
    Softmax,
    /// As `Softmax`, where scores of 0 stay 0.
    SoftmaxZero,
    Logistic,
}

impl Transform {
    pub fn read(node: &NodeProto) -> TractResult<Transform> {
        match node.get_attr_opt::<&str>("post_transform")? {
            None | Some("NONE") => Ok(Transform::None),
            Some("SOFTMAX") => Ok(Transform::Softmax),
            Some("SOFTMAX_ZERO") => Ok(Transform::SoftmaxZero),
            Some("LOGISTIC") => Ok(Transform::Logistic),
            Some(other) => bail!("its post_transform is {other}, which is not known here"),
        }
    }

    /// Of scores of several classes.
    pub fn apply(self, scores: &mut [f32]) {
        match self {
            Transform::None => {}
            Transform::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Transform::Softmax => softmax(scores, |_| true),
            Transform::SoftmaxZero => softmax(scores, |score| score.abs() > 1e-7),
        }
    }
}

fn softmax(scores: &mut [f32], takes_part: impl Fn(f32) -> bool) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = if takes_part(*score) {
            (*score - largest).exp()
        } else {
            0.0
        };
        sum += *score;
    }
    if sum > 0.0 {
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

pub fn logistic(score: f32) -> f32 {
    let of_magnitude = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 {
        1.0 - of_magnitude
    } else {
        of_magnitude
    }
}

/// The place of the largest, the first of equals. None of an empty list.
pub fn largest(scores: &[f32]) -> Option<usize> {
    let mut found: Option<(usize, f32)> = None;
    for (place, score) in scores.iter().enumerate() {
        if found.is_none_or(|(_, most)| *score > most) {
            found = Some((place, *score));
        }
    }
    found.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_probabilities() {
        let of = |transform: Transform, scores: [f32; 3]| {
            let mut scores = scores;
            transform.apply(&mut scores);
            scores
        };
        assert_eq!(of(Transform::None, [1.0, 2.0, 0.0]), [1.0, 2.0, 0.0]);
        assert_eq!(of(Transform::Logistic, [0.0, 200.0, -200.0]), [0.5, 1.0, 0.0]);
        let soft = of(Transform::Softmax, [1000.0, 1000.0, -1000.0]);
        assert_eq!(soft, [0.5, 0.5, 0.0]);
        assert_eq!(of(Transform::SoftmaxZero, [3.0, 3.0, 0.0]), [0.5, 0.5, 0.0]);
        assert_eq!(largest(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(largest(&[f32::NAN, 3.0]), Some(0));
    }
}
