//! How many small elements per second the walker finds, and how fast typed elements are written and read.
//!
//! `cargo bench -p purlin-model`

use std::hint::black_box;
use std::time::{Duration, Instant};

use purlin_model::{Coder, Element, Header, Walker, WindowCoder};

const ELEMENTS: usize = 2_000_000;

/// The best of several runs, and what it means per element.
fn report(name: &str, mut run: impl FnMut() -> usize) {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let count = run();
        best = best.min(start.elapsed());
        assert_eq!(count, ELEMENTS, "{name} lost elements");
    }
    let per_element = best.as_secs_f64() / ELEMENTS as f64;
    println!(
        "{name}: {:.1} M elements/s, {:.1} ns each",
        1e-6 / per_element,
        per_element * 1e9
    );
}

fn main() {
    let coder = Coder::kv(Coder::Bytes, Coder::VarInt);
    let words: Vec<(String, i64)> = (0..ELEMENTS)
        .map(|i| (format!("word{}", i % 50_000), i as i64 % 300))
        .collect();
    let mut data = Vec::new();
    report("encode header and kv<utf8, varint>", || {
        data.clear();
        for word in &words {
            Header::IMPULSE.encode(&mut data);
            word.encode(&mut data, true);
        }
        words.len()
    });
    report("walk kv<bytes, varint> in the global window", || {
        walk(&coder, &data, |element| {
            black_box(element);
        })
    });
    report("walk and split the key", || {
        walk(&coder, &data, |value| {
            black_box(coder.split_kv(value).expect("a pair"));
        })
    });
    report("walk and decode (String, i64)", || {
        walk(&coder, &data, |mut value| {
            black_box(<(String, i64)>::decode(&mut value, true).expect("a pair"));
        })
    });
}

/// Calls `each` with every value of the data and counts them.
fn walk(coder: &Coder, data: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut count = 0;
    for element in Walker::new(&WindowCoder::Global, coder, data) {
        let element = element.expect("an element");
        black_box((element.timestamp, &element.windows, element.pane));
        each(&data[element.value()]);
        count += 1;
    }
    count
}
