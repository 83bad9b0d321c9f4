//! Weights files made by PyTorch itself (`golden.py`), and damaged ones.

use std::path::{Path, PathBuf};

use purlin_torch::models::{Architecture, LoadModelError, LoadOptions, load_model};
use purlin_torch::weights::{OpenWeightsError, StateDict, WeightsFile};
use tch::{Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/weights")
        .join(name)
}

fn open(name: &str) -> StateDict {
    match WeightsFile::open(&golden(name), None) {
        Ok(WeightsFile::StateDict(weights)) => weights,
        other => panic!("{name}: {other:?}"),
    }
}

fn open_error(name: &str) -> String {
    WeightsFile::open(&golden(name), None)
        .err()
        .unwrap_or_else(|| panic!("{name} opened"))
        .to_string()
}

/// The numbers that `golden.py` puts into its tensors.
fn numbers(count: usize) -> Vec<f64> {
    (0..count as i64)
        .map(|i| ((i * 7) % 23 - 11) as f64 / 8.0)
        .collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn check_small_state_dict(name: &str, kind: Kind) {
    let weights = open(name);
    let shapes: Vec<(String, Vec<i64>)> = weights
        .tensors()
        .map(|(n, s)| (n.to_owned(), s.to_vec()))
        .collect();
    let expected = [
        ("bn.bias", vec![3]),
        ("bn.running_mean", vec![3]),
        ("bn.running_var", vec![3]),
        ("bn.weight", vec![3]),
        ("conv.bias", vec![3]),
        ("conv.weight", vec![3, 2, 2, 2]),
    ];
    assert_eq!(shapes, expected.map(|(n, s)| (n.to_owned(), s)), "{name}");
    for (tensor, shape) in shapes {
        let loaded = weights.tensor(&tensor).unwrap();
        assert_eq!(loaded.kind(), kind, "{name}: {tensor}");
        assert_eq!(loaded.size(), shape);
        assert_eq!(
            values(&loaded),
            numbers(shape.iter().product::<i64>() as usize),
            "{name}: {tensor}"
        );
    }
}

#[test]
fn every_way_to_save_a_state_dict_reads_the_same() {
    for name in [
        "plain_dict.pt",
        "ordered.pth",
        "protocol4.bin",
        "nested_state_dict.pt",
        "nested_model.pt",
        "module_prefix.pth",
        "default_dict.pth",
        "legacy.pth",
        "legacy_protocol4.pth",
        "rezipped.pth",
        "rezipped_flat.pth",
        "tensors.safetensors",
    ] {
        check_small_state_dict(name, Kind::Float);
    }
}

#[test]
fn number_formats_are_kept() {
    check_small_state_dict("bf16.pt", Kind::BFloat16);
    check_small_state_dict("half.pt", Kind::Half);
    check_small_state_dict("double.pt", Kind::Double);
    let bf16 = open("bf16.safetensors").tensor("conv.weight").unwrap();
    assert_eq!((bf16.kind(), values(&bf16)), (Kind::BFloat16, numbers(24)));
    let integers = open("integers.pt");
    for (name, kind) in [("long", Kind::Int64), ("int", Kind::Int), ("byte", Kind::Uint8)] {
        let tensor = integers.tensor(name).unwrap();
        assert_eq!(
            (tensor.kind(), values(&tensor)),
            (kind, vec![0.0, 1.0, 2.0, 3.0, 4.0])
        );
    }
    assert_eq!(values(&integers.tensor("bool").unwrap()), [1.0, 0.0]);
}

#[test]
fn the_format_is_told_by_the_content_not_by_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    std::fs::copy(golden("ordered.pth"), &path).unwrap();
    assert!(matches!(
        WeightsFile::open(&path, None),
        Ok(WeightsFile::StateDict(_))
    ));
    std::fs::copy(golden("tensors.safetensors"), path.with_extension("pth")).unwrap();
    assert!(matches!(
        WeightsFile::open(&path.with_extension("pth"), None),
        Ok(WeightsFile::StateDict(_))
    ));
    std::fs::copy(golden("scripted.pt"), path.with_extension("bin")).unwrap();
    assert!(matches!(
        WeightsFile::open(&path.with_extension("bin"), None),
        Ok(WeightsFile::TorchScript(_))
    ));
}

#[test]
fn views_are_read_through_their_strides() {
    let weights = open("views.pth");
    let base = Tensor::from_slice(&numbers(24)).reshape([6, 4]);
    let read = |name: &str| weights.tensor(name).unwrap().to_kind(Kind::Double);
    let same = |name: &str, expected: &Tensor| {
        assert_eq!(read(name).size(), expected.size(), "{name}");
        assert_eq!(values(&read(name)), values(expected), "{name}");
    };
    same("base", &base);
    same("transposed", &base.transpose(0, 1));
    same("slice", &base.slice(0, 2, 5, 1).slice(1, 1, 3, 1));
    same("every_second", &base.slice(0, 0, 6, 2));
    same("expanded", &base.slice(0, 0, 1, 1).expand([3, 4], false));
    same("scalar", &Tensor::from(0.5));
    same("empty", &Tensor::zeros([0, 3], (Kind::Double, tch::Device::Cpu)));
    same(
        "channels_last",
        &Tensor::from_slice(&numbers(120)).reshape([2, 3, 4, 5]),
    );
    same("parameter", &Tensor::from_slice(&numbers(3)));
}

/// Tensors that PyTorch marks as the negatives of what is stored; those that are marked otherwise are not read.
#[test]
fn marks_that_change_a_tensors_meaning_are_honoured() {
    let base = Tensor::from_slice(&numbers(24)).reshape([6, 4]);
    for name in ["negated.pth", "negated_legacy.pth"] {
        let weights = open(name);
        let read = |name: &str| values(&weights.tensor(name).unwrap());
        assert_eq!(read("base"), values(&base));
        assert_eq!(read("negated"), values(&base.neg()), "{name}");
        assert_eq!(read("parameter"), values(&base.neg()), "{name}");
        let slice = base.neg().slice(0, 1, 3, 1).slice(1, 0, 4, 2);
        assert_eq!(read("negated_slice"), values(&slice), "{name}");
    }
    // The imaginary part of the conjugate of base + (base + 1)i.
    let imaginary = open("imaginary.pth").tensor("imaginary").unwrap();
    assert_eq!(values(&imaginary), values(&(-(&base + 1.0))));

    let complex = open("complex.pth");
    assert_eq!(
        complex.tensors().map(|(name, _)| name).collect::<Vec<_>>(),
        ["base"]
    );
    let error = complex
        .check(&specs(&[("conjugated", &[6, 4])]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("conjugated (a tensor with the mark \"conj\", which is not read)"),
        "{error}"
    );
}

fn specs(tensors: &[(&str, &[i64])]) -> Vec<purlin_torch::models::TensorSpec> {
    tensors
        .iter()
        .map(|&(name, shape)| purlin_torch::models::TensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
        })
        .collect()
}

const SMALL: [(&str, &[i64]); 6] = [
    ("conv.weight", &[3, 2, 2, 2]),
    ("conv.bias", &[3]),
    ("bn.weight", &[3]),
    ("bn.bias", &[3]),
    ("bn.running_mean", &[3]),
    ("bn.running_var", &[3]),
];

/// Python objects, tensors in formats that are not read, parameters with attributes: in the state dict and beside it.
#[test]
fn what_lies_beside_the_weights_is_passed_over() {
    for name in [
        "beside.pth",
        "beside_protocol4.pth",
        "beside_legacy.pth",
        "one_f8.safetensors",
    ] {
        check_small_state_dict(name, Kind::Float);
        let weights = open(name);
        assert_eq!(weights.check(&specs(&SMALL)), Ok(()), "{name}");
    }
    // Where the network needs it, it is told what stands there.
    let needed = [
        ("x.uint16", &[3][..]),
        ("x.sparse", &[2, 2]),
        ("x.meta", &[2]),
        ("x.size", &[2]),
    ];
    let error = open("beside.pth").check(&specs(&needed)).unwrap_err().to_string();
    for what in [
        "x.meta (a tensor of the meta device, which has no numbers), x.size (the Python object torch.Size), \
         x.sparse (a sparse tensor), x.uint16 (a tensor of torch.uint16 numbers, which are not read)",
        "6 unexpected",
    ] {
        assert!(error.contains(what), "{error}");
    }
    assert!(!error.contains("missing"), "{error}");
    // An object that would run a command is one more opaque value.
    let evil = open("evil.pt");
    assert_eq!(values(&evil.tensor("a").unwrap()), numbers(2));
    assert!(!Path::new("/tmp/purlin-golden-evil").exists());
}

#[test]
fn wrappers_are_entered_and_several_are_told() {
    for wrapper in [
        "net",
        "params",
        "module",
        "model_ema",
        "weights",
        "ema",
        "student",
    ] {
        check_small_state_dict(&format!("under_{wrapper}.pth"), Kind::Float);
    }
    let error = open_error("two_candidates.pth");
    assert!(
        error.contains(
            "several state dicts, under the keys model, model_ema: choose one with --model_state_dict_key"
        ),
        "{error}"
    );
    let under = |key: &str| WeightsFile::open(&golden("two_candidates.pth"), Some(key));
    for (key, factor) in [("model", 0.0), ("model_ema", 1.0), ("model_ema.module", 1.0)] {
        let Ok(WeightsFile::StateDict(weights)) = under(key) else {
            panic!("{key}: {:?}", under(key))
        };
        let expected: Vec<f64> = numbers(3).iter().map(|value| value * factor).collect();
        assert_eq!(values(&weights.tensor("bn.bias").unwrap()), expected, "{key}");
    }
    let error = under("model_em").unwrap_err().to_string();
    assert!(
        error.contains("no dict under the key \"model_em\"")
            && error.contains("the keys model, model_ema, epoch"),
        "{error}"
    );
    let error = WeightsFile::open(&golden("tensors.safetensors"), Some("model")).unwrap_err();
    assert!(
        error.to_string().contains("safetensors file, which has no keys"),
        "{error}"
    );
    let mut options = LoadOptions::named("resnet18").unwrap();
    options.state_dict_key = Some("model_ema".to_owned());
    let error = load_model(&golden("two_candidates.pth"), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("6 unexpected: bn.bias [3]"), "{error}");
}

#[test]
fn the_old_format_reads_views_and_says_what_is_cut_off() {
    let weights = open("legacy_views.pth");
    let base = Tensor::from_slice(&numbers(24)).reshape([6, 4]);
    let read = |name: &str| values(&weights.tensor(name).unwrap());
    assert_eq!(read("all"), values(&base));
    assert_eq!(read("part"), values(&base.slice(0, 2, 5, 1).slice(1, 1, 3, 1)));
    assert_eq!(read("t"), values(&base.transpose(0, 1)));

    let bytes = std::fs::read(golden("legacy.pth")).unwrap();
    let error = |bytes: &[u8]| {
        WeightsFile::parse(bytes.to_vec(), Path::new("w.pth"), None)
            .unwrap_err()
            .to_string()
    };
    let cut = error(&bytes[..bytes.len() - 4]);
    assert!(
        cut.contains("its storage ") && cut.contains("is cut off"),
        "{cut}"
    );
    assert!(error(&bytes[..40]).contains("cut off"), "{}", error(&bytes[..40]));
    let little = bytes.windows(14).position(|w| w == b"little_endianq").unwrap();
    let mut big = bytes.clone();
    assert_eq!(big[little + 15], 0x88);
    big[little + 15] = 0x89;
    assert!(error(&big).contains("big-endian"), "{}", error(&big));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(
        error(&tar).contains("tar format (before 0.1.10"),
        "{}",
        error(&tar)
    );
}

/// Before 1.6 a storage could be a view on another; where it starts counts.
#[test]
fn a_view_of_the_old_format_starts_where_its_storage_does() {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend(
        b"\x80\x02}U\x01tctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU\x01aU\x03cpuK\x05\
          (U\x01vK\x02K\x03ttQK\x01K\x02\x85K\x01\x85tRs.",
    );
    file.extend(b"\x80\x02]U\x01aa.\x05\0\0\0\0\0\0\0");
    file.extend((0..5u8).flat_map(|value| f32::from(value).to_le_bytes()));
    let opened = WeightsFile::parse(file, Path::new("w.pth"), None);
    let Ok(WeightsFile::StateDict(weights)) = opened else {
        panic!("{opened:?}")
    };
    assert_eq!(values(&weights.tensor("t").unwrap()), [3.0, 4.0]);
}

#[test]
fn what_is_no_state_dict_is_refused_with_the_remedy() {
    assert!(open_error("whole_model_inside.pth").contains("__main__.WholeModel"));
    let whole = open_error("whole_model.pt");
    assert!(whole.contains("__main__.WholeModel"), "{whole}");
    assert!(open_error("list.pt").contains("holds a list rather than a dict of tensors"));
    assert!(open_error("no_such_file.pt").contains("no_such_file.pt: No such file"));
    let folder = golden("");
    let error = WeightsFile::open(&folder, None).unwrap_err().to_string();
    assert!(error.contains("is not a regular file"), "{error}");
    let error = |bytes: &[u8]| {
        WeightsFile::parse(bytes.to_vec(), Path::new("w.pt"), None)
            .unwrap_err()
            .to_string()
    };
    assert!(error(b"").contains("nothing: it is empty"));
    assert!(error(b"\x89PNG\r\n\x1a\n12345678").contains("no weights file that is known"));
}

#[test]
fn a_misfit_lists_every_name_and_shape() {
    let options = LoadOptions::named("resnet18").unwrap();
    let error = load_model(&golden("with_a_note.pt"), &options).unwrap_err();
    let LoadModelError::DoesNotFit {
        mismatch,
        num_classes: 1000,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(mismatch.missing.len(), Architecture::ResNet18.tensors(1000).len());
    assert_eq!(mismatch.not_tensors, [("note".to_owned(), "a string".to_owned())]);
    let text = error.to_string();
    assert!(text.contains("do not fit resnet18 with 1000 classes"), "{text}");
    assert!(
        text.contains("102 missing: conv1.weight [64, 3, 7, 7], bn1.weight [64]"),
        "{text}"
    );
    assert!(text.contains(" and 90 more\n"), "{text}");
    assert!(
        text.contains("1 unexpected: a [2]\n  1 not tensors: note (a string)"),
        "{text}"
    );

    let shapes = [("conv1.weight", vec![16, 1, 3, 3]), ("conv1.bias", vec![17])].map(|(name, shape)| {
        purlin_torch::models::TensorSpec {
            name: name.to_owned(),
            shape,
        }
    });
    let found = open("plain_dict.pt").check(&shapes).unwrap_err();
    assert_eq!(
        (found.missing.len(), found.unexpected.len(), found.misshaped.len()),
        (2, 6, 0)
    );
    let misshaped = open("plain_dict.pt").check(&[purlin_torch::models::TensorSpec {
        name: "bn.bias".into(),
        shape: vec![5],
    }]);
    assert!(
        misshaped
            .unwrap_err()
            .to_string()
            .contains("1 of another shape: bn.bias [5], the file has [3]")
    );
}

#[test]
fn a_state_dict_needs_a_model_name() {
    let error = load_model(
        &golden("ordered.pth"),
        &LoadOptions::named("torchscript").unwrap(),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("give the model's name (one of mobilenet_v2, resnet18"),
        "{error}"
    );
    let unknown = LoadOptions::named("resnet19").unwrap_err().to_string();
    assert!(
        unknown.contains("unknown model \"resnet19\"") && unknown.contains("resnet152, digits_cnn"),
        "{unknown}"
    );
}

#[test]
fn torchscript_runs_scripted_and_frozen() {
    for name in ["scripted.pt", "frozen.pt"] {
        let model = load_model(&golden(name), &LoadOptions::named("torchscript").unwrap()).unwrap();
        assert_eq!(model.num_classes(), 3);
        let images = Tensor::from_slice(&[1f32, 2.0, 3.0])
            .reshape([1, 3, 1, 1])
            .expand([2, 3, 8, 8], false);
        assert_eq!(
            values(&model.forward(&images).unwrap()),
            [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
        );
    }
    let mut options = LoadOptions::named("torchscript").unwrap();
    options.num_classes = Some(4);
    let error = load_model(&golden("scripted.pt"), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("has 3 classes, not 4"), "{error}");
    // The digits network's greyscale images do not fit a network for three channels.
    let error = load_model(&golden("scripted.pt"), &LoadOptions::named("digits_cnn").unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not take fp32 images of shape [1, 1, 32, 32]: "),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn torchscript_takes_bf16_unless_frozen_in_fp32() {
    let mut options = LoadOptions::named("torchscript").unwrap();
    options.precision = purlin_torch::tuning::Precision::Bf16;
    let model = load_model(&golden("scripted.pt"), &options).unwrap();
    let images = Tensor::ones([1, 3, 4, 4], (Kind::BFloat16, tch::Device::Cpu));
    assert_eq!(values(&model.forward(&images).unwrap()), [1.0, 1.0, 1.0]);
    let error = load_model(&golden("frozen.pt"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("bf16") && error.contains("try the other --precision"),
        "{error}"
    );
}

/// Files as an attacker or a broken download leaves them: an error or a reading, never a panic.
#[test]
fn damaged_files_never_panic() {
    let names = [
        "ordered.pth",
        "protocol4.bin",
        "views.pth",
        "nested_state_dict.pt",
        "tensors.safetensors",
        "scripted.pt",
        "negated_legacy.pth",
        "rezipped.pth",
    ];
    let mut opened = 0;
    for name in names {
        let bytes = std::fs::read(golden(name)).unwrap();
        let mut read = |damaged: Vec<u8>| {
            if let Ok(WeightsFile::StateDict(weights)) = WeightsFile::parse(damaged, Path::new(name), None) {
                let names: Vec<String> = weights.tensors().map(|(name, _)| name.to_owned()).collect();
                opened += names.iter().filter(|name| weights.tensor(name).is_ok()).count();
            }
        };
        // The longer files repeat themselves.
        let step = if name == "scripted.pt" || name == "rezipped.pth" || name == "views.pth" {
            5
        } else {
            2
        };
        for len in (0..bytes.len()).step_by(step) {
            read(bytes[..len].to_vec());
        }
        for at in (0..bytes.len()).step_by(step) {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                read(damaged);
            }
        }
    }
    assert!(opened > 0);
}

/// A pickle can ask for any allocation: these ask for a lot, in few bytes.
#[test]
fn hostile_pickles_are_refused_without_allocating() {
    let zip_with = |pickle: &[u8]| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut zip = zip::ZipWriter::new(&mut bytes);
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, data) in [("a/data.pkl", pickle), ("a/data/0", &[0u8; 16])] {
            zip.start_file(name, stored).unwrap();
            std::io::Write::write_all(&mut zip, data).unwrap();
        }
        zip.finish().unwrap();
        bytes.into_inner()
    };
    let parse = |pickle: &[u8]| WeightsFile::parse(zip_with(pickle), Path::new("w.pt"), None);
    let torch_zip = |pickle: &[u8]| match parse(pickle) {
        Err(OpenWeightsError::TorchZip { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    // Lengths of almost 2^32 and 2^64 bytes.
    assert!(torch_zip(b"\x80\x02X\xff\xff\xff\xff").contains("cut off"));
    assert!(torch_zip(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff").contains("cut off"));
    assert!(torch_zip(b"\x80\x02\x8b\xff\xff\xff\x7f").contains("cut off"));
    // Stack underflow, a mark without items, an unknown memo, an unknown instruction, no end.
    for pickle in [
        &b"\x80\x02R."[..],
        b"\x80\x02t.",
        b"\x80\x02}u.",
        b"\x80\x02h\x07.",
        b"\x80\x02\xfe",
        b"\x80\x02}",
    ] {
        torch_zip(pickle);
    }
    // A dict that contains itself.
    assert!(torch_zip(b"\x80\x02]q\x00h\x00a.").contains("holds a list"));
    let own = parse(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.");
    assert!(matches!(own, Ok(WeightsFile::StateDict(weights)) if weights.tensors().count() == 0));
    // A tensor of 2^31 x 2^31 elements with strides 0 on a storage of 4.
    let tensor = b"\x80\x02}X\x01\x00\x00\x00tctorch._utils\n_rebuild_tensor_v2\n(\
        (X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ\
        K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x00K\x00\x86\x89)tRs.";
    let Ok(WeightsFile::StateDict(weights)) = parse(tensor) else {
        panic!("{:?}", parse(tensor))
    };
    assert_eq!(weights.shape("t"), Some(&[i64::from(i32::MAX); 2][..]));
    assert!(weights.tensor("t").unwrap_err().to_string().contains("refused"));
    // The same with strides that reach far outside.
    let far = tensor.to_vec();
    let at = far.windows(5).position(|w| w == b"K\x00K\x00\x86").unwrap();
    let mut far_bytes = far[..at].to_vec();
    far_bytes.extend(b"J\xff\xff\xff\x7fK\x01\x86");
    far_bytes.extend(&far[at + 5..]);
    let Ok(WeightsFile::StateDict(weights)) = parse(&far_bytes) else {
        panic!("{:?}", parse(&far_bytes))
    };
    assert!(
        weights
            .tensor("t")
            .unwrap_err()
            .to_string()
            .contains("outside its storage")
    );
}
