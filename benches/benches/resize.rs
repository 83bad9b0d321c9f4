//! Decodes and resizes large photos: this project's preprocessing against Pillow, each on one thread, in turn.
//!
//! A photo of `WIDTH=4000` by `HEIGHT=3000` pixels becomes 224x224, `COUNT=10` times in each of `ROUNDS=5` rounds. `PYTHON` names a
//! Python with Pillow (third_party/venv's by default). That both give the same bytes is checked first.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use purlin_benches::{Numbers, median, setting};
use purlin_torch::preprocess::Preprocess;

/// Answers each line, `decode`, `resize` or `bytes` and a number: with the seconds that it took so many times, or with the bytes.
const PILLOW: &str = "
import io, sys, time
from PIL import Image
data = open(sys.argv[1], 'rb').read()
def decode():
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
image = decode()
for line in sys.stdin:
    what, count = line.split()
    if what == 'bytes':
        sys.stdout.buffer.write(image.resize((224, 224), Image.BILINEAR).tobytes())
        sys.stdout.buffer.flush()
        continue
    begin = time.perf_counter()
    for _ in range(int(count)):
        decode() if what == 'decode' else image.resize((224, 224), Image.BILINEAR)
    print(time.perf_counter() - begin, flush=True)
";

struct Pillow {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Pillow {
    fn start(photo: &Path) -> Result<Pillow> {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../third_party/venv/bin/python");
        let python = env::var("PYTHON").unwrap_or_else(|_| beside.to_owned());
        let mut child = Command::new(&python)
            .args(["-c", PILLOW])
            .arg(photo)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot run {python}; run setup/python.sh, or name a Python with Pillow by PYTHON")
            })?;
        let asks = child.stdin.take().context("it has a stdin")?;
        let answers = BufReader::new(child.stdout.take().context("it has a stdout")?);
        Ok(Pillow { child, asks, answers })
    }

    fn seconds(&mut self, what: &str, count: u64) -> Result<f64> {
        writeln!(self.asks, "{what} {count}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim()
            .parse()
            .context("Pillow gave no time; does this Python have it?")
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        writeln!(self.asks, "bytes 1")?;
        let mut bytes = vec![0; 224 * 224 * 3];
        self.answers
            .read_exact(&mut bytes)
            .context("Pillow gave no image; does this Python have it?")?;
        Ok(bytes)
    }
}

impl Drop for Pillow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A photograph-like JPEG file: smooth colours with some noise.
fn photo(width: usize, height: usize) -> Result<Vec<u8>> {
    let mut numbers = Numbers(7);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let noise = (numbers.draw() % 24) as usize;
            pixels.extend([1, 2, 3].map(|scale| ((x * scale + y * 2) / 16 + noise) as u8));
        }
    }
    let image = turbojpeg::Image {
        pixels: &pixels[..],
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    Ok(turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2)?.to_vec())
}

fn main() -> Result<()> {
    let (width, height) = (setting("WIDTH", 4000) as usize, setting("HEIGHT", 3000) as usize);
    let (rounds, count) = (setting("ROUNDS", 5), setting("COUNT", 10));
    let jpeg = photo(width, height)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("photo.jpg");
    std::fs::write(&path, &jpeg)?;
    let mut pillow = Pillow::start(&path)?;
    let preprocess = Preprocess::imagenet();
    let image = preprocess.decode(&jpeg)?;
    ensure!(
        preprocess.resize(image.clone())?.data == pillow.bytes()?,
        "Pillow gives other bytes"
    );

    println!("a photo of {width}x{height}; medians of {rounds} rounds, one thread each");
    for what in ["decode", "resize"] {
        let (mut own, mut its) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // What is given away is copied before the time is taken.
            let copies = if what == "resize" {
                vec![image.clone(); count as usize]
            } else {
                Vec::new()
            };
            let begin = Instant::now();
            match what {
                "decode" => {
                    for _ in 0..count {
                        preprocess.decode(&jpeg)?;
                    }
                }
                _ => {
                    for copy in copies {
                        preprocess.resize(copy)?;
                    }
                }
            }
            own.push(begin.elapsed().as_secs_f64());
            its.push(pillow.seconds(what, count)?);
        }
        let each = |seconds| median(seconds) * 1000.0 / count as f64;
        let (own, its) = (each(own), each(its));
        println!(
            "  {what}  {own:7.2} ms, Pillow {its:7.2} ms ({:.2} of Pillow's)",
            own / its
        );
    }
    Ok(())
}
