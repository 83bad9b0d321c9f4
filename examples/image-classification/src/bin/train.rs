//! Trains the shipped CNN on scikit-learn's digits and writes everything that the example needs.
//!
//! `make train`, or `train [digits.csv.gz [output folder]]`. It writes the weights as safetensors and as TorchScript, images of digits
//! that were held out of training, the labels, the list of images and the rows that classifying them gives. The seed is fixed: the
//! same machine gives the same files.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageEncoder};
use purlin_torch::classify::Classifier;
use purlin_torch::models::{Architecture, LoadOptions};
use purlin_torch::preprocess::{Decoded, Pixels, Preprocess};
use tch::nn::{self, ModuleT, OptimizerConfig};
use tch::{CModule, Device, Kind, Tensor};

const SEED: i64 = 20;
const EPOCHS: i64 = 40;
const BATCH: i64 = 64;
/// One digit in this many is held out of training.
const HELD_OUT: usize = 5;
/// The accuracy on held-out digits below which nothing is written.
const ACCURACY: f64 = 0.98;
/// Shipped images for each of the ten classes.
const IMAGES_PER_CLASS: usize = 8;
/// The side of shipped images, in pixels; the data set's digits have eight.
const SIDE: u32 = 64;

/// A digit of the data set: its place there, its picture at `SIDE` pixels, and what it is.
struct Digit {
    number: usize,
    picture: GrayImage,
    class: usize,
}

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let source = args.next().map_or_else(find_digits, Ok)?;
    let output = args
        .next()
        .unwrap_or_else(|| PathBuf::from("examples/image-classification/data"));
    tch::set_num_threads(1);
    tch::manual_seed(SEED);

    let digits = read_digits(&source)?;
    let (held_out, training): (Vec<Digit>, Vec<Digit>) =
        digits.into_iter().partition(|digit| digit.number % HELD_OUT == 0);
    println!(
        "{} digits to train on, {} held out, from {}",
        training.len(),
        held_out.len(),
        source.display()
    );

    let mut store = nn::VarStore::new(Device::Cpu);
    let network = network(&store.root());
    train(&store, &network, &tensors(&training)?)?;
    let (images, labels) = tensors(&held_out)?;
    let accuracy = tch::no_grad(|| network.forward_t(&images, false))
        .accuracy_for_logits(&labels)
        .double_value(&[]);
    println!("held-out accuracy: {:.2} %", accuracy * 100.0);
    ensure!(
        accuracy >= ACCURACY,
        "the network is right on {:.2} % of held-out digits: {ACCURACY} is wanted",
        accuracy * 100.0
    );

    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    // A traced network holds its weights as constants, which must not ask for gradients.
    store.freeze();
    let weights = write_weights(&store, &network, &output)?;
    let right = write_images(&held_out, &weights, &output)?;
    write_notes(accuracy, held_out.len(), right, &output)
}

/// scikit-learn carries the data set in its package.
fn find_digits() -> Result<PathBuf> {
    let pattern = "third_party/venv/lib/python3*/site-packages/sklearn/datasets/data/digits.csv.gz";
    match glob::glob(pattern)?.next() {
        Some(path) => Ok(path?),
        None => bail!(
            "scikit-learn's digits are not at {pattern}: run `make train`, or give the path of digits.csv.gz"
        ),
    }
}

/// Each line has 64 brightnesses of 0 to 16, row by row, and the class.
fn read_digits(path: &Path) -> Result<Vec<Digit>> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(BufReader::new(file)).read_to_string(&mut text)?;
    let digit = |(number, line): (usize, &str)| -> Result<Digit> {
        let values: Vec<f64> = line.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let [pixels @ .., class] = values.as_slice() else {
            bail!("the line is empty")
        };
        let bytes: Vec<u8> = pixels
            .iter()
            .map(|value| (value * 255.0 / 16.0).round() as u8)
            .collect();
        let small = GrayImage::from_raw(8, 8, bytes).context("it has not 64 pixels")?;
        let picture = imageops::resize(&small, SIDE, SIDE, FilterType::CatmullRom);
        Ok(Digit {
            number,
            picture,
            class: *class as usize,
        })
    };
    text.lines()
        .enumerate()
        .map(|line| digit(line).with_context(|| format!("{}:{}", path.display(), line.0 + 1)))
        .collect()
}

/// The network of `Architecture::DigitsCnn`, under the same names, for training.
fn network(root: &nn::Path) -> nn::SequentialT {
    let same = nn::ConvConfig {
        padding: 1,
        ..Default::default()
    };
    let pool = |x: &Tensor| x.relu().max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
    nn::seq_t()
        .add(nn::conv2d(root / "conv1", 1, 16, 3, same))
        .add_fn(pool)
        .add(nn::conv2d(root / "conv2", 16, 32, 3, same))
        .add_fn(pool)
        .add(nn::conv2d(root / "conv3", 32, 32, 3, same))
        .add_fn(pool)
        // Not flat_view(), which would fix the batch size in the traced network.
        .add_fn(|x| x.flatten(1, -1))
        .add(nn::linear(root / "fc1", 512, 64, Default::default()))
        .add_fn(|x| x.relu())
        .add_fn_t(|x, train| x.dropout(0.3, train))
        .add(nn::linear(root / "fc2", 64, 10, Default::default()))
}

/// Images as inference sees them, and their classes.
fn tensors(digits: &[Digit]) -> Result<(Tensor, Tensor)> {
    let preprocess = Preprocess::digits();
    let prepare = |digit: &Digit| -> Result<Pixels> {
        let side = SIDE as usize;
        Ok(preprocess.resize(Decoded {
            width: side,
            height: side,
            grey: true,
            data: digit.picture.as_raw().clone(),
        })?)
    };
    let images: Vec<Pixels> = digits.iter().map(prepare).collect::<Result<_>>()?;
    let images: Vec<&Pixels> = images.iter().collect();
    let classes: Vec<i64> = digits.iter().map(|digit| digit.class as i64).collect();
    Ok((
        preprocess.batch(&images, Device::Cpu, Kind::Float)?,
        Tensor::from_slice(&classes),
    ))
}

fn train(store: &nn::VarStore, network: &nn::SequentialT, (images, labels): &(Tensor, Tensor)) -> Result<()> {
    let mut optimizer = nn::AdamW {
        wd: 0.01,
        ..Default::default()
    }
    .build(store, 2e-3)?;
    let count = images.size()[0];
    for epoch in 0..EPOCHS {
        // A cosine from the full rate to nothing.
        optimizer.set_lr(1e-3 * (1.0 + (std::f64::consts::PI * epoch as f64 / EPOCHS as f64).cos()));
        let order = Tensor::randperm(count, (Kind::Int64, Device::Cpu));
        let mut loss_sum = 0.0;
        for start in (0..count).step_by(BATCH as usize) {
            let chosen = order.narrow(0, start, BATCH.min(count - start));
            let batch = shifted(&images.index_select(0, &chosen));
            let loss = network
                .forward_t(&batch, true)
                .cross_entropy_for_logits(&labels.index_select(0, &chosen));
            optimizer.backward_step(&loss);
            loss_sum += loss.double_value(&[]) * chosen.size()[0] as f64;
        }
        if (epoch + 1) % 10 == 0 {
            println!(
                "epoch {:2} of {EPOCHS}: loss {:.4}",
                epoch + 1,
                loss_sum / count as f64
            );
        }
    }
    Ok(())
}

/// Moves a batch by up to two pixels each way, so that the network does not learn places by heart.
fn shifted(batch: &Tensor) -> Tensor {
    let offset = || Tensor::randint(5, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0]);
    // -1 is black after normalization.
    let padded = batch.constant_pad_nd([2, 2, 2, 2]) - padding_mask(batch);
    let side = batch.size()[2];
    padded.narrow(2, offset(), side).narrow(3, offset(), side)
}

/// One in the border that `shifted` adds, zero inside.
fn padding_mask(batch: &Tensor) -> Tensor {
    let inside = Tensor::ones(
        [1, 1, batch.size()[2], batch.size()[3]],
        (Kind::Float, Device::Cpu),
    );
    1.0 - inside.constant_pad_nd([2, 2, 2, 2])
}

/// Writes the weights both ways and gives the safetensors file's path.
fn write_weights(store: &nn::VarStore, network: &nn::SequentialT, output: &Path) -> Result<PathBuf> {
    let mut tensors: Vec<(String, Tensor)> = store.variables().into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let weights = output.join("digits_cnn.safetensors");
    Tensor::write_safetensors(&tensors, &weights)?;
    let example = Tensor::zeros([1, 1, 32, 32], (Kind::Float, Device::Cpu));
    let traced = tch::no_grad(|| {
        CModule::create_by_tracing("digits_cnn", "forward", &[example], &mut |inputs| {
            vec![network.forward_t(&inputs[0], false)]
        })
    })?;
    traced.save(output.join("digits_cnn.pt"))?;
    Ok(weights)
}

/// Writes the images and what classifying them gives, and returns how many are right of how many.
fn write_images(held_out: &[Digit], weights: &Path, output: &Path) -> Result<(usize, usize)> {
    let folder = output.join("images");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let labels: Vec<String> = (0..10).map(|class| class.to_string()).collect();
    fs::write(output.join("labels.txt"), labels.join("\n") + "\n")?;

    let mut shipped: Vec<(&Digit, String, Vec<u8>)> = Vec::new();
    for class in 0..labels.len() {
        for (index, digit) in held_out
            .iter()
            .filter(|digit| digit.class == class)
            .take(IMAGES_PER_CLASS)
            .enumerate()
        {
            let mut bytes = Vec::new();
            let (suffix, grey) = (
                if index % 2 == 0 { "png" } else { "jpg" },
                image::ExtendedColorType::L8,
            );
            if suffix == "png" {
                image::codecs::png::PngEncoder::new(&mut bytes).write_image(
                    &digit.picture,
                    SIDE,
                    SIDE,
                    grey,
                )?;
            } else {
                JpegEncoder::new_with_quality(&mut bytes, 90).write_image(
                    &digit.picture,
                    SIDE,
                    SIDE,
                    grey,
                )?;
            }
            let name = format!("digit-{class}-{:04}.{suffix}", digit.number);
            fs::write(folder.join(&name), &bytes)?;
            shipped.push((digit, name, bytes));
        }
    }
    let names: String = shipped.iter().map(|(_, name, _)| format!("{name}\n")).collect();
    fs::write(output.join("images.txt"), names)?;

    let options = LoadOptions::named(Architecture::DigitsCnn.name())?;
    let classify = |weights: &Path| -> Result<Vec<String>> {
        let classifier = Classifier::load(weights, &options, Some(labels.clone()), 1)?;
        let prepared: Vec<Pixels> = shipped
            .iter()
            .map(|(_, _, bytes)| classifier.prepare(bytes))
            .collect::<Result<_, _>>()?;
        let results = classifier.classify(&prepared.iter().collect::<Vec<_>>());
        results
            .into_iter()
            .map(|classes| Ok(classes?.first().context("no class")?.label.clone()))
            .collect()
    };
    let classes = classify(weights)?;
    ensure!(
        classes == classify(&output.join("digits_cnn.pt"))?,
        "safetensors and TorchScript weights give different classes"
    );
    let rows: String = shipped
        .iter()
        .zip(&classes)
        .map(|((_, name, _), class)| format!("{name},{class}\n"))
        .collect();
    fs::write(output.join("expected.csv"), rows)?;
    let right = shipped
        .iter()
        .zip(&classes)
        .filter(|((digit, _, _), class)| digit.class.to_string() == **class)
        .count();
    println!("{right} of {} shipped images are right", shipped.len());
    Ok((right, shipped.len()))
}

fn write_notes(
    accuracy: f64,
    held_out: usize,
    (right, shipped): (usize, usize),
    output: &Path,
) -> Result<()> {
    let notes = format!(
        "# What the example classifies\n\n\
         Written by `make train`; do not edit.\n\n\
         - `images/`, `images.txt`: {shipped} digits, PNG and JPEG, none of which the network was trained on; a name is\n  \
           `digit-<what it is>-<its number in the data set>`.\n\
         - `digits_cnn.safetensors`, `digits_cnn.pt` (TorchScript): the network's weights. It is right on {:.2} % of the {held_out}\n  \
           digits held out of training, and on {right} of the {shipped} images here.\n\
         - `labels.txt`: the class names. `expected.csv`: the rows that classifying the images gives, mistakes included.\n\
         - `imagenet_labels.txt`: the names of ImageNet's 1000 classes by number, for `--labels=imagenet`; not written by `make train`.\n\n\
         The digits are the test set of \"Optical Recognition of Handwritten Digits\" (E. Alpaydin, C. Kaynak; UCI Machine Learning\n\
         Repository, CC BY 4.0), as scikit-learn ships it, enlarged from 8x8 to {SIDE}x{SIDE} pixels.\n",
        accuracy * 100.0
    );
    fs::write(output.join("README.md"), notes)?;
    Ok(())
}
