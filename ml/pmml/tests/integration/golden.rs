//! All kinds of models, beside what the JPMML evaluator gives.

use std::path::PathBuf;

use purlin_pmml::{Model, Record, Value};
use serde_json::Value as Json;

/// The folder of the models.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A model's document.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name).with_extension("pmml")).unwrap()
}

/// What was asked, and what the evaluator said.
pub fn answers() -> serde_json::Map<String, Json> {
    let text = std::fs::read_to_string(folder().join("answers.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    json.as_object().unwrap().clone()
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Missing,
        Json::Bool(value) => Value::Boolean(*value),
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => Value::Double(number.as_f64().unwrap()),
        },
        other => panic!("{other}"),
    }
}

pub fn record(json: &Json) -> Record {
    let fields = json.as_object().unwrap().iter();
    fields.map(|(name, json)| (name.as_str(), value(json))).collect()
}

/// How far from the evaluator's numbers ours may be. Of what is computed in single precision, as XGBoost's models are, exponentials
/// are known to so many digits.
fn tolerance(document: &str) -> f64 {
    match document.contains("x-mathContext=\"float\"") {
        true => 2.0 * f64::from(f32::EPSILON),
        false => 1e-9,
    }
}

fn same(found: &Value, expected: &Json, tolerance: f64) -> bool {
    match (found, expected) {
        (Value::Double(number), Json::String(text)) => match text.as_str() {
            "inf" => *number == f64::INFINITY,
            "-inf" => *number == f64::NEG_INFINITY,
            "nan" => number.is_nan(),
            _ => false,
        },
        (found, Json::Number(number)) => {
            let expected = number.as_f64().unwrap();
            let near = |found: f64| (found - expected).abs() <= tolerance * expected.abs().max(1.0);
            found.as_f64().is_some_and(near)
        }
        (found, expected) => *found == value(expected),
    }
}

/// Errors of the evaluator that are about rows: we have them, too. Others say that it does not go on where PMML does: a function of a
/// missing value, a method that it lacks, a vote of nobody.
fn is_of_the_row(error: &str) -> bool {
    error.contains("ValueCheckException: Field")
}

#[test]
fn all_kinds_give_what_the_evaluator_gives() {
    let answers = answers();
    let (mut compared, mut refused, mut wrong) = (0, 0, Vec::new());
    for (name, golden) in &answers {
        let model = match Model::load(folder().join(name).with_extension("pmml")) {
            Ok(model) => model,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let tolerance = tolerance(&text(name));
        let target = golden["target"][0].as_str();
        let rows = golden["rows"].as_array().unwrap();
        for (number, (row, result)) in rows.iter().zip(golden["results"].as_array().unwrap()).enumerate() {
            let found = model.evaluate(&record(row));
            let result = result.as_object().unwrap();
            if let Some(error) = result.get("error").and_then(Json::as_str) {
                if is_of_the_row(error) {
                    refused += 1;
                    if let Ok(found) = found {
                        wrong.push(format!("{name}, row {number} {row}: {found:?}, not {error}"));
                    }
                }
                continue;
            }
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    wrong.push(format!("{name}, row {number} {row}: {error}"));
                    continue;
                }
            };
            for (field, expected) in result {
                let found = match found.output(field) {
                    Some(found) => found,
                    // The evaluator has a target without a name where an ensemble's own is not asked for.
                    None if Some(field.as_str()) == target || field == "null" => &found.value,
                    None => {
                        wrong.push(format!("{name}, row {number}: no output {field}"));
                        continue;
                    }
                };
                compared += 1;
                if !same(found, expected, tolerance) {
                    wrong.push(format!(
                        "{name}, {field} of row {number} {row}: {found:?}, not {expected}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(answers.len() >= 120, "{}", answers.len());
    assert!(compared > 8_000 && refused > 80, "{compared} {refused}");
}

#[test]
fn values_in_the_order_of_the_fields_give_the_same() {
    let answers = answers();
    for name in ["sk_boosted_three", "fields", "mining_chain"] {
        let model = Model::parse(text(name).as_bytes()).unwrap();
        for row in answers[name]["rows"].as_array().unwrap() {
            let record = record(row);
            assert_eq!(
                model.evaluate_values(&model.values(&record)),
                model.evaluate(&record),
                "{name} {row}"
            );
        }
    }
    let model = Model::parse(text("fields").as_bytes()).unwrap();
    let error = model.evaluate_values(&[Value::Missing]).unwrap_err().to_string();
    assert_eq!(error, "there are 1 values, the model has 5 fields");
}

#[test]
fn what_a_model_tells_of_itself() {
    let model = Model::parse(text("sk_logistic_three").as_bytes()).unwrap();
    assert_eq!(model.version(), "4.4");
    assert_eq!(model.target(), Some("stars"));
    assert_eq!(model.classes(), [0, 1, 2].map(Value::Integer));
    let inputs: Vec<&str> = model.inputs().iter().map(|name| &**name).collect();
    assert_eq!(inputs, ["colour", "acidity", "sugar", "alcohol"]);
    let outputs: Vec<&str> = model.outputs().iter().map(|name| &**name).collect();
    assert_eq!(outputs, ["probability(0)", "probability(1)", "probability(2)"]);
}

#[test]
fn nan_is_missing() {
    let model = Model::parse(text("fields").as_bytes()).unwrap();
    let of = |a: Value| {
        let row = Record::new()
            .with("a", a)
            .with("b", 1)
            .with("c", "x")
            .with("d", 1);
        model.evaluate(&row)
    };
    assert_eq!(of(f64::NAN.into()), of(Value::Missing));
    assert_eq!(
        of(f64::NAN.into()).unwrap().output("o_a"),
        Some(&Value::Double(4.5))
    );
}
