//! LightGBM's text format, versions 3 and 4, as `save_model` writes it.
//!
//! A header of `key=value` lines, then for each tree `Tree=` and such lines up to an empty one, then `end of trees`. What follows
//! (importances, parameters) says nothing about predictions and is not read.

mod objective;
mod text;
mod tree;

use crate::error::{ParseError, Part};
use crate::forest::FEATURES;
pub use objective::Objective;
use text::{Line, Lines, Section, Value, begin};
pub use tree::{Child, LinearLeaf, Missing, ParsedTree, Rule, Split};

/// A model file, read and checked.
#[derive(Debug, Clone)]
pub struct ParsedModel {
    pub version: &'static str,
    pub objective: Objective,
    /// The trees of one iteration, which is also the number of raw scores.
    pub trees_per_iteration: usize,
    pub average: bool,
    pub feature_names: Vec<String>,
    pub trees: Vec<ParsedTree>,
}

/// So many raw scores a model without trees may have, as it has nothing else to be checked by.
const SCORES_WITHOUT_TREES: usize = 1 << 16;

/// Reads a model file.
pub fn parse(bytes: &[u8]) -> Result<ParsedModel, ParseError> {
    if bytes.is_empty() {
        return Err(ParseError::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| ParseError::NotText {
        line: bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1,
    })?;
    let mut lines = Lines::new(text);
    let first = lines.next().map_or("", |line| line.text);
    if first.trim_end() != "tree" {
        return Err(ParseError::NotAModel { found: begin(first) });
    }
    let header = read_header(&mut lines);
    if let Some(value) = header.find("version") {
        known_version(value)?;
    }
    // A file that was cut off lacks much else.
    let sections = read_trees(&mut lines)?;
    let version = known_version(header.get("version")?)?;
    let feature_names = feature_names(&header)?;
    check_tree_count(&header, sections.len())?;
    let trees_per_iteration = trees_per_iteration(&header, sections.len())?;
    let objective = match header.find("objective") {
        Some(value) => Objective::parse(value, trees_per_iteration)?,
        None => Objective::Identity,
    };
    let read = |(number, section)| tree::parse_tree(number, section, feature_names.len());
    let trees = sections.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(ParsedModel {
        version,
        objective,
        trees_per_iteration,
        average: header.find("average_output").is_some(),
        feature_names,
        trees,
    })
}

fn read_header<'a>(lines: &mut Lines<'a>) -> Section<'a> {
    let mut header = Section::new(Part::Header, 1);
    while let Some(line) = lines.peek().filter(|line| !begins_trees(line)) {
        if !line.text.is_empty() {
            header.add(line);
        }
        lines.next();
    }
    header
}

fn begins_trees(line: &Line<'_>) -> bool {
    line.text.starts_with("Tree=") || line.text == END
}

const END: &str = "end of trees";

/// The lines of each tree.
fn read_trees<'a>(lines: &mut Lines<'a>) -> Result<Vec<Section<'a>>, ParseError> {
    let mut trees: Vec<Section<'a>> = Vec::new();
    let mut open = false;
    while let Some(line) = lines.next() {
        if line.text == END {
            return Ok(trees);
        } else if line.text.starts_with("Tree=") {
            trees.push(Section::new(Part::Tree(trees.len()), line.number));
            open = true;
        } else if line.text.is_empty() {
            open = false;
        } else if let Some(tree) = trees.last_mut().filter(|_| open) {
            tree.add(line);
        } else if lines.peek().is_some() {
            return Err(ParseError::Line {
                line: line.number,
                found: begin(line.text),
                expected: "`Tree=`, `end of trees` or an empty line",
            });
        }
    }
    Err(ParseError::CutOff {
        line: lines.number(),
        trees: trees.len(),
    })
}

fn known_version(value: Value<'_>) -> Result<&'static str, ParseError> {
    match value.text {
        "v3" => Ok("v3"),
        "v4" => Ok("v4"),
        other => Err(ParseError::Version {
            line: value.line,
            found: begin(other),
        }),
    }
}

fn feature_names(header: &Section<'_>) -> Result<Vec<String>, ParseError> {
    let features = header.get("max_feature_idx")?.within(0, FEATURES - 1)? + 1;
    let names = header.get("feature_names")?;
    names.list(
        features,
        "`max_feature_idx` and one more",
        || "a name".into(),
        |name| Some(name.to_owned()),
    )
}

fn check_tree_count(header: &Section<'_>, found: usize) -> Result<(), ParseError> {
    // Files of old 3.x versions may be without.
    let Some(sizes) = header.find("tree_sizes") else {
        return Ok(());
    };
    let told = sizes.words().count();
    if told == found {
        Ok(())
    } else {
        Err(ParseError::Trees {
            found,
            expected: format!("`tree_sizes` on line {} tells of {told}", sizes.line),
        })
    }
}

fn trees_per_iteration(header: &Section<'_>, trees: usize) -> Result<usize, ParseError> {
    let most = if trees == 0 { SCORES_WITHOUT_TREES } else { trees };
    let classes = header.get("num_class")?;
    let value = header.find("num_tree_per_iteration").unwrap_or(classes);
    let each = value.within(1, most)?;
    if trees.is_multiple_of(each) {
        Ok(each)
    } else {
        Err(ParseError::Trees {
            found: trees,
            expected: format!(
                "`{}` on line {} tells of {each} for each iteration",
                value.key, value.line
            ),
        })
    }
}
