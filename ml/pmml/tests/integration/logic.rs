//! Predicates: what is missing makes them neither true nor false.

use proptest::prelude::*;
use purlin_pmml::{Model, Record, Value};

const FIELDS: [&str; 3] = ["a", "b", "c"];

/// A predicate on three booleans.
#[derive(Debug, Clone)]
enum Predicate {
    Constant(bool),
    Equal(usize, bool),
    NotEqual(usize, bool),
    Among(usize, Vec<bool>, bool),
    IsMissing(usize, bool),
    Compound(&'static str, Vec<Predicate>),
}

fn predicates() -> impl Strategy<Value = Predicate> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Predicate::Constant),
        (0..3usize, any::<bool>()).prop_map(|(field, value)| Predicate::Equal(field, value)),
        (0..3usize, any::<bool>()).prop_map(|(field, value)| Predicate::NotEqual(field, value)),
        (
            0..3usize,
            prop::collection::vec(any::<bool>(), 0..3),
            any::<bool>()
        )
            .prop_map(|(field, values, within)| Predicate::Among(field, values, within)),
        (0..3usize, any::<bool>()).prop_map(|(field, wanted)| Predicate::IsMissing(field, wanted)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let operators = prop::sample::select(vec!["and", "or", "xor", "surrogate"]);
        (operators, prop::collection::vec(inner, 1..4))
            .prop_map(|(operator, parts)| Predicate::Compound(operator, parts))
    })
}

impl Predicate {
    fn xml(&self) -> String {
        let simple = |field: &usize, operator: &str, value: &str| {
            let field = FIELDS[*field];
            format!("<SimplePredicate field=\"{field}\" operator=\"{operator}\"{value}/>")
        };
        match self {
            Predicate::Constant(true) => "<True/>".to_owned(),
            Predicate::Constant(false) => "<False/>".to_owned(),
            Predicate::Equal(field, value) => simple(field, "equal", &format!(" value=\"{value}\"")),
            Predicate::NotEqual(field, value) => simple(field, "notEqual", &format!(" value=\"{value}\"")),
            Predicate::IsMissing(field, true) => simple(field, "isMissing", ""),
            Predicate::IsMissing(field, false) => simple(field, "isNotMissing", ""),
            Predicate::Among(field, values, within) => {
                let operator = if *within { "isIn" } else { "isNotIn" };
                let words: Vec<String> = values.iter().map(bool::to_string).collect();
                format!(
                    "<SimpleSetPredicate field=\"{}\" booleanOperator=\"{operator}\"><Array n=\"{}\" type=\"string\">{}</Array></SimpleSetPredicate>",
                    FIELDS[*field],
                    words.len(),
                    words.join(" ")
                )
            }
            Predicate::Compound(operator, parts) => {
                let parts: String = parts.iter().map(Predicate::xml).collect();
                format!("<CompoundPredicate booleanOperator=\"{operator}\">{parts}</CompoundPredicate>")
            }
        }
    }

    /// By the tables of PMML's specification.
    fn of(&self, row: &[Option<bool>; 3]) -> Option<bool> {
        match self {
            Predicate::Constant(value) => Some(*value),
            Predicate::Equal(field, value) => row[*field].map(|found| found == *value),
            Predicate::NotEqual(field, value) => row[*field].map(|found| found != *value),
            Predicate::IsMissing(field, wanted) => Some(row[*field].is_none() == *wanted),
            Predicate::Among(field, values, within) => {
                row[*field].map(|found| values.contains(&found) == *within)
            }
            Predicate::Compound(operator, parts) => {
                let parts: Vec<Option<bool>> = parts.iter().map(|part| part.of(row)).collect();
                let known = || parts.iter().flatten();
                let unknown = parts.contains(&None);
                match *operator {
                    "and" if known().any(|part| !part) => Some(false),
                    "or" if known().any(|part| *part) => Some(true),
                    "surrogate" => known().next().copied(),
                    _ if unknown => None,
                    "and" => Some(true),
                    "or" => Some(false),
                    _ => Some(known().filter(|part| **part).count() % 2 == 1),
                }
            }
        }
    }
}

/// A tree that tells what the predicate is: 1 of a true one, 0 of an unknown one, nothing of a false one.
fn document(predicate: &Predicate) -> String {
    let fields: String = FIELDS
        .iter()
        .map(|name| format!("<DataField name=\"{name}\" optype=\"categorical\" dataType=\"boolean\"/>"))
        .collect();
    let mining: String = FIELDS
        .iter()
        .map(|name| format!("<MiningField name=\"{name}\"/>"))
        .collect();
    format!(
        "<PMML version=\"4.4\"><Header/><DataDictionary>{fields}</DataDictionary>
        <TreeModel functionName=\"regression\" missingValueStrategy=\"lastPrediction\">
        <MiningSchema>{mining}</MiningSchema>
        <Node score=\"0\"><True/><Node score=\"1\">{}</Node></Node></TreeModel></PMML>",
        predicate.xml()
    )
}

proptest! {
    #[test]
    fn predicates_follow_the_three_valued_logic(predicate in predicates()) {
        let model = Model::parse(document(&predicate).as_bytes()).unwrap();
        for number in 0..27 {
            let value = |place: u32| [None, Some(false), Some(true)][number / 3usize.pow(place) % 3];
            let row = [value(0), value(1), value(2)];
            let record: Record = FIELDS.iter().zip(row).map(|(name, value)| (*name, Value::from(value))).collect();
            let expected = match predicate.of(&row) {
                Some(true) => Value::Double(1.0),
                None => Value::Double(0.0),
                Some(false) => Value::Missing,
            };
            prop_assert_eq!(model.evaluate(&record).unwrap().value, expected, "{:?}", row);
        }
    }
}

/// The specification's strategies that the evaluator of the golden files does not have: all nodes that are possible have their say.
#[test]
fn unknown_predicates_spread_over_all_children() {
    let document = |strategy: &str| {
        format!(
            "<PMML version=\"4.4\"><Header/><DataDictionary>
            <DataField name=\"a\" optype=\"categorical\" dataType=\"boolean\"/>
            <DataField name=\"t\" optype=\"categorical\" dataType=\"string\"/></DataDictionary>
            <TreeModel functionName=\"classification\" missingValueStrategy=\"{strategy}\">
            <MiningSchema><MiningField name=\"a\"/><MiningField name=\"t\" usageType=\"target\"/></MiningSchema>
            <Node score=\"no\" recordCount=\"40\"><True/>
              <Node score=\"no\" recordCount=\"30\"><SimplePredicate field=\"a\" operator=\"equal\" value=\"true\"/>
                <ScoreDistribution value=\"no\" recordCount=\"24\" confidence=\"0.7\"/>
                <ScoreDistribution value=\"yes\" recordCount=\"6\" confidence=\"0.3\"/></Node>
              <Node score=\"yes\" recordCount=\"10\"><SimplePredicate field=\"a\" operator=\"equal\" value=\"false\"/>
                <ScoreDistribution value=\"no\" recordCount=\"1\" confidence=\"0.2\"/>
                <ScoreDistribution value=\"yes\" recordCount=\"9\" confidence=\"0.8\"/></Node>
            </Node></TreeModel></PMML>"
        )
    };
    let run = |strategy: &str| {
        let model = Model::parse(document(strategy).as_bytes()).unwrap();
        let found = model.evaluate(&Record::default()).unwrap();
        (found.value.to_string(), found.probability("yes").unwrap())
    };
    let (value, yes) = run("aggregateNodes");
    assert_eq!((value.as_str(), yes), ("no", 15.0 / 40.0));
    let (value, yes) = run("weightedConfidence");
    assert_eq!(value, "no");
    assert!((yes - (0.75 * 0.3 + 0.25 * 0.8)).abs() < 1e-12, "{yes}");
}
