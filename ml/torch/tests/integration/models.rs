//! The networks against torchvision's, with weights that both sides compute by one formula (`golden.py`).

use std::collections::HashMap;
use std::path::Path;

use purlin_torch::models::{Architecture, LoadOptions, Model, load_model};
use purlin_torch::preprocess::{Pixels, Preprocess};
use purlin_torch::tuning::Precision;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Kind, Tensor};

use crate::formula::{formula_model, hashed};

fn golden() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn formula_images(preprocess: &Preprocess) -> Vec<Pixels> {
    let size = preprocess.width * preprocess.height * preprocess.channels();
    let bytes: Vec<u8> = hashed(99, 2 * size)
        .map(|value| (value * 128.0 + 128.0) as u8)
        .collect();
    bytes
        .chunks(size)
        .map(|image| Pixels { data: image.to_vec() })
        .collect()
}

fn logits(model: &dyn Model, preprocess: &Preprocess, images: &[&Pixels]) -> Vec<f64> {
    let batch = preprocess.batch(images, model.device(), model.kind()).unwrap();
    Vec::try_from(model.forward(&batch).unwrap().to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn check_logits(architecture: Architecture) {
    let golden = golden();
    let expected: Vec<f64> = golden["logits"][architecture.name()]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
        .collect();
    let preprocess = architecture.preprocess();
    let images = formula_images(&preprocess);
    let images: Vec<&Pixels> = images.iter().collect();
    let scale = expected.iter().fold(0f64, |max, v| max.max(v.abs()));

    let model = formula_model(architecture, Precision::Fp32);
    let found = logits(&*model, &preprocess, &images);
    assert_eq!(found.len(), expected.len());
    let worst = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0f64, f64::max);
    assert!(
        worst <= 1e-4 * scale,
        "{architecture}: logits differ by {worst} of {scale}"
    );

    // One image alone gives what it gives in a batch.
    let alone = logits(&*model, &preprocess, &images[1..]);
    let worst = alone
        .iter()
        .zip(&found[found.len() / 2..])
        .map(|(a, b)| (a - b).abs())
        .fold(0f64, f64::max);
    assert!(
        worst <= 1e-4 * scale,
        "{architecture}: an image alone differs by {worst} of {scale}"
    );

    let model = formula_model(architecture, Precision::Bf16);
    let found = logits(&*model, &preprocess, &images);
    let worst = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0f64, f64::max);
    assert!(
        worst <= 0.1 * scale,
        "{architecture}: bf16 logits differ by {worst} of {scale}"
    );
}

#[test]
fn mobilenet_v2_gives_torchvisions_logits() {
    check_logits(Architecture::MobileNetV2);
}

#[test]
fn resnet18_gives_torchvisions_logits() {
    check_logits(Architecture::ResNet18);
}

#[test]
fn resnet50_gives_torchvisions_logits() {
    check_logits(Architecture::ResNet50);
}

#[test]
fn digits_cnn_gives_pytorchs_logits() {
    check_logits(Architecture::DigitsCnn);
}

#[test]
fn tensors_are_named_and_shaped_as_torchvisions() {
    let golden = golden();
    for (name, expected) in golden["tensors"].as_object().unwrap() {
        let specs = name.parse::<Architecture>().unwrap().tensors(1000);
        assert_eq!(specs.len() as u64, expected["count"].as_u64().unwrap(), "{name}");
        let lines: Vec<String> = specs
            .iter()
            .map(|spec| format!("{} {:?}", spec.name, spec.shape))
            .collect();
        let hash = lines
            .join("\n")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        assert_eq!(
            format!("{hash:016x}"),
            expected["fnv1a"].as_str().unwrap(),
            "{name}: {lines:#?}"
        );
    }
    assert_eq!(golden["tensors"].as_object().unwrap().len(), 6);
}

#[test]
fn classes_are_read_off_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seven.safetensors");
    let specs = Architecture::DigitsCnn.tensors(7);
    let data: HashMap<&str, Vec<u8>> = specs
        .iter()
        .map(|s| {
            (
                s.name.as_str(),
                vec![0; s.shape.iter().product::<i64>() as usize * 4],
            )
        })
        .collect();
    let views = specs.iter().map(|s| {
        let shape = s.shape.iter().map(|&dim| dim as usize).collect();
        (
            &s.name,
            TensorView::new(Dtype::F32, shape, &data[s.name.as_str()]).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let mut options = LoadOptions::named("digits_cnn").unwrap();
    assert_eq!(load_model(&path, &options).unwrap().num_classes(), 7);
    options.num_classes = Some(10);
    let error = load_model(&path, &options).unwrap_err().to_string();
    assert!(
        error.contains("2 of another shape: fc2.weight [10, 64], the file has [7, 64], fc2.bias [10]"),
        "{error}"
    );
}

#[test]
fn threads_share_one_model() {
    let model = formula_model(Architecture::DigitsCnn, Precision::Fp32);
    let preprocess = Preprocess::digits();
    let images = formula_images(&preprocess);
    let images: Vec<&Pixels> = images.iter().collect();
    let expected = logits(&*model, &preprocess, &images);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..20)
                        .map(|_| logits(&*model, &preprocess, &images))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in threads {
            for found in thread.join().unwrap() {
                let worst = found
                    .iter()
                    .zip(&expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0f64, f64::max);
                assert!(worst <= 1e-4, "{worst}");
            }
        }
    });
}

#[test]
fn a_batch_of_the_wrong_size_is_an_error() {
    let image = Pixels { data: vec![0; 7] };
    let error = Preprocess::digits()
        .batch(&[&image], tch::Device::Cpu, Kind::Float)
        .unwrap_err()
        .to_string();
    assert!(error.contains("an image of 7 bytes, not 32x32x1"), "{error}");
    let model = formula_model(Architecture::DigitsCnn, Precision::Fp32);
    assert!(
        model
            .forward(&Tensor::zeros([1, 3, 32, 32], (Kind::Float, tch::Device::Cpu)))
            .is_err()
    );
}
