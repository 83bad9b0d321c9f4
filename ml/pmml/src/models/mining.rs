//! `MiningModel`: ensembles and chains of models.

use std::sync::Arc;

use super::links::simplemax;
use super::{Answer, Context, Function, Model, Precision, check, find};
use crate::compiler::Compiler;
use crate::error::{EvaluateError, ParseError};
use crate::expression::median;
use crate::frame::Frame;
use crate::outcome::{Outcome, best, class};
use crate::predicate::{self, Predicate};
use crate::value::Value;
use crate::xml::Element;

/// How the predictions of models become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    MajorityVote,
    WeightedMajorityVote,
    Average,
    WeightedAverage,
    Median,
    WeightedMedian,
    Max,
    Sum,
    WeightedSum,
    SelectFirst,
    SelectAll,
    Chain,
}

const METHODS: &[(&str, Method)] = &[
    ("majorityVote", Method::MajorityVote),
    ("weightedMajorityVote", Method::WeightedMajorityVote),
    ("average", Method::Average),
    ("weightedAverage", Method::WeightedAverage),
    ("median", Method::Median),
    ("weightedMedian", Method::WeightedMedian),
    ("max", Method::Max),
    ("sum", Method::Sum),
    ("weightedSum", Method::WeightedSum),
    ("selectFirst", Method::SelectFirst),
    ("selectAll", Method::SelectAll),
    ("modelChain", Method::Chain),
];

/// What becomes of a model without a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingPrediction {
    Continue,
    Skip,
    Return,
}

/// A model in another one.
#[derive(Debug)]
pub struct Segment {
    pub id: Arc<str>,
    weight: f64,
    predicate: Predicate,
    pub model: Model,
    /// Where its classes are among those of all.
    places: Vec<usize>,
}

/// An ensemble, or a chain.
#[derive(Debug)]
pub struct Mining {
    segments: Vec<Segment>,
    method: Method,
    function: Function,
    missing: MissingPrediction,
    threshold: f64,
    classes: Vec<Value>,
    precision: Precision,
}

/// What all segments gave.
#[derive(Debug)]
pub struct Run {
    pub outcome: Outcome,
    /// By segment; none of those that were not asked.
    pub answers: Vec<Option<Answer>>,
    /// What rows get of them.
    pub outputs: Vec<(Arc<str>, Value)>,
}

/// Compiles a `MiningModel`; its classes are those of its segments.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<(Mining, Vec<Value>), ParseError> {
    check(element, &[], &["Segmentation"])?;
    let segmentation = element.need_child("Segmentation")?;
    segmentation.check(
        &[
            "multipleModelMethod",
            "missingPredictionTreatment",
            "missingThreshold",
            "x-missingPredictionTreatment",
            "x-missingThreshold",
        ],
        &["Segment"],
    )?;
    segmentation.need("multipleModelMethod")?;
    let method = segmentation
        .one_of("multipleModelMethod", METHODS)?
        .unwrap_or(Method::Chain);
    let treatments = [
        ("continue", MissingPrediction::Continue),
        ("skipSegment", MissingPrediction::Skip),
        ("returnMissing", MissingPrediction::Return),
    ];
    let (mut treatment, mut threshold) = (None, None);
    for prefix in ["", "x-"] {
        let name = format!("{prefix}missingPredictionTreatment");
        treatment = treatment.or(segmentation.one_of(&name, &treatments)?);
        threshold = threshold.or(segmentation.number_of(&format!("{prefix}missingThreshold"))?);
    }
    let mut mining = Mining {
        segments: Vec::new(),
        method,
        function: context.function,
        missing: treatment.unwrap_or(MissingPrediction::Continue),
        threshold: threshold.unwrap_or(1.0),
        classes: Vec::new(),
        precision: context.precision,
    };
    let numbers = matches!(method, Method::Sum | Method::WeightedSum | Method::WeightedMedian);
    let votes = matches!(method, Method::MajorityVote | Method::WeightedMajorityVote);
    if (numbers && mining.function == Function::Classification)
        || (votes && mining.function == Function::Regression)
    {
        let found = segmentation.need("multipleModelMethod")?;
        let expected = format!("a method of a {}", element.need("functionName")?);
        return Err(segmentation.value("multipleModelMethod", found, expected));
    }
    for (number, segment) in segmentation.all("Segment").enumerate() {
        let segment = compiler.deeper(segment, |compiler| {
            mining.segment(compiler, segment, number, context)
        })?;
        mining.segments.push(segment);
    }
    if mining.segments.is_empty() {
        return Err(segmentation.missing("element `Segment`"));
    }
    let classes = mining.classes.clone();
    Ok((mining, classes))
}

impl Mining {
    fn segment<'d>(
        &mut self,
        compiler: &mut Compiler<'d>,
        element: Element<'d>,
        number: usize,
        context: &Context,
    ) -> Result<Segment, ParseError> {
        let children = [&predicate::KINDS[..], &super::KINDS[..]].concat();
        element.check(&["id", "weight"], &children)?;
        let predicate = Predicate::find(compiler, context.scope, element)?;
        let inside = find(element).ok_or_else(|| element.missing("model"))?;
        let model = Model::parse(compiler, inside, Some(context))?;
        let alone = matches!(self.method, Method::Chain | Method::SelectAll);
        if model.function != self.function && !alone {
            return Err(inside.value(
                "functionName",
                inside.need("functionName")?,
                "that of the MiningModel around",
            ));
        }
        if let Some(output) = inside.child("Output").filter(|_| self.method == Method::Chain) {
            for (field, (_, slot)) in output.all("OutputField").zip(model.output_slots()) {
                compiler.name(context.scope, field.need("name")?, slot);
            }
        }
        let places = match model.function == self.function {
            true => model
                .classes
                .iter()
                .map(|value| class(&mut self.classes, value.clone()))
                .collect(),
            false => Vec::new(),
        };
        Ok(Segment {
            id: element
                .get("id")
                .map_or_else(|| (number + 1).to_string().into(), Into::into),
            weight: element.number_of("weight")?.unwrap_or(1.0),
            predicate,
            model,
            places,
        })
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether rows get what the segments' output fields give.
    fn shows_segments(&self) -> bool {
        matches!(
            self.method,
            Method::Chain | Method::SelectFirst | Method::SelectAll
        )
    }

    /// The output fields of segments that rows get.
    pub fn output_names(&self) -> Vec<(Arc<str>, bool)> {
        let mut names: Vec<(Arc<str>, bool)> = Vec::new();
        for segment in self.segments.iter().filter(|_| self.shows_segments()) {
            for (name, is_final) in segment.model.output_names() {
                if names.iter().all(|(known, _)| *known != name) {
                    names.push((name, is_final));
                }
            }
        }
        names
    }

    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Run, EvaluateError> {
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            if segment.predicate.evaluate(frame)? != Some(true) {
                answers.push(None);
                continue;
            }
            answers.push(Some(segment.model.run(frame)?));
            if self.method == Method::SelectFirst {
                break;
            }
        }
        let mut outputs = Vec::new();
        if self.shows_segments() {
            for answer in answers.iter_mut().flatten() {
                outputs.append(&mut answer.outputs);
            }
        }
        Ok(Run {
            outcome: self.combine(&answers),
            answers,
            outputs,
        })
    }

    fn combine(&self, answers: &[Option<Answer>]) -> Outcome {
        let mut asked = self.segments.iter().zip(answers).filter_map(|(segment, answer)| {
            let outcome = &answer.as_ref()?.outcome;
            Some((segment, outcome))
        });
        match self.method {
            Method::SelectAll => return Outcome::default(),
            Method::SelectFirst => return asked.next().map_or_else(Outcome::default, |one| self.of(one)),
            Method::Chain => {
                return asked
                    .next_back()
                    .map_or_else(Outcome::default, |one| self.of(one));
            }
            _ => {}
        }
        let all: Vec<(&Segment, &Outcome)> = asked.collect();
        let is_missing = |(_, outcome): &&(&Segment, &Outcome)| outcome.value.is_missing();
        let missing: f64 = all
            .iter()
            .filter(is_missing)
            .map(|(segment, _)| self.weight(segment))
            .sum();
        let total: f64 = all.iter().map(|(segment, _)| self.weight(segment)).sum();
        let votes = matches!(self.method, Method::MajorityVote | Method::WeightedMajorityVote);
        let stop = match self.missing {
            MissingPrediction::Return => missing > 0.0,
            MissingPrediction::Skip => missing / total > self.threshold,
            // It has a vote, too.
            MissingPrediction::Continue => missing > 0.0 && !votes,
        };
        if stop {
            return Outcome::default();
        }
        let known: Vec<(&Segment, &Outcome)> = all.iter().copied().filter(|one| !is_missing(&one)).collect();
        if known.is_empty() {
            return Outcome::default();
        }
        match self.function {
            Function::Regression => self.numbers(&known),
            Function::Classification if votes => {
                let against = match self.missing {
                    MissingPrediction::Continue => missing,
                    MissingPrediction::Skip | MissingPrediction::Return => 0.0,
                };
                self.votes(&known, against)
            }
            Function::Classification => self.probabilities(&known),
        }
    }

    /// An outcome of a segment, with all classes.
    fn of(&self, (segment, outcome): (&Segment, &Outcome)) -> Outcome {
        Outcome {
            value: outcome.value.clone(),
            probabilities: self.spread(segment, &outcome.probabilities),
            confidences: self.spread(segment, &outcome.confidences),
            entity: outcome.entity.clone(),
        }
    }

    /// Shares of a segment's classes as shares of all classes.
    fn spread(&self, segment: &Segment, shares: &[f64]) -> Vec<f64> {
        if shares.is_empty() {
            return Vec::new();
        }
        let mut all = vec![0.0; self.classes.len()];
        for (place, share) in segment.places.iter().zip(shares) {
            all[*place] = *share;
        }
        all
    }

    fn weight(&self, segment: &Segment) -> f64 {
        match self.method {
            Method::WeightedMajorityVote
            | Method::WeightedAverage
            | Method::WeightedMedian
            | Method::WeightedSum => segment.weight,
            _ => 1.0,
        }
    }

    fn numbers(&self, known: &[(&Segment, &Outcome)]) -> Outcome {
        let round = |number| self.precision.round(number);
        let numbers = known.iter().map(|(segment, outcome)| {
            let number = outcome.value.as_f64().unwrap_or(f64::NAN);
            (round(number), self.weight(segment))
        });
        let sum =
            |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0, |sum, number| round(sum + number));
        let number = match self.method {
            Method::Median => median(numbers.map(|(number, _)| number).collect()),
            Method::WeightedMedian => weighted_median(numbers.collect()),
            Method::Max => numbers
                .map(|(number, _)| number)
                .fold(f64::NEG_INFINITY, f64::max),
            Method::Sum | Method::WeightedSum => {
                sum(&mut numbers.map(|(number, weight)| round(number * weight)))
            }
            _ => {
                let weights: f64 = sum(&mut numbers.clone().map(|(_, weight)| weight));
                sum(&mut numbers.map(|(number, weight)| round(number * weight))) / weights
            }
        };
        Outcome::of(Value::Double(round(number)))
    }

    /// Each segment has a vote for its class; those against have one for none. Of classes with as many votes the first that got one
    /// wins.
    fn votes(&self, known: &[(&Segment, &Outcome)], against: f64) -> Outcome {
        let mut votes = vec![0.0; self.classes.len()];
        let mut order = Vec::new();
        for (segment, outcome) in known {
            if let Some(place) = self.classes.iter().position(|class| class.same(&outcome.value)) {
                votes[place] += self.weight(segment);
                order.push(place);
            }
        }
        let in_order: Vec<f64> = order.iter().map(|place| votes[*place]).collect();
        let winner = match best(&in_order) {
            Some(first) if in_order[first] >= against => order[first],
            _ => return Outcome::default(),
        };
        simplemax(&mut votes, Precision::Double);
        Outcome {
            value: self.classes[winner].clone(),
            probabilities: votes,
            ..Outcome::default()
        }
    }

    fn probabilities(&self, known: &[(&Segment, &Outcome)]) -> Outcome {
        let all: Vec<(f64, Vec<f64>)> = known
            .iter()
            .map(|(segment, outcome)| (self.weight(segment), self.spread(segment, &outcome.probabilities)))
            .filter(|(_, shares)| !shares.is_empty())
            .collect();
        if all.len() < known.len() {
            return Outcome::default();
        }
        let of = |class: usize| all.iter().map(move |(_, shares)| shares[class]);
        let classes = 0..self.classes.len();
        let chosen: Vec<f64> = match self.method {
            Method::Max => classes
                .map(|class| of(class).fold(f64::NEG_INFINITY, f64::max))
                .collect(),
            Method::Median => classes.map(|class| median(of(class).collect())).collect(),
            _ => return Outcome::most_probable(&self.classes, average(self.classes.len(), all.iter())),
        };
        // The models that gave the winner what it has, or what is nearest to it, say what all classes have.
        let Some(winner) = best(&chosen) else {
            return Outcome::default();
        };
        let distance = |shares: &[f64]| (shares[winner] - chosen[winner]).abs();
        let nearest = all
            .iter()
            .map(|(_, shares)| distance(shares))
            .fold(f64::INFINITY, f64::min);
        let by = all.iter().filter(|(_, shares)| distance(shares) == nearest);
        Outcome::most_probable(&self.classes, average(self.classes.len(), by))
    }
}

fn average<'a>(classes: usize, all: impl Iterator<Item = &'a (f64, Vec<f64>)>) -> Vec<f64> {
    let mut shares = vec![0.0; classes];
    let mut weights = 0.0;
    for (weight, own) in all {
        weights += weight;
        for (share, own) in shares.iter_mut().zip(own) {
            *share += weight * own;
        }
    }
    for share in &mut shares {
        *share /= weights;
    }
    shares
}

/// The first number below and above which stands at most half of the weight.
fn weighted_median(mut numbers: Vec<(f64, f64)>) -> f64 {
    numbers.sort_by(|left, right| left.0.total_cmp(&right.0));
    let total: f64 = numbers.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    for (number, weight) in &numbers {
        below += weight;
        if below * 2.0 >= total {
            return *number;
        }
    }
    numbers.last().map_or(f64::NAN, |(number, _)| *number)
}
