//! A PMML document, changed.

use purlin_pmml::{Model, Value};

use crate::input::Input;

const MODELS: &[&str] = &[
    include_str!("../../ml/pmml/tests/golden/expressions.pmml"),
    include_str!("../../ml/pmml/tests/golden/fields.pmml"),
    include_str!("../../ml/pmml/tests/golden/general_ordinal_logit.pmml"),
    include_str!("../../ml/pmml/tests/golden/mining_chain.pmml"),
    include_str!("../../ml/pmml/tests/golden/mining_class_max.pmml"),
    include_str!("../../ml/pmml/tests/golden/network_class.pmml"),
    include_str!("../../ml/pmml/tests/golden/regression_terms.pmml"),
    include_str!("../../ml/pmml/tests/golden/tree_weighted.pmml"),
];

/// Changes a document as the bytes say. What can be read predicts. Returns how many rows got a prediction.
///
/// # Panics
/// Where the model does.
pub fn pmml(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut lines: Vec<Vec<u8>> = input
        .pick(MODELS)
        .map_or("", |model| *model)
        .lines()
        .map(|line| line.as_bytes().to_vec())
        .collect();
    while !input.is_empty() {
        change(&mut lines, &mut input);
    }
    let Ok(model) = Model::parse(&lines.join(&b'\n')) else {
        return 0;
    };
    let values = [
        Value::Missing,
        Value::Double(0.5),
        Value::Double(-1e300),
        Value::Integer(i64::MIN),
        Value::Boolean(true),
        "a".into(),
    ];
    let mut predictions = 0;
    for value in values {
        if let Ok(found) = model.evaluate_values(&vec![value; model.inputs().len()]) {
            assert!(found.probabilities.is_empty() || found.probabilities.len() == model.classes().len());
            predictions += 1;
        }
    }
    predictions
}

/// What may stand in another place, too.
const WORDS: &[&str] = &[
    "nan",
    "-inf",
    "1e309",
    "0.5",
    "",
    "-0",
    "x",
    "true",
    "double",
    "string",
    "integer",
    "isMissing",
    "surrogate",
    "defaultChild",
    "regression",
    "classification",
    "sum",
    "max",
    "selectFirst",
    "&lt;",
    "&#0;",
    "&bad;",
];

fn change(lines: &mut Vec<Vec<u8>>, input: &mut Input<'_>) {
    let number = input.below(256).min(lines.len().saturating_sub(1));
    let Some(line) = lines.get_mut(number) else { return };
    match input.below(6) {
        0 => {
            lines.remove(number);
        }
        1 => {
            let twin = line.clone();
            lines.insert(number, twin);
        }
        2 => {
            // Elsewhere.
            let taken = lines.remove(number);
            let place = input.below(256).min(lines.len());
            lines.insert(place, taken);
        }
        3 => {
            let at = input.below(line.len());
            if let Some(byte) = line.get_mut(at) {
                *byte = input.byte();
            }
        }
        // An attribute has another value: what stands in quotes is each second part.
        _ => {
            let mut parts: Vec<Vec<u8>> = line.split(|byte| *byte == b'"').map(<[u8]>::to_vec).collect();
            let value = match input.below(3) {
                0 => input.number().to_string(),
                1 => input.pick(WORDS).map_or("", |word| *word).to_owned(),
                _ => String::from_utf8_lossy(&input.bytes(4)).into_owned(),
            };
            let at = 2 * input.below(parts.len() / 2) + 1;
            if let Some(old) = parts.get_mut(at) {
                *old = value.into_bytes();
            }
            *line = parts.join(&b'"');
        }
    }
}
