//! XGBoost's JSON and UBJSON, read and checked.

use purlin_json::{Fault, Reader};

use super::error::{ParseError, Part};
use super::objective::Objective;
use super::tree;
use crate::forest::FEATURES;
use crate::parse::ParsedTree;

/// A model file, read and checked.
#[derive(Debug)]
pub struct Parsed {
    pub version: String,
    pub objective: Objective,
    pub features: usize,
    /// Empty where the file has none.
    pub feature_names: Vec<String>,
    pub booster: Booster,
    /// What each row's margins begin with.
    pub base: Vec<f32>,
    pub best_iteration: Option<usize>,
}

/// What gives the margins.
#[derive(Debug)]
pub enum Booster {
    Trees {
        trees: Vec<ParsedTree>,
        /// By tree: to which margin it adds.
        groups: Vec<u32>,
        /// By tree, where they have some (`dart`).
        weights: Option<Vec<f32>>,
        /// By iteration and one more: its first tree.
        iterations: Vec<usize>,
    },
    /// By feature, and at last without one: what it adds to each margin, times its value.
    Linear { weights: Vec<f32> },
}

/// So many margins a model may have.
const MARGINS: i64 = 1 << 20;
/// So many words of sets of categories, 256 MiB: a file that tells lies may name the largest category in each.
const WORDS: usize = 1 << 26;

/// What the file says, as far as it is of use.
#[derive(Debug, Default)]
struct Raw {
    learner: bool,
    version: Vec<i64>,
    feature_names: Vec<String>,
    best_iteration: Option<String>,
    base_score: Option<String>,
    num_class: Option<String>,
    num_feature: Option<String>,
    num_target: Option<String>,
    objective: Option<String>,
    booster: Option<String>,
    weight_drop: Option<Vec<f32>>,
    trees: Option<Vec<tree::Read>>,
    words: usize,
    tree_info: Vec<i64>,
    iteration_indptr: Option<Vec<i64>>,
    num_parallel_tree: Option<String>,
    linear: Option<Vec<f32>>,
}

impl From<Fault> for ParseError {
    fn from(fault: Fault) -> ParseError {
        ParseError::Broken {
            part: Part::Learner,
            fault,
        }
    }
}

/// Reads a model file.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let mut begin = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
    match begin.next() {
        Some(b'{') => {}
        Some(_) => return Err(ParseError::NotAModel { found: shown(bytes) }),
        None => return Err(ParseError::Empty),
    }
    let mut raw = Raw::default();
    let mut reader = Reader::new(bytes);
    reader.object(&mut |key, reader| match key {
        "learner" => {
            raw.learner = true;
            reader.object(&mut |key, reader| raw.learner(key, reader))
        }
        "version" => {
            raw.version = reader.numbers()?;
            Ok(())
        }
        _ => Ok::<(), ParseError>(reader.skip()?),
    })?;
    reader.end()?;
    raw.checked()
}

/// The first bytes as text where they are text.
fn shown(bytes: &[u8]) -> String {
    let begin = &bytes[..bytes.len().min(16)];
    match std::str::from_utf8(begin) {
        Ok(text) if !text.contains('\0') => format!("{text:?}"),
        _ => {
            let bytes: Vec<String> = begin.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("the bytes {}", bytes.join(" "))
        }
    }
}

/// The text that comes next.
fn text(reader: &mut Reader<'_>) -> Result<Option<String>, ParseError> {
    Ok(Some(reader.text()?.into_owned()))
}

impl Raw {
    fn learner(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), ParseError> {
        match key {
            "attributes" => reader.object(&mut |key, reader| {
                match key {
                    "best_iteration" => self.best_iteration = text(reader)?,
                    _ => reader.skip()?,
                }
                Ok(())
            }),
            "feature_names" => reader.list(&mut |reader| {
                self.feature_names.push(reader.text()?.into_owned());
                Ok(())
            }),
            "gradient_booster" => reader.object(&mut |key, reader| self.gradient_booster(key, reader)),
            "learner_model_param" => reader.object(&mut |key, reader| {
                match key {
                    "base_score" => self.base_score = text(reader)?,
                    "num_class" => self.num_class = text(reader)?,
                    "num_feature" => self.num_feature = text(reader)?,
                    "num_target" => self.num_target = text(reader)?,
                    _ => reader.skip()?,
                }
                Ok(())
            }),
            "objective" => reader.object(&mut |key, reader| {
                match key {
                    "name" => self.objective = text(reader)?,
                    _ => reader.skip()?,
                }
                Ok(())
            }),
            _ => Ok(reader.skip()?),
        }
    }

    fn gradient_booster(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), ParseError> {
        match key {
            "model" => reader.object(&mut |key, reader| self.model(key, reader)),
            "name" => {
                self.booster = text(reader)?;
                Ok(())
            }
            // Of `dart`, whose name stands beside this.
            "gbtree" => reader.object(&mut |key, reader| match key {
                "model" => reader.object(&mut |key, reader| self.model(key, reader)),
                _ => Ok::<(), ParseError>(reader.skip()?),
            }),
            "weight_drop" => {
                self.weight_drop = Some(reader.numbers()?);
                Ok(())
            }
            _ => Ok(reader.skip()?),
        }
    }

    fn model(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), ParseError> {
        match key {
            "trees" => {
                let mut trees = Vec::new();
                reader.list(&mut |reader| self.tree(&mut trees, reader))?;
                self.trees = Some(trees);
            }
            "tree_info" => self.tree_info = reader.numbers()?,
            "iteration_indptr" => self.iteration_indptr = Some(reader.numbers()?),
            "weights" => self.linear = Some(reader.numbers()?),
            "gbtree_model_param" => {
                return reader.object(&mut |key, reader| {
                    match key {
                        "num_parallel_tree" => self.num_parallel_tree = text(reader)?,
                        _ => reader.skip()?,
                    }
                    Ok(())
                });
            }
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn tree(&mut self, trees: &mut Vec<tree::Read>, reader: &mut Reader<'_>) -> Result<(), ParseError> {
        let number = trees.len();
        let read = tree::read(number, reader)?;
        self.words += read.tree.sets.iter().map(Vec::len).sum::<usize>();
        if self.words > WORDS {
            return Err(ParseError::TooLarge {
                tree: number,
                limit: WORDS,
            });
        }
        trees.push(read);
        Ok(())
    }

    fn checked(self) -> Result<Parsed, ParseError> {
        if !self.learner {
            return Err(missing("learner"));
        }
        let features = whole(
            "learner_model_param.num_feature",
            self.num_feature.as_deref(),
            1,
            FEATURES as i64,
        )?;
        let name = self.objective.as_deref().ok_or(missing("objective.name"))?;
        let objective = Objective::of(name).ok_or_else(|| {
            value(
                "objective.name",
                name,
                "an objective of XGBoost, such as `reg:squarederror` or `binary:logistic`",
            )
        })?;
        let classes = optional("learner_model_param.num_class", self.num_class.as_deref(), 0)?;
        let targets = optional("learner_model_param.num_target", self.num_target.as_deref(), 1)?;
        let margins = classes.max(targets).max(1);
        if !self.feature_names.is_empty() && self.feature_names.len() != features {
            return Err(ParseError::Count {
                part: Part::Learner,
                key: "feature_names",
                found: self.feature_names.len(),
                expected: features,
                why: "as `num_feature` tells",
            });
        }
        let best_iteration = match self.best_iteration.as_deref() {
            None => None,
            Some(text) => Some(whole(
                "attributes.best_iteration",
                Some(text),
                0,
                i64::from(i32::MAX),
            )?),
        };
        let base = base(self.base_score.as_deref(), objective, margins)?;
        let version: Vec<String> = self.version.iter().map(i64::to_string).collect();
        Ok(Parsed {
            version: version.join("."),
            objective,
            features,
            base,
            best_iteration,
            feature_names: self.feature_names.clone(),
            booster: self.booster(features, margins)?,
        })
    }

    fn booster(self, features: usize, margins: usize) -> Result<Booster, ParseError> {
        let name = self.booster.as_deref();
        match name.ok_or(missing("gradient_booster.name"))? {
            "gblinear" => {
                let weights = self.linear.ok_or(missing("gradient_booster.model.weights"))?;
                match weights.len() == (features + 1) * margins {
                    true => Ok(Booster::Linear { weights }),
                    false => Err(ParseError::Count {
                        part: Part::Learner,
                        key: "gradient_booster.model.weights",
                        found: weights.len(),
                        expected: (features + 1) * margins,
                        why: "for each feature and one more, and for each margin",
                    }),
                }
            }
            "gbtree" => self.trees(features, margins, false),
            "dart" => self.trees(features, margins, true),
            other => Err(value("gradient_booster.name", other, "gbtree, dart or gblinear")),
        }
    }

    fn trees(self, features: usize, margins: usize, dart: bool) -> Result<Booster, ParseError> {
        let read = self.trees.ok_or(missing("gradient_booster.model.trees"))?;
        let count = read.len();
        for (number, tree) in read.iter().enumerate() {
            if let Some(largest) = tree.largest_feature.filter(|largest| *largest >= features) {
                return Err(ParseError::Value {
                    part: Part::Tree(number),
                    key: "split_indices",
                    found: largest.to_string(),
                    expected: format!(
                        "a feature from 0 to {}, as `num_feature` tells of {features}",
                        features - 1
                    ),
                });
            }
        }
        counted("tree_info", self.tree_info.len(), count)?;
        let group = |group: &i64| match u32::try_from(*group) {
            Ok(found) if (found as usize) < margins => Ok(found),
            _ => Err(value(
                "tree_info",
                &group.to_string(),
                &format!("a whole number from 0 to {}", margins - 1),
            )),
        };
        let groups = self.tree_info.iter().map(group).collect::<Result<_, _>>()?;
        let weights = match (dart, self.weight_drop) {
            (false, _) => None,
            (true, None) => return Err(missing("gradient_booster.weight_drop")),
            (true, Some(weights)) => {
                counted("weight_drop", weights.len(), count)?;
                Some(weights)
            }
        };
        let parallel = optional("num_parallel_tree", self.num_parallel_tree.as_deref(), 1)?;
        let iterations = iterations(self.iteration_indptr.as_deref(), count, parallel.max(1) * margins)?;
        Ok(Booster::Trees {
            trees: read.into_iter().map(|read| read.tree).collect(),
            groups,
            weights,
            iterations,
        })
    }
}

/// The first tree of each iteration, and the number of all. Before version 2 the file does not tell.
fn iterations(told: Option<&[i64]>, trees: usize, each: usize) -> Result<Vec<usize>, ParseError> {
    let Some(told) = told.filter(|told| !told.is_empty()) else {
        if !trees.is_multiple_of(each) {
            return Err(ParseError::Count {
                part: Part::Learner,
                key: "trees",
                found: trees,
                expected: trees.next_multiple_of(each),
                why: "as all iterations have `num_parallel_tree` trees for each margin",
            });
        }
        return Ok((0..=trees).step_by(each).collect());
    };
    let rises = told.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rises || told.first() != Some(&0) || told.last() != Some(&(trees as i64)) {
        let found = format!("{:?}", &told[..told.len().min(8)]);
        let expected = format!("numbers from 0 to {trees}, as there are so many trees, that never fall");
        return Err(value("iteration_indptr", &found, &expected));
    }
    Ok(told.iter().map(|first| *first as usize).collect())
}

/// `5E-1`, or of a version from 3.1 on `[5E-1,2.5E-1]`.
fn base(text: Option<&str>, objective: Objective, margins: usize) -> Result<Vec<f32>, ParseError> {
    const KEY: &str = "learner_model_param.base_score";
    let text = text.ok_or(missing(KEY))?;
    let inside = text.trim_matches(|char| matches!(char, '[' | ']' | ' '));
    let number = |word: &str| {
        word.trim()
            .parse::<f32>()
            .ok()
            .map(|score| objective.margin(score))
    };
    let mut base: Vec<f32> = inside
        .split(',')
        .map(number)
        .collect::<Option<_>>()
        .ok_or_else(|| value(KEY, text, "a number, or a list of numbers"))?;
    if base.len() == 1 {
        base.resize(margins, base[0]);
    }
    if base.len() != margins {
        return Err(ParseError::Count {
            part: Part::Learner,
            key: KEY,
            found: base.len(),
            expected: margins,
            why: "one for each class or target, or one for all",
        });
    }
    Ok(base)
}

fn missing(key: &'static str) -> ParseError {
    ParseError::Missing {
        part: Part::Learner,
        key,
    }
}

fn value(key: &'static str, found: &str, expected: &str) -> ParseError {
    ParseError::Value {
        part: Part::Learner,
        key,
        found: found.chars().take(60).collect(),
        expected: expected.to_owned(),
    }
}

fn counted(key: &'static str, found: usize, expected: usize) -> Result<(), ParseError> {
    if found == expected {
        return Ok(());
    }
    Err(ParseError::Count {
        part: Part::Learner,
        key,
        found,
        expected,
        why: "one for each tree",
    })
}

/// Numbers of the learner are texts.
fn whole(key: &'static str, text: Option<&str>, from: i64, to: i64) -> Result<usize, ParseError> {
    let text = text.ok_or(missing(key))?;
    match text.parse::<i64>() {
        Ok(number) if (from..=to).contains(&number) => Ok(number as usize),
        _ => Err(value(key, text, &format!("a whole number from {from} to {to}"))),
    }
}

/// One that older versions do not write.
fn optional(key: &'static str, text: Option<&str>, default: usize) -> Result<usize, ParseError> {
    match text {
        None => Ok(default),
        Some(_) => whole(key, text, 0, MARGINS),
    }
}
