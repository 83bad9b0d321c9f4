//! A PMML document, changed.

use purlin_pmml::{Model, Value};

use crate::input::Input;
use crate::lines::{Changes, changed};

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
    let Ok(model) = Model::parse(&changed(MODELS, &mut input, &CHANGES)) else {
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

const CHANGES: Changes = Changes {
    // It goes elsewhere.
    lines: |lines, number, input| {
        let taken = lines.remove(number);
        let place = input.below(256).min(lines.len());
        lines.insert(place, taken);
    },
    value: change_value,
};

/// An attribute has another value: what stands in quotes is each second part.
fn change_value(line: &mut Vec<u8>, input: &mut Input<'_>) {
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
