//! CSV, JSON lines, TFRecord, formats of users, and files that depend on the element.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::Folder;
use purlin::io::{FileSink, WriteFiles};
use purlin::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Schema)]
struct Purchase {
    user: String,
    cents: Option<i64>,
}

fn bought(user: &str, cents: Option<i64>) -> Purchase {
    Purchase {
        user: user.into(),
        cents,
    }
}

fn fails(apply: impl FnOnce(&Pipeline)) -> String {
    let p = TestPipeline::new();
    apply(&p);
    p.try_run().unwrap_err().to_string()
}

#[test]
fn csv_is_read_as_it_is_written() {
    let folder = Folder::new();
    let rows = [
        bought("plain", Some(1)),
        bought("with, comma", None),
        bought("with \"quotes\" and\na line end", Some(-5)),
        bought("", Some(0)),
    ];
    let p = TestPipeline::new();
    let written = p
        .apply(Create::new(rows.clone()))
        .apply(WriteCsv::to(&folder.at("rows")).suffix(".csv.gz").num_shards(3));
    PAssert::that(&written.apply(ReadCsv::<Purchase>::all())).contains_in_any_order(rows);
    p.run();
    assert_eq!(folder.names().len(), 3);
}

#[test]
fn csv_takes_other_dialects() {
    let folder = Folder::new();
    folder.write(
        "a.csv",
        "\u{feff}cents;unknown;user\n5;x;'Ann; \\'A\\''\n# left out\n;;Bob\n",
    );
    let p = TestPipeline::new();
    let read = ReadCsv::<Purchase>::from(&folder.at("a.csv")).delimiter(b';');
    let rows = p.apply(read.quote(Some(b'\'')).escape(b'\\').comment(b'#'));
    PAssert::that(&rows).contains_in_any_order([bought("Ann; 'A'", Some(5)), bought("Bob", None)]);
    folder.write("b.tsv", "1\ta\n2\tb \"quoted\n");
    let read = ReadCsv::<(i64, String)>::from(&folder.at("b.tsv")).headerless();
    let pairs = p.apply(read.delimiter(b'\t').quote(None));
    PAssert::that(&pairs).contains_in_any_order([(1, "a".to_string()), (2, "b \"quoted".to_string())]);
    let headerless = pairs.apply(
        WriteCsv::to(&folder.at("c"))
            .without_sharding()
            .headerless()
            .always_quote(),
    );
    PAssert::that(&headerless).equals(folder.at("c"));
    p.run();
    let mut lines: Vec<String> = fs::read_to_string(folder.at("c"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(lines, ["\"1\",\"a\"", "\"2\",\"b \"\"quoted\""]);
}

#[test]
fn rows_that_do_not_fit_are_named() {
    let folder = Folder::new();
    let path = folder.write("bad.csv", "user,cents\na,1\nb,many\n");
    let error = fails(|p| {
        p.apply(ReadCsv::<Purchase>::from(&path));
    });
    assert!(
        error.contains("ReadCsv/Read") && error.contains("bad.csv"),
        "{error}"
    );
    assert!(
        error.contains("line: 3") && error.contains("field 1: invalid digit"),
        "{error}"
    );
    let path = folder.write("bad.jsonl", "{\"user\": \"a\", \"cents\": 1}\n{\"user\": 1}\n");
    let error = fails(|p| {
        p.apply(ReadJson::<Purchase>::from(&path));
    });
    assert!(
        error.contains("bad.jsonl\" cannot be read in the line that starts at byte 26"),
        "{error}"
    );
    let path = folder.write("bad.tfrecord", "this is no such file");
    let error = fails(|p| {
        p.apply(ReadTfRecord::from(&path));
    });
    assert!(
        error.contains("bad.tfrecord") && error.contains("checksum of the length"),
        "{error}"
    );
    let error = fails(|p| {
        p.apply(ReadCsv::<Purchase>::from(&folder.at("*.none")));
    });
    assert!(error.contains("no file matches"), "{error}");
}

#[test]
fn json_lines_are_read_in_ranges() {
    let folder = Folder::new();
    let rows: Vec<Purchase> = (0..500)
        .map(|i| bought(&format!("user\n{i}"), (i % 3 > 0).then_some(i)))
        .collect();
    let p = TestPipeline::new();
    p.apply(Create::new(rows.clone()))
        .apply(WriteJson::to(&folder.at("rows.jsonl")).without_sharding());
    p.run();
    let p = TestPipeline::new();
    let read = p.apply(ReadJson::<Purchase>::from(&folder.at("rows.jsonl")).range_bytes(777));
    PAssert::that(&read).contains_in_any_order(rows);
    p.run();
}

#[test]
fn tfrecords_survive_compression() {
    let folder = Folder::new();
    let p = TestPipeline::new();
    let written = p
        .apply(Create::new(
            (0..100u8).map(|i| vec![i; usize::from(i)]).collect::<Vec<_>>(),
        ))
        .apply(WriteTfRecord::to(&folder.at("records")).suffix(".tfrecord.zst"));
    let lengths = written
        .apply(ReadTfRecord::all())
        .map("Length", |record| record.len() as i64);
    PAssert::that(&lengths).contains_in_any_order(0..100);
    p.run();
}

#[test]
fn elements_go_to_their_destinations() {
    let folder = Folder::new();
    let p = TestPipeline::new();
    // More destinations than files may be open.
    let numbers = p.apply(Create::new(0..1000i64));
    let write = WriteText::to(&folder.at("mod/"))
        .suffix(".txt")
        .header("n")
        .num_shards(1);
    let written = numbers.apply(write.by(|n: &i64| format!("{}/of-{}", n % 10, n % 100)));
    PAssert::that(&written.apply(Count::globally())).equals(100);
    p.run();
    let text = fs::read_to_string(folder.at("mod/7/of-37-00000-of-00001.txt")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.remove(0), "n");
    lines.sort_unstable();
    let mut expected: Vec<String> = (0..10).map(|i| (37 + 100 * i).to_string()).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    // Nothing temporary is left.
    assert_eq!(fs::read_dir(folder.at("mod")).unwrap().count(), 10);
}

/// A format whose files end with the number of their elements, so that they cannot be put together.
#[derive(Clone, Default)]
struct Counted(u64);

impl FileSink<i64> for Counted {
    const NAME: &'static str = "WriteCounted";
    const CONCATENATES: bool = false;

    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(b"start\n");
        Ok(())
    }
    fn write(&mut self, element: i64, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if element == 13 {
            return Err("13 brings bad luck".into());
        }
        self.0 += 1;
        out.extend_from_slice(format!("{element}\n").as_bytes());
        Ok(())
    }
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(format!("end {}\n", self.0).as_bytes());
        Ok(())
    }
}

/// The numbers in the files, each of which is whole.
fn counted(files: &[String]) -> Vec<i64> {
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "start", "{file}");
        assert_eq!(
            lines[lines.len() - 1],
            format!("end {}", lines.len() - 2),
            "{file}"
        );
        all.extend(
            lines[1..lines.len() - 1]
                .iter()
                .map(|line| line.parse::<i64>().unwrap()),
        );
    }
    all.sort_unstable();
    all
}

#[test]
fn files_that_cannot_be_put_together_are_whole() {
    let folder = Folder::new();
    for (name, shards) in [("any", None), ("three", Some(3)), ("one", Some(1))] {
        let p = TestPipeline::new();
        let write = WriteFiles::with(&folder.at(name), Counted::default());
        let write = match shards {
            Some(shards) => write.num_shards(shards),
            None => write,
        };
        p.apply(Create::new(100..200i64)).apply(write);
        p.run();
        let names: Vec<String> = folder
            .names()
            .into_iter()
            .filter(|n| n.starts_with(name))
            .collect();
        if let Some(shards) = shards {
            assert_eq!(names.len(), shards);
        }
        let files: Vec<String> = names.iter().map(|name| folder.at(name)).collect();
        assert_eq!(counted(&files), (100..200).collect::<Vec<_>>());
    }
    let p = TestPipeline::new();
    let nothing = p.apply(Create::new(0..3i64)).filter("None", |_| false);
    nothing.apply(WriteFiles::with(&folder.at("empty"), Counted::default()).without_sharding());
    p.run();
    assert_eq!(counted(&[folder.at("empty")]), [0; 0]);
    let p = TestPipeline::new();
    let write = WriteFiles::with(&folder.at("by-"), Counted::default()).num_shards(2);
    p.apply(Create::new(100..200i64))
        .apply(write.by(|n: &i64| (n % 2).to_string()));
    p.run();
    let odd = ["by-1-00000-of-00002", "by-1-00001-of-00002"].map(|name| folder.at(name));
    assert_eq!(
        counted(&odd),
        (100..200).filter(|n| n % 2 == 1).collect::<Vec<_>>()
    );
    let error = fails(|p| {
        let write = WriteFiles::with(&folder.at("bad"), Counted::default());
        p.apply(Create::new([13i64])).apply(write);
    });
    assert!(
        error.contains("13 brings bad luck") && error.contains("bad"),
        "{error}"
    );
    assert!(
        folder
            .names()
            .iter()
            .all(|name| !name.contains("temp") && !name.contains("bad"))
    );
}

#[test]
fn a_bundle_that_is_tried_again_writes_once() {
    static FAILED: AtomicBool = AtomicBool::new(false);
    let folder = Folder::new();
    let p = TestPipeline::new();
    p.apply(Create::new(100..2100i64))
        .reshuffle("Spread")
        .try_map("FailOnce", |n: i64| {
            // Some elements of the bundle are written before it fails.
            match n == 1500 && !FAILED.swap(true, Ordering::SeqCst) {
                true => Err("the first time it fails"),
                false => Ok(n),
            }
        })
        .apply(WriteFiles::with(&folder.at("numbers"), Counted::default()));
    p.run();
    assert!(FAILED.load(Ordering::SeqCst));
    let files: Vec<String> = folder.names().iter().map(|name| folder.at(name)).collect();
    assert_eq!(counted(&files), (100..2100).collect::<Vec<_>>());
}

#[test]
fn files_come_once_as_they_appear() {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let (pattern, made, next, later) = (
        folder.at("*.txt"),
        folder.at("new"),
        folder.at("b.txt"),
        folder.at("a.txt"),
    );
    // Whole when it appears.
    let put = move |path: &str, data: &str| fs::write(&made, data).and_then(|()| fs::rename(&made, path));
    let p = Pipeline::new();
    let found: std::sync::Arc<parking_lot::Mutex<Vec<(String, u64)>>> = Default::default();
    let into = found.clone();
    p.apply(Create::new([pattern]))
        .apply(MatchContinuously::all(std::time::Duration::from_millis(1)).match_updated_files())
        .try_map("Find", move |file: FileMetadata| {
            let name = file.path.rsplit('/').next().unwrap_or_default().to_owned();
            into.lock().push((name, file.size));
            // Each file that is found makes the next one; the third is the first, which has changed.
            match into.lock().len() {
                1 => put(&next, "bb"),
                2 => put(&later, "aaa"),
                _ => Ok(()),
            }
        });
    let handle = p.start(&PipelineOptions::default()).unwrap();
    while found.lock().len() < 3 {
        assert!(
            !handle.wait_for(std::time::Duration::from_millis(1)),
            "it ended by itself"
        );
    }
    handle.drain().unwrap();
    assert_eq!(handle.wait().unwrap().state(), PipelineState::Drained);
    let found = found.lock().clone();
    let expected = [("a.txt", 1), ("b.txt", 2), ("a.txt", 3)].map(|(name, size)| (name.to_owned(), size));
    assert_eq!(found, expected);
}

#[test]
fn looking_for_files_ends_when_it_is_told_to() {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    folder.write("b.txt", "b");
    let p = TestPipeline::new();
    let interval = std::time::Duration::from_millis(1);
    let sizes = |files: PCollection<FileMetadata>| {
        assert!(files.is_bounded());
        files.map("Size", |file: FileMetadata| file.size)
    };
    let few = sizes(p.apply_named(
        "Few",
        MatchContinuously::new(&folder.at("*.txt"), interval).polls(5),
    ));
    PAssert::that(&few).contains_in_any_order([1, 1]);
    let past = Timestamp::from_millis(0);
    let never = sizes(p.apply_named(
        "Never",
        MatchContinuously::new(&folder.at("*.txt"), interval).until(past),
    ));
    PAssert::that(&never).is_empty();
    p.run();

    let strict = MatchContinuously::new(&folder.at("*.csv"), interval).empty_match(EmptyMatch::Disallow);
    let error = fails(|p| {
        p.apply(strict.polls(1));
    });
    assert!(
        error.contains("MatchContinuously/Poll") && error.contains("no file matches"),
        "{error}"
    );
}

/// Writes with every format that needs no feature, each to `PREFIX.FORMAT`.
fn write_all_formats(prefix: &str) {
    let p = TestPipeline::new();
    let rows = p.apply(Create::new([bought("Ann", Some(5))]));
    let lines = rows.map("Line", |row: Purchase| row.user);
    lines.apply(WriteText::to(&format!("{prefix}.text")).without_sharding());
    rows.apply(WriteCsv::to(&format!("{prefix}.csv")).without_sharding());
    rows.apply(WriteJson::to(&format!("{prefix}.json")).without_sharding());
    let bytes = lines.map("Bytes", String::into_bytes);
    bytes.apply(WriteTfRecord::to(&format!("{prefix}.tfrecord")).without_sharding());
    let by = WriteText::to(&format!("{prefix}.")).without_sharding();
    lines.apply(by.by(|_: &String| "by".to_string()));
    lines.apply(WriteText::to(&format!("{prefix}.sharded")).num_shards(1));
    p.run();
}

const OUTPUTS: [&str; 6] = ["text", "csv", "json", "tfrecord", "by", "sharded-00000-of-00001"];

#[test]
fn outputs_of_all_formats_keep_links_and_modes() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    fs::create_dir(folder.at("targets")).unwrap();
    for name in OUTPUTS {
        let target = folder.at(&format!("targets/{name}"));
        fs::write(&target, "before").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&target, folder.at(&format!("out.{name}"))).unwrap();
    }
    write_all_formats(&folder.at("out"));
    for name in OUTPUTS {
        let link = folder.at(&format!("out.{name}"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "{name}");
        let target = folder.at(&format!("targets/{name}"));
        assert!(!fs::read(&target).unwrap().starts_with(b"before"), "{name}");
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o777,
            0o640,
            "{name}"
        );
    }
}

#[test]
fn outputs_of_all_formats_go_into_pipes() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = Folder::new();
    let readers = OUTPUTS.map(|name| {
        let pipe = folder.at(&format!("out.{name}"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::thread::spawn(move || fs::read(pipe).unwrap())
    });
    write_all_formats(&folder.at("out"));
    for (name, reader) in OUTPUTS.iter().zip(readers) {
        let written = reader.join().unwrap();
        let text = String::from_utf8_lossy(&written);
        assert!(text.contains("Ann"), "{name}: {text}");
    }
    // Nothing else lies there.
    assert_eq!(folder.names().len(), OUTPUTS.len());
}
