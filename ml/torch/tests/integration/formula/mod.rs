//! Weights that `golden.py` and these tests compute alike.

use std::sync::Arc;

use purlin_torch::models::{Architecture, LoadOptions, Model, load_model};
use purlin_torch::tuning::Precision;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// `count` numbers in -1 to 1 that depend on `key`.
pub fn hashed(key: u32, count: usize) -> impl Iterator<Item = f64> {
    (0..count as u32).map(move |i| {
        let mut x = i
            .wrapping_mul(1_664_525)
            .wrapping_add(key.wrapping_mul(1_013_904_223))
            .wrapping_add(12_345);
        for _ in 0..2 {
            x ^= x >> 16;
            x = x.wrapping_mul(0x045d_9f3b);
        }
        x ^= x >> 16;
        f64::from(x) / 2f64.powi(31) - 1.0
    })
}

/// The network with formula weights, through a safetensors file as a user would load it.
pub fn formula_model(architecture: Architecture, precision: Precision) -> Arc<dyn Model> {
    let specs = architecture.tensors(architecture.default_classes());
    let data: Vec<Vec<u8>> = specs
        .iter()
        .enumerate()
        .map(|(key, spec)| {
            let count = spec.shape.iter().product::<i64>() as usize;
            let fan_in = spec.shape[1..].iter().product::<i64>() as f64;
            let value = |value: f64| match spec.name.rsplit('.').next() {
                _ if spec.shape.len() > 1 => value * (6.0 / fan_in).sqrt(),
                Some("running_var") => 1.5 + 0.5 * value,
                Some("weight") => 0.9 + 0.1 * value,
                _ => 0.1 * value,
            };
            hashed(key as u32, count)
                .flat_map(|hash| (value(hash) as f32).to_le_bytes())
                .collect()
        })
        .collect();
    let views = specs.iter().zip(&data).map(|(spec, data)| {
        let shape = spec.shape.iter().map(|&dim| dim as usize).collect();
        (&spec.name, TensorView::new(Dtype::F32, shape, data).unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("formula.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let options = LoadOptions {
        precision,
        ..LoadOptions::named(architecture.name()).unwrap()
    };
    load_model(&path, &options).unwrap()
}
