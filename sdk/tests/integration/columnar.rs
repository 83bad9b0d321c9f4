//! Avro and Parquet files, as fastavro and pyarrow write and read them.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use purlin::io::{AvroCodec, ParquetCodec};
use purlin::prelude::*;
use purlin::schema::{Date, Decimal, MicrosInstant};

#[derive(Clone, Debug, PartialEq, Schema)]
struct Place {
    city: String,
    zip: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Row {
    id: i64,
    name: Option<String>,
    score: f64,
    flag: bool,
    data: Vec<u8>,
    tags: Vec<Option<String>>,
    counts: BTreeMap<String, i64>,
    place: Option<Place>,
    at: Timestamp,
    exact: MicrosInstant,
    day: Date,
    price: Decimal,
    code: [u8; 4],
}

/// The rows of `data/make_files.py`.
fn rows() -> [Row; 2] {
    [
        Row {
            id: 1,
            name: Some("Ann".into()),
            score: 1.5,
            flag: true,
            data: vec![0, 0xff],
            tags: vec![Some("a".into()), None],
            counts: [("k".to_string(), 7)].into(),
            place: Some(Place {
                city: "Rome".into(),
                zip: None,
            }),
            at: Timestamp::from_millis(1_709_208_000_123),
            exact: MicrosInstant(1_709_208_000_123_456),
            day: Date(19782),
            price: "12.5".parse().unwrap(),
            code: *b"abcd",
        },
        Row {
            id: 2,
            name: None,
            score: -2.0,
            flag: false,
            data: vec![],
            tags: vec![],
            counts: BTreeMap::new(),
            place: None,
            at: Timestamp::from_millis(-1),
            exact: MicrosInstant(-1),
            day: Date(-1),
            price: "-0.000000001".parse().unwrap(),
            code: [0, 1, 2, 3],
        },
    ]
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn files_of_python_are_read() {
    let p = TestPipeline::new();
    PAssert::that(&p.apply(ReadAvro::<Row>::from(&data("rows.avro")))).contains_in_any_order(rows());
    PAssert::that(&p.apply(ReadParquet::<Row>::from(&data("rows.parquet")))).contains_in_any_order(rows());
    p.run();
}

/// What Python reads in a file, one row a line, by `id`. `None`: there is no Python with the libraries.
fn python(path: &str) -> Option<Vec<String>> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../third_party/venv/bin/python");
    if !python.exists() {
        println!("skipped: there is no Python in third_party/venv");
        return None;
    }
    let output = Command::new(python)
        .arg("-B")
        .arg(data("make_files.py"))
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_by_key(|line| line.contains("\"id\": 2"));
    Some(lines)
}

#[test]
fn python_reads_our_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", folder.path().display());
    for (name, codec) in [
        ("null", AvroCodec::Null),
        ("deflate", AvroCodec::Deflate),
        ("zstd", AvroCodec::Zstandard),
    ] {
        let p = TestPipeline::new();
        let path = at(&format!("{name}.avro"));
        p.apply(Create::new(rows()))
            .apply(WriteAvro::<Row>::to(&path).without_sharding().codec(codec));
        p.run();
        // Python's reader needs a further library for Zstandard.
        if codec != AvroCodec::Zstandard {
            assert_eq!(python(&path), python(&data("rows.avro")), "{name}");
        }
        let p = TestPipeline::new();
        PAssert::that(&p.apply(ReadAvro::<Row>::from(&path))).contains_in_any_order(rows());
        p.run();
    }
    for (name, codec) in [
        ("plain", ParquetCodec::Uncompressed),
        ("snappy", ParquetCodec::Snappy),
        ("zstd", ParquetCodec::Zstd),
    ] {
        let p = TestPipeline::new();
        let path = at(&format!("{name}.parquet"));
        let write = WriteParquet::<Row>::to(&path)
            .without_sharding()
            .codec(codec)
            .row_group_rows(1);
        let written = p.apply(Create::new(rows())).apply(write);
        PAssert::that(&written.apply(ReadParquet::<Row>::all())).contains_in_any_order(rows());
        p.run();
        assert_eq!(python(&path), python(&data("rows.parquet")), "{name}");
    }
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Deep {
    id: i32,
    lists: Vec<Option<Vec<Vec<i64>>>>,
    maps: Option<BTreeMap<String, Vec<Option<Place>>>>,
    places: Vec<Place>,
}

fn deep(id: i32) -> Deep {
    let place = |n: i32| Place {
        city: format!("city {n}"),
        zip: (n % 2 == 0).then(|| n.to_string()),
    };
    let list = |n: i32| (0..n % 4).map(|i| (0..i64::from(i)).collect()).collect();
    Deep {
        id,
        lists: (0..id % 5).map(|n| (n % 3 != 1).then(|| list(n + id))).collect(),
        maps: (id % 3 != 0).then(|| {
            let places = |n: i32| (0..n).map(|i| (i % 2 == 0).then(|| place(i + id))).collect();
            (0..id % 4).map(|n| (format!("key {n}"), places(n))).collect()
        }),
        places: (0..id % 3).map(place).collect(),
    }
}

#[test]
fn nested_rows_survive() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", folder.path().display());
    let p = TestPipeline::new();
    let all = p.apply(Create::new((0..500).map(deep))).reshuffle("Spread");
    let avro = all.apply(
        WriteAvro::<Deep>::to(&at("deep-avro"))
            .suffix(".avro")
            .num_shards(2),
    );
    PAssert::that(&avro.apply(ReadAvro::<Deep>::all())).contains_in_any_order((0..500).map(deep));
    let parquet = all.apply(
        WriteParquet::<Deep>::to(&at("deep-parquet"))
            .suffix(".parquet")
            .row_group_rows(77),
    );
    PAssert::that(&parquet.apply(ReadParquet::<Deep>::all())).contains_in_any_order((0..500).map(deep));
    // Unlike Avro's, the keys of Parquet's maps may be numbers.
    let numbered = |n: i32| Numbered {
        counts: (0..n).map(|key| (key, i64::from(key * n))).collect(),
    };
    let numbers = p
        .apply(Create::new((0..3).map(numbered)))
        .apply(WriteParquet::<Numbered>::to(&at("numbered")).without_sharding());
    PAssert::that(&numbers.apply(ReadParquet::<Numbered>::all())).contains_in_any_order((0..3).map(numbered));
    p.run();
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Other {
    idd: i64,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Part {
    code: [u8; 4],
    gone: Option<i64>,
    id: i64,
}

#[test]
fn columns_are_found_by_name() {
    let p = TestPipeline::new();
    let expected = || {
        rows().map(|row| Part {
            code: row.code,
            gone: None,
            id: row.id,
        })
    };
    PAssert::that(&p.apply(ReadAvro::<Part>::from(&data("rows.avro")))).contains_in_any_order(expected());
    PAssert::that(&p.apply(ReadParquet::<Part>::from(&data("rows.parquet"))))
        .contains_in_any_order(expected());
    p.run();
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Narrow {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Numbered {
    counts: BTreeMap<i32, i64>,
}

/// The file says that it counts days, not seconds.
#[derive(Clone, Debug, PartialEq, Schema)]
struct Instants {
    day: MicrosInstant,
}

#[test]
fn files_of_other_types_are_told() {
    let fails = |apply: &dyn Fn(&Pipeline)| {
        let p = TestPipeline::new();
        apply(&p);
        p.try_run().unwrap_err().to_string()
    };
    for (avro, expected) in [
        (
            true,
            "no field \"idd\"; did you mean \"id\"?; its fields are id, name,",
        ),
        (
            false,
            "no column \"idd\"; did you mean \"id\"?; its columns are id, name,",
        ),
    ] {
        let error = fails(&|p| {
            if avro {
                p.apply(ReadAvro::<Other>::from(&data("rows.avro")));
            } else {
                p.apply(ReadParquet::<Other>::from(&data("rows.parquet")));
            }
        });
        assert!(error.contains(expected) && error.contains("rows."), "{error}");
        let error = fails(&|p| {
            if avro {
                p.apply(ReadAvro::<Narrow>::from(&data("rows.avro")));
            } else {
                p.apply(ReadParquet::<Narrow>::from(&data("rows.parquet")));
            }
        });
        assert!(
            error.contains("row 1: field \"name\": it is null in the file, but string is never null"),
            "{error}"
        );
        let error = fails(&|p| {
            if avro {
                p.apply(ReadAvro::<Instants>::from(&data("rows.avro")));
            } else {
                p.apply(ReadParquet::<Instants>::from(&data("rows.parquet")));
            }
        });
        assert!(
            error.contains("field \"day\": it is")
                && error.contains("in the file, which is not beam:logical_type:micros"),
            "{error}"
        );
        let error = fails(&|p| {
            if avro {
                p.apply(ReadAvro::<Row>::from(&data("make_files.py")));
            } else {
                p.apply(ReadParquet::<Row>::from(&data("make_files.py")));
            }
        });
        assert!(
            error.contains("cannot read \"") && error.contains("make_files.py"),
            "{error}"
        );
    }
    let error = fails(&|p| {
        let rows = p.apply(Create::new([Numbered {
            counts: BTreeMap::new(),
        }]));
        rows.apply(WriteAvro::<Numbered>::to("x"));
    });
    assert!(
        error.contains("field \"counts\" is map<int32, int64>, but the keys of a map in Avro are strings"),
        "{error}"
    );
}

#[test]
fn no_rows_make_a_file_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", folder.path().display());
    let p = TestPipeline::new();
    let none = p.apply(Create::new(rows())).filter("None", |_| false);
    let avro = none.apply(WriteAvro::<Row>::to(&at("none.avro")).without_sharding());
    PAssert::that(&avro.apply(ReadAvro::<Row>::all())).is_empty();
    let parquet = none.apply(WriteParquet::<Row>::to(&at("none.parquet")).without_sharding());
    PAssert::that(&parquet.apply(ReadParquet::<Row>::all())).is_empty();
    p.run();
}
