//! A model file of LightGBM or XGBoost, changed.

use std::sync::LazyLock;

use purlin_trees::{Model, Output, PredictOptions, xgboost};

use crate::input::Input;
use crate::lines::{Changes, changed};

const MODELS: &[&str] = &[
    include_str!("../../ml/trees/tests/golden/binary.txt"),
    include_str!("../../ml/trees/tests/golden/linear_categorical.txt"),
    include_str!("../../ml/trees/tests/golden/missing_zero_categorical.txt"),
    include_str!("../../ml/trees/tests/golden/v3_multiclass.txt"),
];

/// XGBoost's, with a line for each value.
static XGBOOST: LazyLock<Vec<String>> = LazyLock::new(|| {
    let files = [
        include_str!("../../ml/trees/tests/xgboost/categories.json"),
        include_str!("../../ml/trees/tests/xgboost/dart.json"),
        include_str!("../../ml/trees/tests/xgboost/v1_softprob.json"),
    ];
    files.map(|file| file.replace(',', ",\n")).to_vec()
});

/// Changes a model as the bytes say. What can be read predicts. Returns how many values were predicted.
///
/// # Panics
/// Where the model does.
pub fn trees(data: &[u8]) -> usize {
    let mut input = Input(data);
    match input.below(2) {
        0 => lightgbm(input),
        _ => xgboost(input),
    }
}

fn xgboost(mut input: Input<'_>) -> usize {
    let files: Vec<&str> = XGBOOST.iter().map(String::as_str).collect();
    let Ok(model) = xgboost::Model::parse(&changed(&files, &mut input, &JSON_CHANGES)) else {
        return 0;
    };
    let rows = [0.0, f32::NAN, 1e30, -1.5].map(|value| vec![value; model.num_features()]);
    let mut values = 0;
    for output in [xgboost::Output::Prediction, xgboost::Output::LeafIndices] {
        let options = xgboost::PredictOptions {
            output,
            ..xgboost::PredictOptions::default()
        };
        // Of a linear model there are no leaves.
        let Ok(width) = model.width(&options) else {
            continue;
        };
        let found = model.predict(&rows, &options).unwrap_or_default();
        assert_eq!(found.len(), rows.len() * width);
        values += found.len();
    }
    values
}

fn lightgbm(mut input: Input<'_>) -> usize {
    let Ok(model) = Model::parse(&changed(MODELS, &mut input, &CHANGES)) else {
        return 0;
    };
    let rows = [
        vec![0.0; model.num_features()],
        vec![f64::NAN; model.num_features()],
        vec![1e300; model.num_features()],
        vec![-1.5; model.num_features()],
    ];
    let mut values = 0;
    for output in [Output::Prediction, Output::LeafIndices, Output::Contributions] {
        let options = PredictOptions {
            output,
            ..PredictOptions::default()
        };
        match model.predict(&rows, &options) {
            Ok(found) => {
                assert_eq!(found.len(), rows.len() * model.width(&options));
                values += found.len();
            }
            Err(error) => assert_eq!(output, Output::Contributions, "{error}"),
        }
    }
    values
}

const CHANGES: Changes = Changes {
    lines: |lines, number, _| lines.truncate(number),
    value: change_value,
};

const JSON_CHANGES: Changes = Changes {
    lines: |lines, number, _| lines.truncate(number),
    value: change_json_value,
};

/// The value of a line becomes another; what stands around it stays.
fn change_json_value(line: &mut Vec<u8>, input: &mut Input<'_>) {
    let is_before = |byte: &u8| matches!(byte, b'[' | b':' | b'"' | b' ');
    let is_behind = |byte: &u8| matches!(byte, b']' | b',' | b'}' | b'"');
    let start = line
        .iter()
        .position(|byte| !is_before(byte))
        .unwrap_or(line.len());
    let length = line[start..].iter().position(is_behind);
    let value = match input.below(4) {
        0 => input.number().to_string(),
        1 => (input.below(16) as i64 - 8).to_string(),
        2 => ["NaN", "-Infinity", "1e39", "0.5", "", "-0"][input.below(6)].to_owned(),
        _ => String::from_utf8_lossy(&input.bytes(4)).into_owned(),
    };
    let end = start + length.unwrap_or(0);
    line.splice(start..end, value.into_bytes());
}

/// A value becomes another.
fn change_value(line: &mut Vec<u8>, input: &mut Input<'_>) {
    let start = line.iter().position(|byte| *byte == b'=').map_or(0, |at| at + 1);
    let mut values: Vec<&[u8]> = line[start..].split(|byte| *byte == b' ').collect();
    let value = match input.below(4) {
        0 => input.number().to_string(),
        1 => (input.below(16) as i64 - 8).to_string(),
        2 => ["nan", "-inf", "1e309", "0.5", "", "-0"][input.below(6)].to_owned(),
        _ => String::from_utf8_lossy(&input.bytes(4)).into_owned(),
    };
    let at = input.below(values.len());
    if let Some(old) = values.get_mut(at) {
        *old = value.as_bytes();
    }
    *line = [&line[..start], &values.join(&b' ')].concat();
}
