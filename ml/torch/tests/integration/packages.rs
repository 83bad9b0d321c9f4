//! Networks that PyTorch compiled ahead of time (`golden.py`).

use std::io::Write as _;
use std::path::{Path, PathBuf};

use purlin_torch::models::{LoadOptions, Model, load_model};
use purlin_torch::tuning::{Device, Precision};
use tch::{Kind, Tensor};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/weights")
        .join(name)
}

fn options() -> LoadOptions {
    LoadOptions::named("torchscript").unwrap()
}

/// Images, each with the number of its row in its first channel and zeros in the others.
fn images(count: i64) -> Tensor {
    let channels = Tensor::zeros([count, 3, 224, 224], (Kind::Float, tch::Device::Cpu));
    channels
        .select(1, 0)
        .copy_(&Tensor::arange(count, (Kind::Float, tch::Device::Cpu)).view([count, 1, 1]));
    channels
}

fn check(model: &dyn Model, count: i64) {
    let logits = model.forward(&images(count)).unwrap();
    let found = Vec::<Vec<f32>>::try_from(logits).unwrap();
    let expected: Vec<Vec<f32>> = (0..count).map(|row| vec![row as f32, 0.0, 0.0]).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// The golden files' libraries were compiled for it.
fn has_avx2() -> bool {
    let has = is_x86_feature_detected!("avx2");
    if !has {
        println!("skipped: this processor lacks AVX2, for which the packages were compiled");
    }
    has
}

#[test]
fn compiled_networks_take_batches_of_any_size() {
    if !has_avx2() {
        return;
    }
    for name in ["compiled.pt2", "compiled_for_one.pt2"] {
        let model = load_model(&golden(name), &options()).unwrap();
        assert_eq!(model.num_classes(), 3, "{name}");
        for count in [1, 2, 5, 33] {
            check(&*model, count);
        }
    }
}

#[test]
fn threads_share_a_compiled_network() {
    if !has_avx2() {
        return;
    }
    let model = load_model(&golden("compiled.pt2"), &options()).unwrap();
    std::thread::scope(|scope| {
        for count in [2, 3, 4, 5, 6, 7] {
            let model = &model;
            scope.spawn(move || check(&**model, count));
        }
    });
}

#[test]
fn a_compiled_network_keeps_its_number_format_and_its_device() {
    if !has_avx2() {
        return;
    }
    let error = |options: &LoadOptions| {
        load_model(&golden("compiled.pt2"), options)
            .unwrap_err()
            .to_string()
    };
    let bf16 = error(&LoadOptions {
        precision: Precision::Bf16,
        ..options()
    });
    assert!(
        bf16.contains("takes no batches of bf16 images of 3x224x224"),
        "{bf16}"
    );
    assert!(bf16.contains("compiled.pt2"), "{bf16}");
    let classes = error(&LoadOptions {
        num_classes: Some(7),
        ..options()
    });
    assert!(classes.contains("has 3 classes, not 7"), "{classes}");
    if Device::Gpu.open().is_ok() {
        let gpu = error(&LoadOptions {
            device: Device::Gpu,
            ..options()
        });
        assert!(gpu.contains("was compiled for cpu, not for cuda"), "{gpu}");
    }
}

#[test]
fn what_is_not_compiled_or_damaged_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let archive = |name: &str, members: &[&str]| {
        let path = folder.path().join(name);
        let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
        for member in members {
            zip.start_file(*member, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"{}").unwrap();
        }
        zip.finish().unwrap();
        path
    };
    let error = |path: &Path| load_model(path, &options()).unwrap_err().to_string();
    let exported = archive(
        "exported.pt2",
        &["exported/models/model.json", "exported/archive_format"],
    );
    let text = error(&exported);
    assert!(text.contains("is not compiled"), "{text}");
    assert!(text.contains("aoti_compile_and_package"), "{text}");

    let empty = archive(
        "empty.pt2",
        &["empty/data/aotinductor/model/wrapper_metadata.json"],
    );
    let text = error(&empty);
    assert!(text.contains("without its member *.wrapper.cpp"), "{text}");

    // Cut off in transit: no archive any more.
    let whole = std::fs::read(golden("compiled.pt2")).unwrap();
    let cut = folder.path().join("cut.pt2");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    assert!(
        error(&cut).contains("the zip archive is damaged"),
        "{}",
        error(&cut)
    );
}
