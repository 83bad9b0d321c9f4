//! XGBoost's models, beside its own predictions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use purlin::prelude::*;
use purlin::testing::PAssert;
use purlin_inference::{ModelHandler, ModelMetadata, RunInference};
use purlin_trees::XgBoost;
use purlin_trees::xgboost::{Iterations, LoadError, Model, Output, ParseError, PredictError, PredictOptions};

/// The folder of the models.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/xgboost")
}

fn load(name: &str) -> Model {
    Model::load(folder().join(name)).unwrap()
}

type Rows = Vec<Vec<f32>>;

/// The rows that models were asked, and what they said, by model and by what it was asked: a line for each row.
fn golden() -> (Rows, BTreeMap<String, BTreeMap<String, Rows>>) {
    let text = std::fs::read_to_string(folder().join("answers.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bits = |word: &str| f32::from_bits(u32::from_str_radix(word, 16).unwrap());
    let list = |value: &serde_json::Value| -> Rows {
        let lines = value.as_array().unwrap().iter();
        lines
            .map(|line| line.as_str().unwrap().split(' ').map(bits).collect())
            .collect()
    };
    let said = |said: &serde_json::Value| {
        let said = said.as_object().unwrap().iter();
        said.map(|(what, lines)| (what.clone(), list(lines))).collect()
    };
    let models = json["models"].as_object().unwrap().iter();
    (
        list(&json["rows"]),
        models.map(|(name, all)| (name.clone(), said(all))).collect(),
    )
}

/// What `answers.json` holds by its names, and how many units in the last place we may be away from it: exponentials differ between
/// machines.
fn options(what: &str) -> (PredictOptions, u32) {
    let all = PredictOptions::default();
    match what {
        "prediction" => (all, 2),
        "part" => (
            PredictOptions {
                iterations: Iterations::Of(1..3),
                ..all
            },
            2,
        ),
        "best" => (
            PredictOptions {
                iterations: Iterations::Best,
                ..all
            },
            2,
        ),
        "margin" => (
            PredictOptions {
                output: Output::Margin,
                ..all
            },
            0,
        ),
        "leaves" => (
            PredictOptions {
                output: Output::LeafIndices,
                ..all
            },
            0,
        ),
        other => panic!("{other}"),
    }
}

/// How many numbers lie between two.
fn apart(left: f32, right: f32) -> u32 {
    let order = |value: f32| match value.to_bits() {
        bits if bits >> 31 == 1 => -i64::from(bits & 0x7fff_ffff),
        bits => i64::from(bits),
    };
    match left.is_nan() && right.is_nan() {
        true => 0,
        false => u32::try_from(order(left).abs_diff(order(right))).unwrap(),
    }
}

#[test]
fn all_kinds_give_what_xgboost_gives() {
    let (rows, models) = golden();
    let (mut asked, mut furthest) = (0, 0);
    for (name, said) in &models {
        let model = load(name);
        for (what, expected) in said {
            let (options, tolerance) = options(what);
            let found = model.predict(&rows, &options).unwrap();
            let width = model.width(&options).unwrap();
            for (row, expected) in expected.iter().enumerate() {
                assert_eq!(expected.len(), width, "{name} {what}");
                for (found, expected) in found[row * width..].iter().zip(expected) {
                    let apart = apart(*found, *expected);
                    assert!(
                        apart <= tolerance,
                        "{name}, {what} of row {row}: {found:?}, not {expected:?}"
                    );
                    furthest = furthest.max(apart);
                    asked += 1;
                }
            }
        }
    }
    assert!(models.len() >= 71, "{}", models.len());
    assert!(asked > 5_000, "{asked}");
    println!("{asked} values, at most {furthest} units in the last place away");
}

#[test]
fn batches_of_any_size_and_any_number_of_threads_give_the_same_bits() {
    let (rows, _) = golden();
    let rows: Vec<&Vec<f32>> = rows.iter().cycle().take(2500).collect();
    for name in ["categories_missing.ubj", "dart_of_many.ubj", "linear_of_many.ubj"] {
        let model = load(name);
        for output in [Output::Prediction, Output::Margin] {
            let mut options = PredictOptions {
                output,
                ..PredictOptions::default()
            };
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let all = bits(&model.predict(&rows, &options).unwrap());
            options.threads = 3;
            assert_eq!(bits(&model.predict(&rows, &options).unwrap()), all);
            for size in [1, 7, 9] {
                let parts = rows.chunks(size);
                let found: Vec<f32> = parts
                    .flat_map(|rows| model.predict(rows, &options).unwrap())
                    .collect();
                assert_eq!(bits(&found), all, "{name}, batches of {size}");
            }
        }
    }
}

#[test]
fn what_a_model_tells_of_itself() {
    let two = load("v1_two_targets.ubj");
    assert_eq!((two.num_margins(), two.num_trees()), (2, 8));
    let model = load("softprob.json");
    assert_eq!(model.version(), "3.2.0");
    assert_eq!((model.num_features(), model.num_margins()), (6, 3));
    assert_eq!((model.num_trees(), model.num_iterations()), (12, 4));
    assert_eq!(load("forest_of_many.ubj").num_iterations(), 4);
    assert_eq!(load("v1_forest_of_many.ubj").num_iterations(), 4);
    assert_eq!(load("early_stop.json").best_iteration(), Some(1));
}

#[test]
fn rows_of_f64_are_rounded() {
    let (rows, _) = golden();
    let model = load("softprob.json");
    let wide: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|value| f64::from(*value) * (1.0 + 1e-12))
                .collect()
        })
        .collect();
    let options = PredictOptions::default();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(
        bits(model.predict(&wide, &options).unwrap()),
        bits(model.predict(&rows, &options).unwrap())
    );
}

#[test]
fn another_value_may_be_the_missing_one() {
    let (rows, _) = golden();
    let told: Rows = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|value| if value.is_nan() { -999.0 } else { *value })
                .collect()
        })
        .collect();
    assert!(told.concat().contains(&-999.0));
    let model = load("missing.ubj");
    let options = PredictOptions {
        missing: -999.0,
        ..PredictOptions::default()
    };
    let expected = model.predict(&rows, &PredictOptions::default()).unwrap();
    assert_eq!(model.predict(&told, &options).unwrap(), expected);
    assert_ne!(
        model.predict(&told, &PredictOptions::default()).unwrap(),
        expected
    );
}

#[test]
fn what_a_model_does_not_have_is_told() {
    let error = |name: &str, options: &PredictOptions| {
        let model = load(name);
        let error = model.predict(&[[0.0_f32; 6]], options).unwrap_err();
        assert_eq!(model.width(options), Err(error.clone()));
        error.to_string()
    };
    for (from, to) in [(0, 5), (3, 2), (2, 2), (4, 9)] {
        let options = PredictOptions {
            iterations: Iterations::Of(from..to),
            ..PredictOptions::default()
        };
        assert_eq!(
            error("logistic.json", &options),
            format!(
                "iterations {from} to {to} are asked for: expected some of the model's 4, counted from 0, without the last"
            )
        );
    }
    for (what, asked) in [
        ("leaves", "indices of leaves"),
        ("part", "some of the iterations"),
    ] {
        assert_eq!(
            error("linear.json", &options(what).0),
            format!("{asked} are asked for, but the model's booster is `gblinear`: it has no trees")
        );
    }
    let wrong = load("logistic.json").predict(&[vec![0.0_f32; 6], vec![0.0; 5]], &PredictOptions::default());
    assert_eq!(
        wrong,
        Err(PredictError::Features {
            row: 1,
            found: 5,
            expected: 6
        })
    );
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// What is read predicts: no walk goes astray, whatever the file says.
fn read(bytes: &[u8]) -> Result<(), ParseError> {
    let model = Model::parse(bytes)?;
    let rows = [0.0, f32::NAN, -1e30, 7.0].map(|value| vec![value; model.num_features()]);
    for what in ["prediction", "margin", "leaves", "best"] {
        let (options, _) = options(what);
        if let Ok(values) = model.predict(&rows, &options) {
            assert_eq!(values.len(), rows.len() * model.width(&options).unwrap());
        }
    }
    Ok(())
}

#[test]
fn lies_are_told_with_their_tree_and_key() {
    let logistic = |from: &str, to: &str| {
        let text = text("logistic.json");
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    // The first list of this name, with another first value.
    let first_of = |name: &str, key: &str, value: &str| {
        let text = text(name);
        let at = text.find(&format!("\"{key}\":[")).unwrap() + key.len() + 4;
        let end = at + text[at..].find([',', ']']).unwrap();
        format!("{}{value}{}", &text[..at], &text[end..])
    };
    let first = |key: &str, value: &str| first_of("logistic.json", key, value);
    let categories = |key: &str, value: &str| first_of("categories.json", key, value);
    let cases = [
        (
            String::new(),
            "the file is empty: expected a model of XGBoost as JSON or UBJSON",
        ),
        (
            "binf\0\0\0\0".into(),
            "the file begins with the bytes 62 69 6e 66 00 00 00 00: expected a model of XGBoost as JSON or UBJSON, as `save_model` writes it",
        ),
        (
            "tree\nversion=v4\n".into(),
            "the file begins with \"tree\\nversion=v4\\n\"",
        ),
        ("{}".into(), "the learner has no `learner`"),
        (
            r#"{"learner": 1}"#.into(),
            "the learner: at byte 12 of its JSON is `1}`: expected an object",
        ),
        (
            logistic("binary:logistic", "binary:astrology"),
            "the learner: a value of `objective.name` is `binary:astrology`: expected an objective of XGBoost",
        ),
        (
            logistic(r#""name":"gbtree""#, r#""name":"gbforest""#),
            "a value of `gradient_booster.name` is `gbforest`: expected gbtree, dart or gblinear",
        ),
        (
            logistic(r#""name":"gbtree""#, r#""name":"dart""#),
            "the learner has no `gradient_booster.weight_drop`",
        ),
        (
            logistic(r#""name":"gbtree""#, r#""name":"gblinear""#),
            "the learner has no `gradient_booster.model.weights`",
        ),
        (
            logistic(r#""num_class":"0""#, r#""num_class":"many""#),
            "a value of `learner_model_param.num_class` is `many`: expected a whole number from 0 to 1048576",
        ),
        (
            logistic(
                r#""num_feature":"6","num_target""#,
                r#""num_feature":"0","num_target""#,
            ),
            "a value of `learner_model_param.num_feature` is `0`: expected a whole number from 1 to 536870911",
        ),
        (
            logistic(
                r#""num_feature":"6","num_target""#,
                r#""num_feature":"1","num_target""#,
            ),
            "a feature from 0 to 0, as `num_feature` tells of 1",
        ),
        (
            logistic(r#""base_score":"["#, r#""base_score":"[x"#),
            "a value of `learner_model_param.base_score` is `[x",
        ),
        (
            logistic(r#""base_score":"["#, r#""base_score":"[1,2,"#),
            "`learner_model_param.base_score` has 3 values: expected 1, one for each class or target, or one for all",
        ),
        (
            logistic(r#""tree_info":[0"#, r#""tree_info":[0,0"#),
            "`tree_info` has 5 values: expected 4, one for each tree",
        ),
        (
            first("tree_info", "1"),
            "a value of `tree_info` is `1`: expected a whole number from 0 to 0",
        ),
        (
            first("iteration_indptr", "1"),
            "a value of `iteration_indptr` is `[1, 1, 2, 3, 4]`: expected numbers from 0 to 4",
        ),
        (first("left_children", "x"), "tree 0: at byte"),
        (
            first("left_children", "0"),
            "tree 0: `left_children` and `right_children` lead to node 0 more than once: expected a tree",
        ),
        (
            first("left_children", "77"),
            "tree 0: a value of `left_children` is `77`: expected a whole number from 0 to 14",
        ),
        (
            first("left_children", "-1"),
            "tree 0: a value of `right_children` is `2`: expected -1, as on the left",
        ),
        (
            first("left_children", "1, 1"),
            "tree 0: `right_children` has 15 values: expected 16, as `left_children` has",
        ),
        (
            first("split_indices", "-1"),
            "tree 0: a value of `split_indices` is `-1`: expected a whole number from 0 to 2147483647",
        ),
        (
            first("split_conditions", "NaN"),
            "tree 0: a value of `split_conditions` is `NaN`: expected a finite number",
        ),
        (
            first("default_left", "2"),
            "tree 0: a value of `default_left` is `2`: expected a whole number from 0 to 1",
        ),
        (
            first("split_type", "2"),
            "tree 0: a value of `split_type` is `2`: expected a whole number from 0 to 1",
        ),
        (
            first("split_type", "1"),
            "tree 0: a value of `split_type` is `1`: expected 0, as `categories_nodes` has no node 0",
        ),
        (
            categories("categories", "16777216"),
            "tree 0: a value of `categories` is `16777216`: expected a whole number from 0 to 16777215",
        ),
        (
            categories("categories_segments", "1000"),
            "tree 0: a value of `categories_segments` is `1000`: expected a whole number from 0 to 98",
        ),
        (
            categories("categories_sizes", "99"),
            "tree 0: a value of `categories_sizes` is `99`: expected a whole number from 0 to 98",
        ),
        (
            categories("categories_nodes", "-1"),
            "tree 0: a value of `categories_nodes` is `-1`: expected a whole number from 0 to",
        ),
        (
            logistic(r#""size_leaf_vector":"1""#, r#""size_leaf_vector":"2""#),
            "tree 0 has leaves of 2 values (`size_leaf_vector`), which are not supported: train with `multi_strategy=\"one_output_per_tree\"`",
        ),
    ];
    for (number, (text, expected)) in cases.into_iter().enumerate() {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "case {number}: {error}");
    }
    let path = folder().join("answers.json");
    let error = Model::load(&path).unwrap_err();
    assert!(matches!(&error, LoadError::Parse { .. }), "{error}");
    let error = Model::load("/nowhere/model.ubj").unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the model file /nowhere/model.ubj: No such file"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed, there is an error or a model that predicts.
    #[test]
    fn changed_files_have_answers(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts in prop::bool::weighted(0.2),
    ) {
        let names = ["logistic.json", "categories_missing.ubj", "v1_dart.json", "linear_of_many.ubj"];
        let mut bytes = std::fs::read(folder().join(names[which])).unwrap();
        for (place, byte) in &changes {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(&bytes);
    }
}

/// Rows that equal themselves, for the comparison.
fn whole_rows() -> Rows {
    let (rows, _) = golden();
    rows.into_iter()
        .filter(|row| row.iter().all(|value| !value.is_nan()))
        .collect()
}

fn expected(name: &str, options: &PredictOptions) -> Rows {
    let model = load(name);
    let values = model.predict(&whole_rows(), options).unwrap();
    values
        .chunks(model.width(options).unwrap())
        .map(<[f32]>::to_vec)
        .collect()
}

#[test]
fn a_model_in_a_pipeline() {
    let hash = purlin_inference::hash_bytes(&std::fs::read(folder().join("softprob.json")).unwrap());
    let handlers = [
        (
            XgBoost::from_path(folder().join("softprob.json")),
            "XGBoost softprob.json",
            PredictOptions::default(),
        ),
        (
            XgBoost::from_bytes("held", std::fs::read(folder().join("softprob.json")).unwrap())
                .with_output(Output::Margin)
                .with_iterations(Iterations::Of(1..2))
                .with_threads(2),
            "XGBoost held",
            PredictOptions {
                output: Output::Margin,
                iterations: Iterations::Of(1..2),
                ..PredictOptions::default()
            },
        ),
    ];
    for (handler, id, options) in handlers {
        assert_eq!(handler.model_id(), id);
        let p = Pipeline::new();
        let results = p
            .apply(Create::new(whole_rows()))
            .apply(RunInference::new(handler));
        let found = results.map("Inference", |result| {
            (result.model_hash.unwrap_or_default(), result.inference)
        });
        let expected = expected("softprob.json", &options).into_iter();
        let expected: Vec<_> = expected.map(|values| (hash.clone(), values)).collect();
        PAssert::that(&found).contains_in_any_order(expected);
        p.run(&PipelineOptions::default()).unwrap();
    }
}

#[test]
fn a_row_of_another_width_is_one_dead_letter() {
    let rows: Vec<Vec<f64>> = (0..200)
        .map(|row| vec![0.5; if row == 77 { 5 } else { 6 }])
        .collect();
    let p = Pipeline::new();
    let handler = XgBoost::from_path(folder().join("logistic.json"))
        .with_f64_rows()
        .with_missing(-1.0);
    let (results, failed) = p
        .apply(Create::new(rows))
        .apply(RunInference::new(handler).with_dead_letters());
    let widths = results.map("Width", |result| result.inference.len() as u64);
    PAssert::that(&widths).contains_in_any_order(vec![1; 199]);
    let errors = failed.map("Error", |failed| failed.error);
    PAssert::that(&errors).contains_in_any_order(["row 0 has 5 features, the model has 6".to_owned()]);
    p.run(&PipelineOptions::default()).unwrap();
}

#[test]
fn a_model_that_changes_while_the_job_runs() {
    let p = Pipeline::new();
    let path = folder().join("logistic.json").display().to_string();
    let models = p.apply(Create::new([ModelMetadata::at(&path)]));
    let handler = XgBoost::from_path("/never/read.ubj").with_output(Output::Margin);
    let results = p
        .apply_named("Rows", Create::new(whole_rows()))
        .apply(RunInference::new(handler).with_model_updates(&models));
    let margins = results.map("Margin", |result| result.inference);
    let options = PredictOptions {
        output: Output::Margin,
        ..PredictOptions::default()
    };
    PAssert::that(&margins).contains_in_any_order(expected("logistic.json", &options));
    p.run(&PipelineOptions::default()).unwrap();
}
