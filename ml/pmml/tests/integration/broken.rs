//! Documents that are cut, changed, or ask for what is not known: an error that names it and its line, or a model that predicts.

use proptest::prelude::*;
use purlin_pmml::{LoadError, Model, ParseError, Value};

use crate::golden::{folder, text};

/// What is read predicts, or says what is wrong with the row: it never panics.
fn read(bytes: &[u8]) -> Result<(), ParseError> {
    let model = Model::parse(bytes)?;
    let values = [
        Value::Missing,
        Value::Double(-1e300),
        Value::Double(0.5),
        Value::Integer(7),
        Value::Boolean(true),
        "red".into(),
    ];
    for value in values {
        if let Ok(prediction) = model.evaluate_values(&vec![value; model.inputs().len()]) {
            assert!(
                prediction.probabilities.is_empty()
                    || prediction.probabilities.len() == model.classes().len()
            );
        }
    }
    Ok(())
}

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

/// A model with a part of its text replaced, which is there.
fn with(name: &str, old: &str, new: &str) -> String {
    let text = text(name);
    assert!(text.contains(old), "{name} has no {old}");
    text.replacen(old, new, 1)
}

#[test]
fn what_is_not_known_is_named_with_its_line() {
    let cases = [
        (String::new(), "the file is empty: expected a PMML document"),
        (
            "\n{\"learner\": 1}".into(),
            "line 2: the XML is broken: it has no element",
        ),
        (
            "<?xml version=\"1.0\"?>\n<html/>".into(),
            "line 2: the document is a `html`: expected `PMML`",
        ),
        ("<PMML/>".into(), "line 1: `PMML` has no attribute `version`"),
        (
            with("regression_terms", "version=\"4.2\"", "version=\"3.2\""),
            "line 2: the document is of PMML version `3.2`: expected 4.0 to 4.4",
        ),
        (
            with("regression_terms", "RegressionModel", "NaiveBayesModel")
                .replace("/RegressionModel", "/NaiveBayesModel"),
            "line 13: the element `NaiveBayesModel` in `PMML` is not known",
        ),
        (
            with("regression_terms", "<CategoricalPredictor", "<HeavyPredictor"),
            "line 36: the element `HeavyPredictor` in `RegressionTable` is not known",
        ),
        (
            with(
                "regression_terms",
                "exponent=\"2\"",
                "exponent=\"2\" weight=\"2\"",
            ),
            "line 34: the attribute `weight` of `NumericPredictor` is not known",
        ),
        (
            with("regression_terms", "exponent=\"2\"", "exponent=\"two\""),
            "line 34: exponent of `NumericPredictor` is `two`: expected a number",
        ),
        (
            with("regression_terms", "intercept=\"0.5\"", ""),
            "line 33: `RegressionTable` has no attribute `intercept`",
        ),
        (
            with(
                "regression_terms",
                "PredictorTerm coefficient=\"0.03\">\n        <FieldRef field=\"size\"",
                "PredictorTerm coefficient=\"0.03\">\n        <FieldRef field=\"colour\"",
            ),
            "line 39: `FieldRef` asks for the field `colour`, which is neither in the MiningSchema nor derived here",
        ),
        (
            with(
                "regression_terms",
                "<MiningField name=\"size\"/>",
                "<MiningField name=\"weight\"/>",
            ),
            "line 15: `MiningField` names the field `weight`, which is not in the DataDictionary",
        ),
        (
            with(
                "regression_terms",
                "function=\"greaterThan\"",
                "function=\"bigger\"",
            ),
            "line 24: the function `bigger` is neither built in nor defined in the document",
        ),
        (
            with(
                "regression_terms",
                "<Constant dataType=\"double\">10</Constant>",
                "",
            ),
            "line 24: `Apply` gives the function `greaterThan` 1 arguments",
        ),
        (
            with(
                "regression_terms",
                "feature=\"predictedValue\"",
                "feature=\"residual\"",
            ),
            "line 21: feature of `OutputField` is `residual`: expected `predictedValue`, `predictedDisplayValue`, `probability`, `confidence`, `entityId`, `transformedValue`, `decision`",
        ),
        (
            with(
                "expressions",
                "<FieldRef field=\"x\"/><Constant dataType=\"double\">3",
                "<FieldRef field=\"later\"/><Constant dataType=\"double\">3",
            ),
            "line 23: `FieldRef` asks for the field `later`, which is made of itself",
        ),
        (
            with(
                "expressions",
                "<FieldRef field=\"value\"/><FieldRef field=\"value\"/>",
                "<FieldRef field=\"value\"/><FieldRef field=\"x\"/>",
            ),
            "line 17: `FieldRef` asks for the field `x`, which is neither in the MiningSchema nor derived here",
        ),
        (
            with("tree_default", "defaultChild=\"4\"", "defaultChild=\"5\""),
            "line 32: defaultChild of `Node` is `5`: expected the id of a child",
        ),
        (
            with("tree_default", "<Array n=\"2\"", "<Array n=\"3\""),
            "line 37: n of `Array` is `3`: expected 2, as it has so many values",
        ),
        (
            with("network_tanh", "from=\"i2\"", "from=\"h2\""),
            "line 44: from of `Con` is `h2`: expected the id of an input or of a neuron before",
        ),
        (
            with("mining_chain", "segmentId=\"one\"", "segmentId=\"three\""),
            "line 25: segmentId of `OutputField` is `three`: expected the id of a segment of the model",
        ),
        (
            with("general_logit", "linkFunction=\"logit\"", ""),
            "line 12: `GeneralRegressionModel` has no attribute `linkFunction`",
        ),
        (
            with("general_logit", "generalizedLinear", "CoxRegression"),
            "line 12: modelType of `GeneralRegressionModel` is `CoxRegression`: expected `regression`, `generalLinear`, `generalizedLinear`, `multinomialLogistic`, `ordinalMultinomial`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn a_file_is_named() {
    let error = Model::load("/nowhere/wine.pmml").unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wine.pmml");
    std::fs::write(&file, b"<PMML\n\xff").unwrap();
    let error = Model::load(&file).unwrap_err().to_string();
    let expected = format!(
        "cannot use the model file {}: line 2 is not text (UTF-8): expected a PMML document",
        file.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn what_is_too_deep_is_an_error() {
    let depth = 100_000;
    let deep = |open: &str, close: &str| {
        with(
            "tree_none",
            "<SimplePredicate field=\"age\" operator=\"lessOrEqual\" value=\"7.5\"/>",
            &format!("{}<True/>{}", open.repeat(depth), close.repeat(depth)),
        )
    };
    let error = error(&deep(
        "<CompoundPredicate booleanOperator=\"and\">",
        "</CompoundPredicate>",
    ));
    assert!(error.ends_with("is more than 128 levels deep"), "{error}");
    // Trees may be as deep as they like.
    let node = "<Node score=\"high\"><True/>";
    let nodes = format!("{}{}", node.repeat(depth), "</Node>".repeat(depth));
    let text = with("tree_none", "<Node id=\"3\"", &format!("{nodes}<Node id=\"3\""));
    let model = Model::parse(text.as_bytes()).unwrap();
    let record = [("age", Value::Double(5.0))].into_iter().collect();
    assert_eq!(model.evaluate(&record).unwrap().value, "high".into());
}

#[test]
fn functions_that_call_others_twice_do_not_take_for_ever() {
    let mut functions = String::new();
    for number in 0..40 {
        let body = match number {
            0 => "<FieldRef field=\"value\"/>".to_owned(),
            _ => format!(
                "<Apply function=\"f{}\"><FieldRef field=\"value\"/></Apply>",
                number - 1
            )
            .repeat(2),
        };
        functions.push_str(&format!(
            "<DefineFunction name=\"f{number}\" optype=\"continuous\" dataType=\"double\">
            <ParameterField name=\"value\"/><Apply function=\"sum\">{body}</Apply></DefineFunction>"
        ));
    }
    let text = with(
        "expressions",
        "<DefineFunction name=\"scaled\"",
        &format!("{functions}<DefineFunction name=\"scaled\""),
    );
    let text = text.replacen("<Apply function=\"twice\"", "<Apply function=\"f39\"", 1);
    let error = error(&text);
    assert!(
        error.ends_with("`DefineFunction` evaluates more than 100000 expressions in a call"),
        "{error}"
    );
}

#[test]
fn all_documents_are_read() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pmml") {
            let bytes = std::fs::read(&path).unwrap();
            read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            count += 1;
        }
    }
    assert!(count >= 110, "{count}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cut_and_changed_documents_never_panic(
        name in prop::sample::select(vec!["sk_expressions", "tree_weighted", "mining_chain", "network_class", "general_ordinal_logit", "fields"]),
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        // Without the end of the last line a document is whole.
        let mut bytes = text(name).trim_end().as_bytes().to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = read(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(read(&bytes).is_err());
    }
}
