//! Text and file IO, run in this process.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::Folder;
use purlin::prelude::*;

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("line {i}")).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn sorted_lines(path: &str) -> Vec<String> {
    let mut lines: Vec<String> = fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_file_is_read_in_ranges() {
    let folder = Folder::new();
    let lines = numbered(5_000);
    folder.write("big.txt", lines.join("\r\n"));
    let p = TestPipeline::new();
    let read = p.apply(ReadText::from(&folder.at("*.txt")).range_bytes(333));
    PAssert::that(&read).contains_in_any_order(lines.clone());
    let skipped = p.apply(
        ReadText::from(&folder.at("big.txt"))
            .range_bytes(100)
            .skip_header_lines(50),
    );
    PAssert::that(&skipped).contains_in_any_order(lines[50..].to_vec());
    p.run();
}

#[test]
fn compressed_files_are_read_whole() {
    let folder = Folder::new();
    // Two members in one file, as concatenated logs have them.
    folder.write("a.gz", [gzip("header\na\n"), gzip("b\n")].concat());
    folder.write(
        "c.zst",
        [
            zstd::encode_all(&b"header\nc\n"[..], 0).unwrap(),
            zstd::encode_all(&b"d"[..], 0).unwrap(),
        ]
        .concat(),
    );
    folder.write("e", gzip("header\ne\n"));
    let p = TestPipeline::new();
    let patterns = p.apply(Create::new([
        folder.at("*.gz"),
        folder.at("*.zst"),
        folder.at("no*such"),
    ]));
    let read = patterns.apply(ReadAllText::new().skip_header_lines(1));
    PAssert::that(&read).contains_in_any_order(["a", "b", "c", "d"].map(str::to_owned));
    let told = p.apply(ReadText::from(&folder.at("e")).compression(Compression::Gzip));
    PAssert::that(&told).contains_in_any_order(["header", "e"].map(str::to_owned));
    let files = p
        .apply(MatchFiles::new(&folder.at("a.*")))
        .apply(ReadFiles::new());
    PAssert::that(
        &files
            .values()
            .map("Text", |bytes| String::from_utf8_lossy(&bytes).into_owned()),
    )
    .equals("header\na\nb\n".to_owned());
    p.run();
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = Folder::new();
    let fails = |read: ReadText| {
        let p = TestPipeline::new();
        p.apply(read);
        p.try_run().unwrap_err().to_string()
    };
    let error = fails(ReadText::from(&folder.at("none.txt")));
    assert!(
        error.contains("ReadText/Match") && error.contains("there is no file"),
        "{error}"
    );
    assert!(
        error.contains(&folder.at("none.txt")) && error.contains("check the path"),
        "{error}"
    );
    let error = fails(ReadText::from(&folder.at("*.txt")));
    assert!(
        error.contains("no file matches") && error.contains("EmptyMatch::Allow"),
        "{error}"
    );
    let path = folder.write("latin.txt", b"fine\ncaf\xe9\n");
    let error = fails(ReadText::from(&path));
    assert!(
        error.contains("latin.txt\" is not UTF-8 in the line that starts at byte 5"),
        "{error}"
    );
    let path = folder.write("broken.gz", &gzip("some text")[..12]);
    let error = fails(ReadText::from(&path));
    assert!(
        error.contains("cannot read") && error.contains("broken.gz"),
        "{error}"
    );
    if cfg!(not(feature = "object-store")) {
        let error = fails(ReadText::from("s3://bucket/x.txt"));
        assert!(error.contains("built without object stores"), "{error}");
    }

    let p = TestPipeline::new();
    let read = p.apply(ReadText::from(&folder.at("*.csv")).empty_match(EmptyMatch::Allow));
    PAssert::that(&read).is_empty();
    p.run();
}

#[test]
fn shards_have_headers_and_footers() {
    let folder = Folder::new();
    let lines = numbered(1000);
    let prefix = folder.at("deep/er/out");
    let p = TestPipeline::new();
    let written = p.apply(Create::new(lines.clone())).reshuffle("Spread").apply(
        WriteText::to(&prefix)
            .suffix(".txt")
            .num_shards(3)
            .header("top")
            .footer("bottom"),
    );
    let files: Vec<String> = (0..3).map(|i| format!("{prefix}-0000{i}-of-00003.txt")).collect();
    PAssert::that(&written).contains_in_any_order(files.clone());
    p.run();
    let mut all = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let body = text
            .strip_prefix("top\n")
            .unwrap()
            .strip_suffix("bottom\n")
            .unwrap();
        all.extend(body.lines().map(str::to_owned));
    }
    all.sort();
    let mut expected = lines;
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(
        fs::read_dir(folder.at("deep/er")).unwrap().count(),
        3,
        "temporary files are left"
    );
}

#[test]
fn compressed_output_reads_back() {
    let folder = Folder::new();
    for name in ["out.gz", "out.zst", "out.txt"] {
        let path = folder.at(name);
        let p = TestPipeline::new();
        p.apply(Create::new(numbered(300)))
            .reshuffle("Spread")
            .apply(WriteText::to(&path).without_sharding().header("# lines"));
        p.run();
        let p = TestPipeline::new();
        let mut expected = numbered(300);
        expected.push("# lines".to_owned());
        PAssert::that(&p.apply(ReadText::from(&path))).contains_in_any_order(expected);
        p.run();
    }
    assert_eq!(folder.names(), ["out.gz", "out.txt", "out.zst"]);
}

#[test]
fn of_no_elements_there_is_a_file() {
    let folder = Folder::new();
    let p = TestPipeline::new();
    let none = p.apply(Create::new(Vec::<i64>::new()));
    none.apply(WriteText::to(&folder.at("none")).without_sharding());
    none.apply(WriteText::to(&folder.at("shards")).num_shards(2).header("h"));
    none.apply(WriteText::to(&folder.at("none.gz")).without_sharding());
    p.run();
    assert_eq!(
        folder.names(),
        [
            "none",
            "none.gz",
            "shards-00000-of-00002",
            "shards-00001-of-00002"
        ]
    );
    assert_eq!(fs::read_to_string(folder.at("none")).unwrap(), "");
    assert_eq!(
        fs::read_to_string(folder.at("shards-00001-of-00002")).unwrap(),
        "h\n"
    );
    let p = TestPipeline::new();
    PAssert::that(&p.apply(ReadText::from(&folder.at("none.gz")))).is_empty();
    p.run();
}

#[test]
fn a_bundle_that_is_tried_again_writes_nothing_twice() {
    static FAILED: AtomicBool = AtomicBool::new(false);
    let folder = Folder::new();
    let path = folder.write("out", "of an earlier run\n");
    let p = TestPipeline::new();
    p.apply(Create::new(numbered(2_000)))
        .reshuffle("Spread")
        .try_map("FailOnce", |line: String| {
            // Some elements of the bundle are written before it fails.
            match line == "line 1500" && !FAILED.swap(true, Ordering::Relaxed) {
                true => Err("the first time it fails"),
                false => Ok(line),
            }
        })
        .apply(WriteText::to(&path).without_sharding());
    p.run();
    assert!(FAILED.load(Ordering::Relaxed));
    let mut expected = numbered(2_000);
    expected.sort();
    assert_eq!(sorted_lines(&path), expected);
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn a_pipeline_that_fails_leaves_nothing() {
    let folder = Folder::new();
    let path = folder.write("out", "of an earlier run\n");
    {
        let p = TestPipeline::new();
        p.apply(Create::new(numbered(2_000)))
            .reshuffle("Spread")
            .try_map("Fail", |line: String| {
                if line == "line 1500" {
                    Err("it always fails")
                } else {
                    Ok(line)
                }
            })
            .apply(WriteText::to(&path).without_sharding());
        let error = p.try_run().unwrap_err().to_string();
        assert!(error.contains("it always fails"), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "of an earlier run\n");
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = Folder::new();
    let file = folder.write("file", "");
    let fails = |write: WriteText| {
        let p = TestPipeline::new();
        p.apply(Create::new([1i64])).apply(write);
        p.try_run().unwrap_err()
    };
    let error = fails(WriteText::to(&format!("{file}/out")));
    assert!(matches!(error, RunError::Build(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("\"{file}\" is a file, not a folder")),
        "{error}"
    );
    let error = fails(WriteText::to(&folder.at("")).without_sharding()).to_string();
    assert!(error.contains("name a file"), "{error}");
    // Nobody, not even root, makes folders there.
    let error = fails(WriteText::to("/proc/purlin/out")).to_string();
    assert!(error.contains("WriteText/CreateTempFolder"), "{error}");
    assert!(
        error.contains("no file can be made in the folder \"/proc/purlin\""),
        "{error}"
    );
}

#[test]
fn elements_of_several_windows_are_written_once() {
    use std::time::Duration;
    let folder = Folder::new();
    let path = folder.at("out");
    let p = TestPipeline::new();
    p.apply(Create::new([5i64]))
        .window_into(
            "Sliding",
            Windowing::sliding(Duration::from_secs(10), Duration::from_secs(1)),
        )
        .apply(WriteText::to(&path).without_sharding());
    p.run();
    assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
}
