//! Decoding and resizing against PIL and torchvision (`golden.py`).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use purlin_torch::models::Architecture;
use purlin_torch::preprocess::{ColorMode, DecodeError, Decoded, Fit, ImageFormat, Preprocess};
use purlin_torch::tuning::Precision;

use crate::formula::{formula_model, hashed};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(golden("images")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 40);
    names
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(golden("images").join(name)).unwrap()
}

/// What PIL gave, kept as a PNG.
fn expected(name: &str) -> image::DynamicImage {
    image::open(golden("resized").join(name)).unwrap()
}

fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn decoded_pixels_are_pils() {
    let preprocess = Preprocess::imagenet();
    let mut failed = Vec::new();
    for name in names() {
        let decoded = match preprocess.decode(&read(&name)) {
            Ok(decoded) => decoded.into_rgb(),
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        let expected = expected(&format!("{name}.decoded.png")).into_rgb8();
        assert_eq!(
            (decoded.width, decoded.height),
            (expected.width() as usize, expected.height() as usize),
            "{name}"
        );
        let worst = worst(&decoded.data, expected.as_raw());
        if worst > 0 {
            failed.push(format!("{name}: {worst}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn resized_pixels_are_pils() {
    let preprocess = Preprocess::imagenet();
    let mut compared = 0;
    let mut failed = Vec::new();
    for name in names() {
        if !golden("resized").join(format!("{name}.224.png")).exists() {
            continue;
        }
        compared += 1;
        let prepared = preprocess.prepare(&read(&name)).unwrap();
        let worst = worst(
            &prepared.data,
            expected(&format!("{name}.224.png")).into_rgb8().as_raw(),
        );
        if worst > 0 {
            failed.push(format!("{name}: {worst}"));
        }
    }
    assert_eq!(compared, 10);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Black and white noise, computed as `golden.py` does: the hardest picture for a resizer's rounding.
#[test]
fn resized_noise_is_pils() {
    let cases = [
        (301, 211, 40, 30, 3),
        (33, 17, 50, 64, 3),
        (500, 60, 16, 16, 1),
        (1200, 900, 28, 24, 3),
        (90, 120, 89, 119, 1),
    ];
    for (width, height, to_width, to_height, channels) in cases {
        let pixel = |value: f64| match value {
            value if value < -0.4 => 0,
            value if value > 0.4 => 255,
            value => (value * 128.0 + 128.0) as u8,
        };
        let data = hashed(width as u32, width * height * channels)
            .map(pixel)
            .collect();
        let grey = channels == 1;
        let color = if grey { ColorMode::Grey } else { ColorMode::Rgb };
        let preprocess = Preprocess {
            fit: Fit::Resize,
            width: to_width,
            height: to_height,
            color,
            mean: Vec::new(),
            std: Vec::new(),
        };
        let resized = preprocess
            .resize(Decoded {
                width,
                height,
                grey,
                data,
            })
            .unwrap();
        let expected = expected(&format!("noise_{width}x{height}.png"));
        let expected = if grey {
            expected.into_luma8().into_raw()
        } else {
            expected.into_rgb8().into_raw()
        };
        assert!(worst(&resized.data, &expected) == 0, "{width}x{height}");
    }
}

#[test]
fn greyscale_is_pils() {
    let prepared = Preprocess::digits().prepare(&read("rgb_420.jpg")).unwrap();
    assert!(
        worst(
            &prepared.data,
            expected("rgb_420.jpg.grey32.png").into_luma8().as_raw()
        ) == 0
    );
}

#[test]
fn top_class_is_torchvisions_on_every_image() {
    let text = std::fs::read(golden("top1.json")).unwrap();
    let expected: BTreeMap<String, BTreeMap<String, i64>> = serde_json::from_slice(&text).unwrap();
    assert_eq!(expected.keys().cloned().collect::<Vec<_>>(), names());
    let preprocess = Preprocess::imagenet();
    let prepared: Vec<_> = names()
        .iter()
        .map(|name| preprocess.prepare(&read(name)).unwrap())
        .collect();
    for architecture in [Architecture::MobileNetV2, Architecture::ResNet18] {
        let model = formula_model(architecture, Precision::Fp32);
        for (names, images) in names().chunks(16).zip(prepared.chunks(16)) {
            let images: Vec<_> = images.iter().collect();
            let batch = preprocess.batch(&images, model.device(), model.kind()).unwrap();
            let top = Vec::<i64>::try_from(model.forward(&batch).unwrap().argmax(-1, false)).unwrap();
            for (name, class) in names.iter().zip(top) {
                assert_eq!(
                    class,
                    expected[name][architecture.name()],
                    "{architecture} on {name}"
                );
            }
        }
    }
}

#[test]
fn normalization_is_torchvisions() {
    let preprocess = Preprocess {
        fit: Fit::Resize,
        width: 2,
        height: 1,
        ..Preprocess::imagenet()
    };
    let image = purlin_torch::preprocess::Pixels {
        data: vec![0, 128, 255, 17, 34, 51],
    };
    let batch = preprocess
        .batch(&[&image], tch::Device::Cpu, tch::Kind::Float)
        .unwrap();
    assert_eq!(batch.size(), [1, 3, 1, 2]);
    // Channels lie next to each other in memory.
    assert_eq!(batch.stride()[1], 1);
    let found = Vec::<f32>::try_from(batch.reshape([-1])).unwrap();
    let mean = [0.485, 0.456, 0.406];
    let std = [0.229, 0.224, 0.225];
    for (channel, pixels) in [[0u8, 17], [128, 34], [255, 51]].into_iter().enumerate() {
        for (x, pixel) in pixels.into_iter().enumerate() {
            let expected = (f32::from(pixel) / 255.0 - mean[channel]) / std[channel];
            assert!((found[channel * 2 + x] - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn what_is_no_image_says_so() {
    let decode = |bytes: &[u8]| Preprocess::imagenet().decode(bytes).unwrap_err();
    assert_eq!(decode(b""), DecodeError::Empty);
    assert_eq!(
        decode(b"hello, world").to_string(),
        "not an image in a known format (JPEG, PNG, WebP, GIF, BMP); it starts with \"hello, world\""
    );
    for (start, format) in [
        (&b"II*\0\x08\0\0\0"[..], "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
    ] {
        assert_eq!(decode(start), DecodeError::NotRead { format });
    }
    let cut = read("rgb_444.jpg");
    let error = decode(&cut[..cut.len() / 2]).to_string();
    assert!(
        error.starts_with("damaged JPEG image: Premature end of JPEG"),
        "{error}"
    );
    for (name, format) in [
        ("rgb.png", ImageFormat::Png),
        ("lossy.webp", ImageFormat::WebP),
        ("lossless.webp", ImageFormat::WebP),
        ("palette.gif", ImageFormat::Gif),
        ("rgb.bmp", ImageFormat::Bmp),
    ] {
        let bytes = read(name);
        match decode(&bytes[..bytes.len() / 2]) {
            DecodeError::Damaged { format: found, .. } => assert_eq!(found, format),
            other => panic!("{name}: {other}"),
        }
    }
}

/// A header that claims a huge image is refused before memory is taken for it.
#[test]
fn decompression_bombs_are_refused() {
    let mut png = read("rgb.png");
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let too_large = DecodeError::TooLarge {
        format: ImageFormat::Png,
        width: 65536,
        height: 65536,
    };
    assert_eq!(Preprocess::imagenet().decode(&png), Err(too_large));

    let mut jpeg = read("rgb_444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    let error = Preprocess::imagenet().decode(&jpeg).unwrap_err().to_string();
    assert!(
        error.contains("65500x65500 pixels, more than 178956970"),
        "{error}"
    );
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

/// Damaged images are errors or pictures, never panics.
#[test]
fn damaged_images_never_panic() {
    let preprocess = Preprocess {
        fit: Fit::Resize,
        width: 8,
        height: 8,
        color: ColorMode::Grey,
        mean: vec![0.0],
        std: vec![1.0],
    };
    for name in [
        "grey.jpg",
        "one_bit.png",
        "palette.gif",
        "offset_frame.gif",
        "one_bit.bmp",
        "rgb_565.bmp",
        "lossy_low.webp",
    ] {
        let bytes = read(name);
        let step = (bytes.len() / 150).max(1);
        for at in (0..bytes.len()).step_by(step).chain(0..bytes.len().min(64)) {
            let _ = preprocess.prepare(&bytes[..at]);
            for change in [0x01, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let _ = preprocess.prepare(&damaged);
            }
        }
    }
}

/// Damaged and unusual files, made by `strict.py`: what Pillow opens has its pixels, what it refuses is an error.
#[test]
fn what_pillow_opens_is_opened_and_what_it_refuses_is_refused() {
    let table = std::fs::read(golden("strict.json")).unwrap();
    let table: Vec<(String, usize, Option<String>)> = serde_json::from_slice(&table).unwrap();
    let packed = std::fs::read(golden("strict.bin")).unwrap();
    let mut files = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[..])
        .read_to_end(&mut files)
        .unwrap();
    assert!(table.len() > 100);
    let mut rest = &files[..];
    let mut failed = Vec::new();
    for (name, len, expected) in table {
        let (file, after) = rest.split_at(len);
        rest = after;
        let found = Preprocess::imagenet().decode(file);
        let hash = found
            .as_ref()
            .ok()
            .map(|decoded| fnv(&decoded.clone().into_rgb().data));
        if hash != expected {
            failed.push(format!("{name}: {:?}, not {expected:?}", found.map(|_| hash)));
        }
    }
    assert!(rest.is_empty());
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The FNV-1a hash, in 64 bits.
fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
