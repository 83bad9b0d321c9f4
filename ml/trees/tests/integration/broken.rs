//! Files that are cut, changed, or tell lies: an error that says what is wrong, or a model that predicts.

use proptest::prelude::*;
use purlin_trees::{LoadError, Model, Output, ParseError, PredictError, PredictOptions};

use crate::golden::{folder, golden, text};

/// What is read predicts: no walk goes astray, whatever the file says.
fn read(bytes: &[u8]) -> Result<(), ParseError> {
    let model = Model::parse(bytes)?;
    let rows = [
        vec![0.0; model.num_features()],
        vec![f64::NAN; model.num_features()],
        vec![-1e300; model.num_features()],
    ];
    for output in [Output::Prediction, Output::LeafIndices, Output::Contributions] {
        let options = PredictOptions {
            output,
            ..PredictOptions::default()
        };
        match model.predict(&rows, &options) {
            Ok(values) => assert_eq!(values.len(), rows.len() * model.width(&options)),
            Err(error) => assert_eq!(output, Output::Contributions, "{error}"),
        }
    }
    Ok(())
}

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

/// A model with one of its lines replaced.
fn with(name: &str, key: &str, change: impl Fn(&str) -> String) -> String {
    let text = text(name);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let place = lines
        .iter()
        .position(|line| line.starts_with(&format!("{key}=")))
        .unwrap();
    let value = lines[place].split_once('=').unwrap().1.to_owned();
    lines[place] = format!("{key}={}", change(&value));
    lines.join("\n")
}

/// With the first value of a line replaced.
fn with_first(name: &str, key: &str, value: &str) -> String {
    with(name, key, |old| {
        let rest = old.split_once(' ').map_or("", |(_, rest)| rest);
        format!("{value} {rest}").trim().to_owned()
    })
}

#[test]
fn lies_are_told_with_their_tree_line_and_key() {
    let cases = [
        (
            String::new(),
            "the file is empty: expected a LightGBM text model, which begins with the line `tree`",
        ),
        (
            "\0".repeat(5000),
            "line 1 is `\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0...`: a LightGBM text model begins with the line `tree`",
        ),
        (
            "{\"learner\": 1}".into(),
            "line 1 is `{\\\"learner\\\": 1}`: a LightGBM text model begins with the line `tree`",
        ),
        (
            with("binary", "version", |_| "v2".into()),
            "line 2: the format is version `v2`: expected `v3` or `v4`",
        ),
        (
            with("binary", "objective", |_| "binary sigmoid:0".into()),
            "the header, line 7: a value of `objective` is `binary sigmoid:0`: expected `sigmoid:` with a number of more than 0",
        ),
        (
            with("binary", "objective", |_| "astrology".into()),
            "the header, line 7: a value of `objective` is `astrology`: expected an objective of LightGBM, such as `regression` or `binary`",
        ),
        (
            with("multiclass", "objective", |_| "multiclass num_class:4".into()),
            "the header, line 7: a value of `objective` is `multiclass num_class:4`: expected `num_class:3`, as an iteration has so many trees",
        ),
        (
            with("multiclass", "objective", |_| "binary sigmoid:1".into()),
            "the header, line 7: a value of `objective` is `binary`: expected an objective of many classes, as an iteration has 3 trees",
        ),
        (
            with("binary", "max_feature_idx", |_| "2000000000".into()),
            "the header, line 6: a value of `max_feature_idx` is `2000000000`: expected a whole number from 0 to 536870910",
        ),
        (
            with("binary", "max_feature_idx", |_| "500000000".into()),
            "the header, line 8: `feature_names` has 6 values: expected 500000001, `max_feature_idx` and one more",
        ),
        (
            with("binary", "num_tree_per_iteration", |_| "3".into()),
            "there are 4 trees: `num_tree_per_iteration` on line 4 tells of 3 for each iteration",
        ),
        (
            with("binary", "num_tree_per_iteration", |_| "1000000000".into()),
            "the header, line 4: a value of `num_tree_per_iteration` is `1000000000`: expected a whole number from 1 to 4",
        ),
        (
            with("binary", "tree_sizes", |old| format!("{old} 17")),
            "there are 4 trees: `tree_sizes` on line 10 tells of 5",
        ),
        (
            with("binary", "num_leaves", |_| "2000000000".into()),
            "tree 0, line 21: `leaf_value` has 7 values: expected 2000000000, the tree's leaves",
        ),
        (
            with("binary", "num_leaves", |_| "0".into()),
            "tree 0, line 13: a value of `num_leaves` is `0`: expected a whole number from 1 to 2147483647",
        ),
        (
            with_first("binary", "split_feature", "6"),
            "tree 0, line 15: a value of `split_feature` is `6`: expected a whole number from 0 to 5",
        ),
        (
            with_first("binary", "threshold", "0.5.1"),
            "tree 0, line 17: a value of `threshold` is `0.5.1`: expected a number",
        ),
        (
            with_first("binary", "threshold", "nan"),
            "tree 0, line 17: a value of `threshold` is `NaN`: expected a number",
        ),
        (
            with_first("binary", "decision_type", "12"),
            "tree 0, line 18: a value of `decision_type` is `12`: expected a whole number from 0 to 11",
        ),
        (
            with_first("binary", "decision_type", "1"),
            "expected the number of one of `num_cat` = 0 sets of categories, counted from 0",
        ),
        (
            with_first("binary", "left_child", "6"),
            "tree 0, line 19: a value of `left_child` is `6`: expected a whole number from -7 to 5",
        ),
        (
            with_first("binary", "left_child", "-8"),
            "tree 0, line 19: a value of `left_child` is `-8`: expected a whole number from -7 to 5",
        ),
        (
            with_first("binary", "left_child", "0"),
            "tree 0, lines 19 and 20: `left_child` and `right_child` lead to split 0 more than once: expected a tree",
        ),
        (
            with("categorical", "cat_boundaries", |_| "3 2".into()),
            "a value of `cat_boundaries` is `3 2`: expected numbers from 0 on that never fall",
        ),
        (
            with("categorical", "cat_boundaries", |old| format!("{old} 99")),
            "`cat_boundaries` has 3 values: expected 2, `num_cat` and one more",
        ),
        (
            with_first("categorical", "cat_threshold", "4294967296"),
            "a value of `cat_threshold` is `4294967296`: expected a whole number from 0 to 4294967295",
        ),
        (
            with("linear", "leaf_features", |old| format!("{old} 2")),
            "the sum of `num_features`",
        ),
        (
            text("binary").replace("leaf_value=", "leaf_worth="),
            "tree 0, lines 12 to 28, has no line `leaf_value=`",
        ),
        (
            text("binary").replace("Tree=1\n", ""),
            "expected `Tree=`, `end of trees` or an empty line",
        ),
    ];
    for (text, expected) in cases {
        let found = error(&text);
        assert!(found.contains(expected), "{found}\nnot: {expected}");
    }
}

#[test]
fn splits_that_go_in_circles_apart_from_the_others() {
    // Split 0 has two leaves; splits 1 and 2 lead to each other.
    let text = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=0\nfeature_names=a\n\n\
        Tree=0\nnum_leaves=4\nnum_cat=0\nsplit_feature=0 0 0\nthreshold=1 2 3\nleft_child=-1 2 1\nright_child=-2 -3 -4\n\
        leaf_value=1 2 3 4\n\nend of trees\n";
    assert_eq!(
        error(text),
        "tree 0, lines 14 and 15: `left_child` and `right_child` lead to 1 of the 3 splits from the first one: expected all of them"
    );
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["missing_zero_categorical", "linear_missing"] {
        let text = text(name);
        let end = text.find("end of trees").unwrap() + "end of trees".len();
        for cut in 0..end {
            let error = read(&text.as_bytes()[..cut]).unwrap_err();
            assert!(
                cut < 20 || matches!(error, ParseError::CutOff { .. }),
                "{cut}: {error}"
            );
        }
        read(&text.as_bytes()[..end]).unwrap();
    }
}

#[test]
fn a_removed_line_is_an_error_or_a_model() {
    for name in ["binary", "categorical_missing", "linear_categorical", "no_split"] {
        let text = text(name);
        let lines: Vec<&str> = text.lines().collect();
        for removed in 0..lines.len() {
            let mut rest = lines.clone();
            let line = rest.remove(removed);
            let needed = [
                "leaf_value=",
                "num_leaves=",
                "num_cat=",
                "Tree=",
                "version=",
                "end of trees",
            ];
            let result = read(rest.join("\n").as_bytes());
            if needed.iter().any(|start| line.starts_with(start)) {
                assert!(result.is_err(), "{name} without line {}: {line}", removed + 1);
            }
        }
    }
}

/// A tree in which each right child is a split, down to this depth.
fn deep(depth: usize) -> Model {
    let list = |value: &dyn Fn(usize) -> String, count| (0..count).map(value).collect::<Vec<_>>().join(" ");
    let last = |node: usize| match node + 1 == depth {
        true => format!("-{}", depth + 1),
        false => (node + 1).to_string(),
    };
    let text = format!(
        "tree\nversion=v4\nnum_class=1\nlabel_index=0\nmax_feature_idx=0\nfeature_names=a\n\nTree=0\nnum_leaves={}\nnum_cat=0\n\
         split_feature={}\nthreshold={}\nleft_child={}\nright_child={}\nleaf_value={}\nleaf_count={}\ninternal_count={}\n\nend of trees\n",
        depth + 1,
        list(&|_| "0".into(), depth),
        list(&|node| node.to_string(), depth),
        list(&|node| format!("-{}", node + 1), depth),
        list(&last, depth),
        list(&|leaf| leaf.to_string(), depth + 1),
        list(&|_| "1".into(), depth + 1),
        list(&|node| (depth + 1 - node).to_string(), depth),
    );
    Model::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_tree_as_deep_as_it_has_leaves() {
    let mut options = PredictOptions::default();
    let rows = [[-0.5], [0.5], [12_345.5], [1e9]];
    assert_eq!(
        deep(20_000).predict(&rows, &options).unwrap(),
        [0.0, 1.0, 12_346.0, 20_000.0]
    );
    options.output = Output::Contributions;
    let error = deep(20_000).predict(&rows, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tree 0 is 20000 splits deep: contributions are there up to 1000"
    );
    for (parts, score) in deep(1000)
        .predict(&rows, &options)
        .unwrap()
        .chunks(2)
        .zip([0.0, 1.0, 1000.0, 1000.0])
    {
        assert!((parts[0] + parts[1] - score).abs() < 1e-6, "{parts:?} {score}");
        assert!((parts[1] - 500.0).abs() < 1e-6, "{parts:?}");
    }
}

#[test]
fn contributions_that_cannot_be_told() {
    let options = PredictOptions {
        output: Output::Contributions,
        ..PredictOptions::default()
    };
    let ask = |text: String| {
        let model = Model::parse(text.as_bytes()).unwrap();
        model.predict(&golden().rows, &options).unwrap_err()
    };
    assert_eq!(ask(text("linear")), PredictError::LinearContributions { tree: 0 });
    let without = text("binary").replacen("internal_count=", "internal_sum=", 1);
    assert_eq!(ask(without), PredictError::NoCounts { tree: 0 });
}

#[test]
fn rows_of_another_width() {
    let model = Model::load(folder().join("regression.txt")).unwrap();
    let mut options = PredictOptions::default();
    let rows = [vec![1.0; 6], vec![1.0; 4], vec![1.0; 9]];
    let error = model.predict(&rows, &options).unwrap_err();
    assert_eq!(error.to_string(), "row 1 has 4 features, the model has 6");
    options.any_width = true;
    let found = model.predict(&rows, &options).unwrap();
    let padded = [vec![1.0; 6], vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0], vec![1.0; 6]];
    assert_eq!(found, model.predict(&padded, &PredictOptions::default()).unwrap());
    let error = model.predict_into(&rows, &options, &mut [0.0; 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the output has place for 2 values, the predictions are 3"
    );
}

#[test]
fn errors_of_files_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.txt");
    let error = Model::load(&path).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }));
    assert!(error.to_string().contains("model.txt: No such file"), "{error}");
    std::fs::write(&path, text("binary").as_bytes().split_at(700).0).unwrap();
    let error = Model::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("model.txt: the file ends at line 19 without `end of trees` (trees so far: 1)"),
        "{error}"
    );
    std::fs::write(&path, b"tree\nversion=\xff\n").unwrap();
    let error = Model::load(&path).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "line 2 is not text (UTF-8): expected a LightGBM text model, as `save_model` writes it"
        ),
        "{error}"
    );
}

/// Models with all sorts of lines.
fn a_model() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "binary",
        "missing_zero_categorical",
        "linear_categorical",
        "v3_multiclass",
    ])
    .prop_map(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_never_panic(text in a_model(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = text.into_bytes();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn changed_digits_never_panic(text in a_model(), changes in prop::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 1..4)) {
        let mut bytes = text.into_bytes();
        let digits: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place].is_ascii_digit()).collect();
        for (place, digit) in changes {
            bytes[digits[place.index(digits.len())]] = b'0' + digit;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn changed_lines_never_panic(text in a_model(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), swap: bool) {
        let mut lines: Vec<&str> = text.lines().collect();
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        if swap {
            lines.swap(from, to);
        } else {
            lines.drain(from.min(to)..from.max(to));
        }
        let _ = read(lines.join("\n").as_bytes());
    }
}
