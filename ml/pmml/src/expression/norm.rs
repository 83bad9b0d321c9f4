//! Piecewise linear functions.

use crate::error::ParseError;
use crate::xml::Element;

#[derive(Debug, Clone, Copy)]
enum Outliers {
    /// The first and the last piece go on.
    AsIs,
    Missing,
    /// The first and the last value go on.
    Extreme,
}

/// Numbers at some points, and between them on a line.
#[derive(Debug, Clone)]
pub struct Norm {
    /// In order of the first number.
    points: Vec<(f64, f64)>,
    outliers: Outliers,
}

impl Norm {
    /// Reads a `NormContinuous`.
    pub fn parse(element: Element<'_>) -> Result<Norm, ParseError> {
        element.check(&["field", "mapMissingTo", "outliers"], &["LinearNorm"])?;
        let points = element.all("LinearNorm").map(|point| {
            point.check(&["orig", "norm"], &[])?;
            Ok((point.need_number("orig")?, point.need_number("norm")?))
        });
        let points: Vec<_> = points.collect::<Result<_, ParseError>>()?;
        if points.len() < 2 {
            return Err(element.missing("two elements `LinearNorm`"));
        }
        if !points.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(element.wrong("has elements `LinearNorm` that are not in order of `orig`"));
        }
        let words = [
            ("asIs", Outliers::AsIs),
            ("asMissingValues", Outliers::Missing),
            ("asExtremeValues", Outliers::Extreme),
        ];
        Ok(Norm {
            points,
            outliers: element.one_of("outliers", &words)?.unwrap_or(Outliers::AsIs),
        })
    }

    /// None of what is out of range where that is missing.
    pub fn apply(&self, number: f64) -> Option<f64> {
        let first = self.points[0];
        let last = self.points[self.points.len() - 1];
        let outlier = number < first.0 || number > last.0;
        match self.outliers {
            Outliers::Missing if outlier => return None,
            Outliers::Extreme if number < first.0 => return Some(first.1),
            Outliers::Extreme if number > last.0 => return Some(last.1),
            _ => {}
        }
        let piece = self.points.partition_point(|(from, _)| *from <= number);
        let piece = piece.clamp(1, self.points.len() - 1);
        Some(between(self.points[piece - 1], self.points[piece], number))
    }

    /// The number that this one was made of. Of several the first; what is out of range is on the first or last piece.
    pub fn invert(&self, number: f64) -> f64 {
        let swap = |(from, to): (f64, f64)| (to, from);
        let mut pieces = self.points.windows(2);
        let within = pieces.position(|pair| {
            let (low, high) = (pair[0].1.min(pair[1].1), pair[0].1.max(pair[1].1));
            low <= number && number <= high
        });
        let last = self.points.len() - 2;
        let piece = within.unwrap_or_else(|| {
            let rising = self.points[last + 1].1 > self.points[0].1;
            let above = number > self.points[last + 1].1.max(self.points[0].1);
            if rising == above { last } else { 0 }
        });
        between(swap(self.points[piece]), swap(self.points[piece + 1]), number)
    }
}

fn between(left: (f64, f64), right: (f64, f64), at: f64) -> f64 {
    left.1 + (at - left.0) / (right.0 - left.0) * (right.1 - left.1)
}
