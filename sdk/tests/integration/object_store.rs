//! Files in object stores: those of a store in memory, which all stores of this process's tests are like.
use purlin::prelude::*;

fn run(apply: impl FnOnce(&Pipeline)) {
    let p = TestPipeline::new();
    apply(&p);
    p.run();
}

fn names(pattern: &str) -> Vec<String> {
    static NAMES: parking_lot::Mutex<Vec<String>> = parking_lot::Mutex::new(Vec::new());
    static ONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one = ONE.lock();
    NAMES.lock().clear();
    let matched = MatchFiles::new(pattern).empty_match(EmptyMatch::Allow);
    run(|p| {
        p.apply(matched)
            .map("Keep", |file: FileMetadata| NAMES.lock().push(file.path));
    });
    let mut names = NAMES.lock().clone();
    names.sort();
    names
}

#[test]
fn objects_are_written_and_read() {
    let lines: Vec<String> = (0..5000).map(|i| format!("line {i}")).collect();
    run(|p| {
        let lines = p.apply(Create::new(lines.clone())).reshuffle("Spread");
        lines.apply(
            WriteText::to("memory://one/out/lines")
                .suffix(".txt")
                .num_shards(3),
        );
    });
    // Whole under their names, and nothing beside them.
    assert_eq!(
        names("memory://one/**/*"),
        (0..3)
            .map(|i| format!("memory://one/out/lines-0000{i}-of-00003.txt"))
            .collect::<Vec<_>>()
    );
    run(|p| {
        let read = p.apply(ReadText::from("memory://one/out/*-of-?????.txt").range_bytes(1000));
        PAssert::that(&read).contains_in_any_order(lines);
    });
    assert_eq!(names("memory://one/*.txt"), [""; 0]);
}

#[test]
fn large_objects_go_by_pieces() {
    // More than one piece, and more than a store takes in one request.
    let records: Vec<Vec<u8>> = (0..21u8).map(|i| vec![i; 1 << 20]).collect();
    run(|p| {
        p.apply(Create::new(records.clone()))
            .apply(WriteTfRecord::to("memory://two/big").without_sharding());
    });
    run(|p| {
        let sums = p
            .apply(ReadTfRecord::from("memory://two/big"))
            .map("Check", |record| {
                (
                    i64::from(record[0]),
                    record.iter().all(|b| *b == record[0]),
                    record.len() as i64,
                )
            });
        PAssert::that(&sums).contains_in_any_order((0..21i64).map(|i| (i, true, 1 << 20)));
        let files = p
            .apply(MatchFiles::new("memory://two/b[a-i]g"))
            .apply(ReadFiles::new());
        PAssert::that(&files.values().map("Length", |bytes| bytes.len() as i64))
            .equals(21 * ((1 << 20) + 16));
    });
}

#[test]
fn errors_name_the_url_and_the_setting() {
    let fails = |pattern: &str| {
        let p = TestPipeline::new();
        p.apply(ReadText::from(pattern));
        p.try_run().unwrap_err().to_string()
    };
    let error = fails("memory://three/none.txt");
    assert!(
        error.contains("there is no object \"memory://three/none.txt\""),
        "{error}"
    );
    let error = fails("ftp://host/file");
    assert!(
        error.contains("cannot use \"ftp://host/file\": ftp:// is not known; there are s3://"),
        "{error}"
    );
    let error = fails("s3:///file");
    assert!(error.contains("name a bucket: s3://BUCKET/NAME"), "{error}");
    let p = TestPipeline::new();
    p.apply(Create::new([1i64])).apply(WriteText::to("gs:///x"));
    let error = p.try_run().unwrap_err().to_string();
    assert!(error.contains("WriteText\": cannot use \"gs:///x\""), "{error}");
}
