//! `TreeModel`.

use std::ops::Range;
use std::sync::Arc;

use super::{Context, Function, Precision, check};
use crate::compiler::Compiler;
use crate::error::{EvaluateError, ParseError};
use crate::frame::Frame;
use crate::outcome::{Outcome, best, class};
use crate::predicate::{self, Predicate};
use crate::value::{DataType, Value};
use crate::xml::Element;

/// Where a row goes that a predicate says nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Such a predicate is false.
    None,
    LastPrediction,
    NullPrediction,
    DefaultChild,
    WeightedConfidence,
    AggregateNodes,
}

/// A tree: its nodes, those of one parent side by side.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    classes: Vec<Value>,
    missing: Missing,
    /// A row that no child takes has the prediction of the last node.
    last_without_child: bool,
    penalty: f64,
}

#[derive(Debug)]
struct Node {
    predicate: Predicate,
    children: Range<usize>,
    default_child: Option<usize>,
    count: f64,
    id: Option<Arc<str>>,
    score: Value,
    /// By class, where the node tells of them.
    shares: Option<Shares>,
}

#[derive(Debug)]
struct Shares {
    counts: Vec<f64>,
    probabilities: Vec<f64>,
    confidences: Vec<f64>,
    /// Whether the document tells confidences; else they are 0.
    confident: bool,
}

/// Compiles a `TreeModel`; its classes are those that its nodes tell of.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<(Tree, Vec<Value>), ParseError> {
    let attributes = [
        "missingValueStrategy",
        "missingValuePenalty",
        "noTrueChildStrategy",
        "splitCharacteristic",
    ];
    check(element, &attributes, &["Node"])?;
    let strategies = [
        ("none", Missing::None),
        ("lastPrediction", Missing::LastPrediction),
        ("nullPrediction", Missing::NullPrediction),
        ("defaultChild", Missing::DefaultChild),
        ("weightedConfidence", Missing::WeightedConfidence),
        ("aggregateNodes", Missing::AggregateNodes),
    ];
    let missing = element
        .one_of("missingValueStrategy", &strategies)?
        .unwrap_or(Missing::None);
    let spread = matches!(missing, Missing::WeightedConfidence | Missing::AggregateNodes);
    if spread && context.function == Function::Regression {
        let found = element.need("missingValueStrategy")?;
        return Err(element.value("missingValueStrategy", found, "a strategy of regressions"));
    }
    let last = [("returnNullPrediction", false), ("returnLastPrediction", true)];
    let mut builder = Builder {
        context,
        tree: Tree {
            nodes: Vec::new(),
            classes: Vec::new(),
            missing,
            last_without_child: element.one_of("noTrueChildStrategy", &last)?.unwrap_or(false),
            penalty: element.number_of("missingValuePenalty")?.unwrap_or(1.0),
        },
    };
    builder.build(compiler, element.need_child("Node")?)?;
    let mut tree = builder.tree;
    if context.function == Function::Classification {
        for value in context.values.iter() {
            class(&mut tree.classes, value.clone());
        }
        tree.pad();
    }
    let classes = tree.classes.clone();
    Ok((tree, classes))
}

struct Builder<'c> {
    context: &'c Context,
    tree: Tree,
}

impl Builder<'_> {
    /// Adds all nodes: children come after their parents.
    fn build<'d>(&mut self, compiler: &mut Compiler<'d>, root: Element<'d>) -> Result<(), ParseError> {
        let mut elements = vec![root];
        let root = self.node(compiler, root)?;
        self.tree.nodes.push(root);
        let mut at = 0;
        while let Some(element) = elements.get(at).copied() {
            let first = self.tree.nodes.len();
            for child in element.all("Node") {
                let node = self.node(compiler, child)?;
                self.tree.nodes.push(node);
                elements.push(child);
            }
            let children = first..self.tree.nodes.len();
            let wanted = element.get("defaultChild");
            if let Some(id) = wanted.filter(|_| !children.is_empty()) {
                let named = |number: &usize| self.tree.nodes[*number].id.as_deref() == Some(id);
                let child = children.clone().find(named);
                let child = child.ok_or_else(|| element.value("defaultChild", id, "the id of a child"))?;
                self.tree.nodes[at].default_child = Some(child);
            }
            self.tree.nodes[at].children = children;
            at += 1;
        }
        Ok(())
    }

    fn node<'d>(&mut self, compiler: &mut Compiler<'d>, element: Element<'d>) -> Result<Node, ParseError> {
        let mut children = vec!["ScoreDistribution", "Partition", "Node"];
        children.extend(predicate::KINDS);
        element.check(&["id", "score", "recordCount", "defaultChild"], &children)?;
        let context = self.context;
        let score = match element.get("score") {
            None => Value::Missing,
            Some(text) if context.function == Function::Regression => {
                let number = DataType::Double.read(element, "score", text)?;
                number
                    .as_f64()
                    .map(|number| context.precision.round(number))
                    .into()
            }
            Some(text) => {
                let value = context.class(element, "score", text)?;
                class(&mut self.tree.classes, value.clone());
                value
            }
        };
        Ok(Node {
            predicate: Predicate::find(compiler, context.scope, element)?,
            children: 0..0,
            default_child: None,
            count: element.number_of("recordCount")?.unwrap_or(0.0),
            id: element.get("id").map(Into::into),
            score,
            shares: match context.function {
                Function::Regression => None,
                Function::Classification => self.shares(element)?,
            },
        })
    }

    fn shares(&mut self, element: Element<'_>) -> Result<Option<Shares>, ParseError> {
        let mut shares = Shares {
            counts: Vec::new(),
            probabilities: Vec::new(),
            confidences: Vec::new(),
            confident: false,
        };
        let (mut told, mut confident) = (false, false);
        for entry in element.all("ScoreDistribution") {
            entry.check(&["value", "recordCount", "confidence", "probability"], &[])?;
            let value = self.context.class(entry, "value", entry.need("value")?)?;
            let place = class(&mut self.tree.classes, value);
            for list in [
                &mut shares.counts,
                &mut shares.probabilities,
                &mut shares.confidences,
            ] {
                list.resize(self.tree.classes.len(), 0.0);
            }
            shares.counts[place] = entry.need_number("recordCount")?;
            if let Some(probability) = entry.number_of("probability")? {
                shares.probabilities[place] = probability;
                told = true;
            }
            if let Some(confidence) = entry.number_of("confidence")? {
                shares.confidences[place] = confidence;
                confident = true;
            }
        }
        if shares.counts.is_empty() {
            return Ok(None);
        }
        if !told {
            let sum: f64 = shares.counts.iter().sum();
            shares.probabilities = shares.counts.iter().map(|count| count / sum).collect();
        }
        shares.confident = confident;
        Ok(Some(shares))
    }
}

impl Tree {
    /// Nodes tell of some classes: of the others their share is 0.
    fn pad(&mut self) {
        for shares in self.nodes.iter_mut().filter_map(|node| node.shares.as_mut()) {
            for list in [
                &mut shares.counts,
                &mut shares.probabilities,
                &mut shares.confidences,
            ] {
                list.resize(self.classes.len(), 0.0);
            }
        }
    }

    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Outcome, EvaluateError> {
        let mut at = 0;
        let mut penalty = 1.0;
        match (self.nodes[0].predicate.evaluate(frame)?, self.missing) {
            (Some(true), _) => {}
            (None, Missing::DefaultChild) => penalty *= self.penalty,
            _ => return Ok(Outcome::default()),
        }
        loop {
            let node = &self.nodes[at];
            if node.children.is_empty() {
                return Ok(self.outcome(node, penalty));
            }
            let mut next = None;
            for child in node.children.clone() {
                match self.nodes[child].predicate.evaluate(frame)? {
                    Some(true) => next = Some(child),
                    Some(false) => continue,
                    None => match self.missing {
                        Missing::None => continue,
                        Missing::LastPrediction => return Ok(self.outcome(node, penalty)),
                        Missing::NullPrediction => return Ok(Outcome::default()),
                        Missing::DefaultChild => {
                            penalty *= self.penalty;
                            match node.default_child {
                                Some(child) => next = Some(child),
                                None => return Ok(Outcome::default()),
                            }
                        }
                        Missing::WeightedConfidence | Missing::AggregateNodes => {
                            return self.spread(at, frame);
                        }
                    },
                }
                break;
            }
            match next {
                Some(child) => at = child,
                None if self.last_without_child => return Ok(self.outcome(node, penalty)),
                None => return Ok(Outcome::default()),
            }
        }
    }

    fn outcome(&self, node: &Node, penalty: f64) -> Outcome {
        let mut outcome = Outcome::of(node.score.clone());
        outcome.entity.clone_from(&node.id);
        if let Some(shares) = &node.shares {
            outcome.probabilities.clone_from(&shares.probabilities);
            outcome.confidences.clone_from(&shares.confidences);
            for confidence in &mut outcome.confidences {
                *confidence *= penalty;
            }
            if outcome.value.is_missing() {
                let best = best(&shares.probabilities).and_then(|best| self.classes.get(best));
                outcome.value = best.cloned().unwrap_or_default();
            }
        }
        outcome
    }

    /// The outcome of all nodes that a row may belong to, from one on whose children are not known.
    fn spread(&self, start: usize, frame: &mut Frame<'_>) -> Result<Outcome, EvaluateError> {
        let mut totals = vec![0.0; self.classes.len()];
        let mut open = vec![(start, 1.0)];
        while let Some((at, weight)) = open.pop() {
            let node = &self.nodes[at];
            let mut possible = Vec::new();
            for child in node.children.clone() {
                match self.nodes[child].predicate.evaluate(frame)? {
                    Some(false) => {}
                    Some(true) if possible.is_empty() => {
                        possible.push(child);
                        break;
                    }
                    Some(true) | None => possible.push(child),
                }
            }
            if possible.is_empty() {
                if node.children.is_empty() || self.last_without_child {
                    self.add(node, weight, &mut totals);
                }
                continue;
            }
            let sum: f64 = possible.iter().map(|child| self.nodes[*child].count).sum();
            for child in possible {
                open.push((child, weight * self.nodes[child].count / sum));
            }
        }
        if self.missing == Missing::AggregateNodes {
            super::links::simplemax(&mut totals, Precision::Double);
        }
        Ok(Outcome::most_probable(&self.classes, totals))
    }

    fn add(&self, node: &Node, weight: f64, totals: &mut [f64]) {
        let Some(shares) = &node.shares else { return };
        let aggregate = self.missing == Missing::AggregateNodes;
        let own = match (aggregate, shares.confident) {
            (true, _) => &shares.counts,
            (false, true) => &shares.confidences,
            (false, false) => &shares.probabilities,
        };
        let weight = if aggregate { 1.0 } else { weight };
        for (total, own) in totals.iter_mut().zip(own) {
            *total += weight * own;
        }
    }
}
