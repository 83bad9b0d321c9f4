//! Files that are no models, models that an engine does not take, and rows that a model does not take.

use purlin_onnx::{Engine, LoadError, Model, ModelOptions, ParseError, RunError, Tensor};

use crate::{engines, load, path};

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn options(engine: &Engine) -> ModelOptions {
    ModelOptions {
        engine: engine.clone(),
        ..ModelOptions::default()
    }
}

fn error_of(bytes: &[u8]) -> String {
    Model::from_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn what_is_no_model_is_told() {
    assert_eq!(error_of(b""), "it has 0 bytes: expected ONNX");
    assert_eq!(
        error_of(b"tree\nversion=v4\n"),
        "it is not ONNX: it begins with \"tree\\nversion=v4\\n\""
    );
    assert_eq!(
        error_of(&[0, 1, 2, 0xff]),
        "it is not ONNX: it begins with the bytes 00 01 02 ff"
    );
    let error = Model::load("/nowhere/model.onnx").unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }));
    assert!(
        error
            .to_string()
            .starts_with("cannot read the model file /nowhere/model.onnx: No such file"),
        "{error}"
    );
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_an_error() {
    for name in ["sk_boosted_two", "torch_conv", "lgb_two"] {
        let bytes = bytes(name);
        let mut cut_off = 0;
        for length in (0..bytes.len()).step_by(7) {
            match Model::from_bytes(&bytes[..length]) {
                Err(ParseError::CutOff(_)) => cut_off += 1,
                Err(_) => {}
                // The versions of operators come last: all but them may be there.
                Ok(model) => assert!(
                    length + 64 > bytes.len() && model.opset() == 0,
                    "{name}, {length} bytes"
                ),
            }
        }
        assert!(cut_off > bytes.len() / 7 / 2, "{name}: {cut_off}");
    }
    let error = error_of(&bytes("torch_conv")[..1000]);
    assert!(
        error.starts_with("it is ONNX that was cut off: its protobuf cannot be read to its end"),
        "{error}"
    );
}

#[test]
fn bytes_that_are_changed_never_stop_the_process() {
    // Each is an error, or a model that runs or fails.
    for name in ["sk_boosted_two", "sk_imputed", "lgb_three"] {
        let good = bytes(name);
        let rows = [vec![0.5f32; 4], vec![-0.5f32; 4]];
        let mut random = 17u64;
        for _ in 0..150 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let mut changed = good.clone();
            changed[(random >> 33) as usize % good.len()] = (random >> 24) as u8;
            if let Ok(model) = Model::from_bytes(&changed) {
                let _ = model.run::<Vec<f32>, Vec<Tensor>>(&rows);
            }
        }
    }
}

#[test]
fn operators_that_tract_does_not_have_are_told_with_their_nodes() {
    let error = Model::load(path("hand_operators")).unwrap_err().to_string();
    let told = "tract does not have what these nodes ask for: made_up (operator Erfinv, opset 17), \
                y (operator ai.onnx.ml.SVMRegressor, opset 3); ";
    assert!(error.contains(told), "{error}");
    assert!(error.contains("Engine::OnnxRuntime"), "{error}");
}

#[test]
fn shapes_that_do_not_fit_are_told_with_their_node() {
    for engine in engines() {
        let error = Model::load_with(path("hand_shapes"), &options(&engine))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot use its graph, of opset 17"), "{error}");
        assert!(error.contains("wrong_product"), "{error}");
    }
}

#[test]
fn inputs_of_types_that_rows_cannot_have_are_told() {
    let error = Model::load(path("hand_half")).unwrap_err().to_string();
    assert!(
        error.contains("the input x is FLOAT16, which rows cannot have"),
        "{error}"
    );
}

#[test]
fn weights_in_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::copy(path("hand_external"), &file).unwrap();
    let error = Model::load(&file).unwrap_err().to_string();
    assert!(
        error.contains("the tensor w is in the file weights.bin: cannot read"),
        "{error}"
    );
    assert!(error.contains("No such file"), "{error}");
    let error = error_of(&bytes("hand_external"));
    assert!(
        error.contains(
            "the tensor w is in the file weights.bin: a model that the program holds cannot have files"
        ),
        "{error}"
    );
    let write = |weights: [f32; 2]| {
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        std::fs::write(folder.path().join("weights.bin"), bytes).unwrap();
    };
    let mut hashes = Vec::new();
    for engine in engines() {
        for weights in [[2.0, 3.0], [4.0, 5.0]] {
            write(weights);
            let model = Model::load_with(&file, &options(&engine)).unwrap();
            let found: Vec<Vec<f32>> = model.run(&[vec![1f32, 1.0]]).unwrap();
            assert_eq!(found, [weights.to_vec()]);
            hashes.push(model.sha256().to_owned());
        }
    }
    // Other weights are another model.
    assert_ne!(hashes[0], hashes[1]);
}

#[test]
fn outputs_that_are_not_there_are_told() {
    let options = ModelOptions {
        outputs: Some(vec!["probability".to_owned()]),
        ..ModelOptions::default()
    };
    let error = Model::load_with(path("lgb_two"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "there is no output probability: the model has label:INT64[1], probabilities:FP32[-1,2]"
        ),
        "{error}"
    );
}

#[test]
fn outputs_that_are_chosen_come_in_their_order() {
    for engine in engines() {
        let options = ModelOptions {
            engine,
            outputs: Some(vec!["probabilities".to_owned(), "label".to_owned()]),
        };
        let model = Model::load_with(path("lgb_two"), &options).unwrap();
        let found: Vec<(Vec<f32>, i64)> = model.run(&[vec![0.5f32, 1.5, -0.5, 0.1]]).unwrap();
        assert_eq!(found[0].1, i64::from(found[0].0[1] > 0.5));
        let options = ModelOptions {
            outputs: Some(vec!["label".to_owned()]),
            ..options
        };
        let model = Model::load_with(path("lgb_two"), &options).unwrap();
        let labels: Vec<i64> = model.run(&[vec![0.5f32, 1.5, -0.5, 0.1]]).unwrap();
        assert_eq!(labels, [found[0].1]);
    }
}

#[test]
fn a_row_that_does_not_fit_is_told_and_costs_itself_alone() {
    for engine in engines() {
        let model = load("sk_columns", &engine);
        let good = || {
            vec![
                Tensor::one("age", 40f32),
                Tensor::one("doors", 4i64),
                Tensor::one("colour", "red".to_owned()),
            ]
        };
        let mut rows: Vec<Vec<Tensor>> = (0..50).map(|_| good()).collect();
        rows[7].pop();
        rows[19][1] = Tensor::one("doors", 4f32);
        rows[33][0] = Tensor::list("age", vec![1f32, 2.0]);
        let found: Vec<Result<f32, RunError>> = model.run_each(&rows).unwrap();
        let errors: Vec<String> = found
            .iter()
            .filter_map(|found| Some(found.as_ref().err()?.to_string()))
            .collect();
        assert_eq!(
            errors,
            [
                "row 7: the input colour:BYTES[-1,1] has no tensor",
                "row 19: the input doors is INT64, the row has FP32",
                "row 33: the input age has the shape [1], the row has [2]",
            ]
        );
        let error = model.run::<Vec<Tensor>, f32>(&rows).unwrap_err();
        assert_eq!(error.to_string(), errors[0]);
    }
}

#[test]
fn what_fails_within_the_model_is_told_with_the_engine() {
    for engine in engines() {
        // There is no token 99.
        let model = load("torch_text", &engine);
        let row = |token: i64| {
            vec![
                Tensor::list("tokens", vec![token]),
                Tensor::list("mask", vec![1i64]),
            ]
        };
        let found: Vec<Result<Vec<Tensor>, RunError>> = model.run_each(&[row(99)]).unwrap();
        let error = found[0].as_ref().unwrap_err().to_string();
        assert!(error.contains("failed on 1 rows"), "{error}");
    }
}

#[cfg(feature = "onnxruntime")]
#[test]
fn a_library_that_is_not_there_is_told() {
    let library = purlin_onnx::OnnxRuntime {
        library: Some("/nowhere/libonnxruntime.so".into()),
        ..Default::default()
    };
    let error = Model::load_with(path("hand_twice"), &options(&Engine::OnnxRuntime(library))).unwrap_err();
    let told =
        "ONNX Runtime cannot be had: its library /nowhere/libonnxruntime.so cannot be read: No such file";
    assert!(error.to_string().contains(told), "{error}");
}

#[test]
fn operators_that_tract_does_not_have_are_run_by_onnx_runtime() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Tract) {
        let model = load("hand_support", &engine);
        let found: Vec<f32> = model.run(&[vec![1f32, 2.0], vec![-1.0, 0.5]]).unwrap();
        // A linear kernel: 0.5 x (1, 2), and 0.25.
        assert_eq!(found, [2.75, 0.25]);
    }
    let error = Model::load(path("hand_support")).unwrap_err().to_string();
    assert!(
        error.contains("support (operator ai.onnx.ml.SVMRegressor, opset 1)"),
        "{error}"
    );
}
