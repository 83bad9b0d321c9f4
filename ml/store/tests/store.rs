//! The store, as a library and as the program `purlin-models`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Barrier;

use purlin_models::{ModelStore, StoreError};

const MODEL: &str = "tree\nversion=v4\nmax_feature_idx=5\n\nend of trees\n";

struct Here {
    folder: tempfile::TempDir,
}

impl Here {
    fn new() -> Here {
        Here {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn url(&self) -> String {
        self.path("models").display().to_string()
    }

    fn store(&self) -> ModelStore {
        ModelStore::open(&self.url()).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_purlin-models"))
            .arg(format!("--store={}", self.url()))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// What a call that has to go well, or to fail, says.
    fn said(&self, goes_well: bool, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.success(), goes_well, "{arguments:?}: {said}");
        said
    }
}

fn model_of(features: usize) -> String {
    MODEL.replace('5', &(features - 1).to_string())
}

#[test]
fn versions_are_added_resolved_and_removed() {
    let here = Here::new();
    let store = here.store();
    assert!(store.list().unwrap().is_empty());
    for features in 1..=11 {
        let file = here.file("prices.txt", &model_of(features));
        assert_eq!(
            store.add("prices", None, &file, &[]).unwrap().version,
            features.to_string()
        );
    }
    let newest = store.resolve("prices:latest").unwrap();
    // 11 is newer than 9.
    assert_eq!(newest.version, "11");
    assert_eq!(fs::read_to_string(&newest.path).unwrap(), model_of(11));
    assert_eq!(newest.path, here.path("models/prices/11/prices.txt"));
    assert_eq!(store.resolve("prices").unwrap(), newest);
    assert_eq!(store.resolve("prices:9").unwrap().inputs[0].shape, [-1, 9]);
    store.remove("prices:11").unwrap();
    assert_eq!(store.resolve("prices").unwrap().version, "10");
    let file = here.file("other model.txt", MODEL);
    store.add("prices", Some("11-rc.1"), &file, &[]).unwrap();
    assert_eq!(
        store.resolve("prices").unwrap().path,
        here.path("models/prices/11-rc.1/other_model.txt")
    );
    // A version that once was may be again.
    store.add("prices", Some("11"), &file, &[]).unwrap();
    let versions: Vec<String> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|record| record.version)
        .collect();
    assert_eq!(
        versions,
        ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "11-rc.1"]
    );
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let here = Here::new();
    let store = here.store();
    let error = |model: &str| store.resolve(model).unwrap_err().to_string();
    assert!(
        error("prices").ends_with("models has no model prices: it has none"),
        "{}",
        error("prices")
    );
    let file = here.file("m.txt", MODEL);
    store.add("prices", Some("1.9"), &file, &[]).unwrap();
    store.add("prices", Some("1.10"), &file, &[]).unwrap();
    assert!(error("price").ends_with("has no model price: it has prices"));
    assert!(error("prices:2").ends_with("has no version 2 of prices: it has 1.9, 1.10"));
    assert!(error("../prices").contains("names no model"));
    let error = store.add("prices", Some("1.9"), &file, &[]).unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    let error = store
        .add("prices", Some("latest"), &file, &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("latest is the newest version"), "{error}");
    let error = store.remove("prices:latest").unwrap_err().to_string();
    assert!(error.contains("name the version"), "{error}");
    let error = store.remove("prices:7").unwrap_err().to_string();
    assert!(error.contains("no version 7"), "{error}");
    let error = ModelStore::open("").unwrap_err().to_string();
    assert!(error.contains("name a folder"), "{error}");
    let error = ModelStore::open("nowhere://bucket").unwrap_err().to_string();
    assert!(error.contains("nowhere://"), "{error}");
}

#[test]
fn bad_files_are_not_added() {
    let here = Here::new();
    let store = here.store();
    for (name, text, told) in [
        ("empty.txt", "", "it has 0 bytes"),
        ("letter.txt", "Dear model", "it is not a model"),
        ("cut.txt", "tree\nmax_feature_idx=5\n", "was cut off"),
    ] {
        let file = here.file(name, text);
        let error = store.add("bad", None, &file, &[]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(told), "{error}");
    }
    let error = store
        .add("bad", None, &here.path("none.txt"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none.txt") && error.contains("No such file"),
        "{error}"
    );
    let file = here.file("m.txt", MODEL);
    for (wanted, expected) in [
        (
            "features:FP64[-1,7]",
            "features:FP64[-1,6]: expected features:FP64[-1,7]",
        ),
        (
            "features:FP32[-1,6]",
            "features:FP64[-1,6]: expected features:FP32[-1,6]",
        ),
    ] {
        let error = store
            .add("bad", None, &file, &[wanted.parse().unwrap()])
            .unwrap_err()
            .to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    assert!(store.list().unwrap().is_empty());
    // Nothing is left of what was tried.
    assert!(!here.path("models").exists());
    store
        .add("good", None, &file, &["features:FP64[-1,6]".parse().unwrap()])
        .unwrap();
    let model = store.resolve("good").unwrap();
    let error = model
        .expect_inputs(&["x:FP64[-1,6]".parse().unwrap()])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "good:1 takes features:FP64[-1,6]: expected x:FP64[-1,6]");
    model
        .expect_inputs(&["features:FP64[32,6]".parse().unwrap()])
        .unwrap();
}

#[test]
fn a_file_that_has_changed_is_told() {
    let here = Here::new();
    let store = here.store();
    store
        .add("prices", None, &here.file("m.txt", MODEL), &[])
        .unwrap();
    let path = store.resolve("prices").unwrap().path;
    fs::write(&path, model_of(7)).unwrap();
    let error = store.resolve("prices").unwrap_err().to_string();
    assert!(
        error.contains("prices:1 in the store") && error.contains("has changed: "),
        "{error}"
    );
    assert!(
        error.contains("48 bytes with the SHA-256 ") && error.contains("was added"),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    let error = store.verify("prices").unwrap_err().to_string();
    assert!(error.contains("been removed"), "{error}");
    let record = here.path("models/prices/1/model.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("m.txt", "../../m.txt")).unwrap();
    let error = store.resolve("prices").unwrap_err().to_string();
    assert!(error.contains("model.json cannot be read"), "{error}");
    fs::write(&record, "{").unwrap();
    let error = store.list().unwrap_err().to_string();
    assert!(error.contains("model.json cannot be read: EOF"), "{error}");
}

#[test]
fn many_add_at_a_time() {
    let here = Here::new();
    let (url, each) = (here.url(), 8);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (url, barrier) = (&url, &barrier);
            let file = here.file(&format!("{thread}.txt"), &model_of(thread + 1));
            scope.spawn(move || {
                let store = ModelStore::open(url).unwrap();
                barrier.wait();
                for _ in 0..each {
                    let added = store.add("prices", None, &file, &[]).unwrap();
                    let model = store.resolve(&format!("prices:{}", added.version)).unwrap();
                    assert_eq!(model.inputs[0].shape[1], i64::try_from(thread + 1).unwrap());
                }
            });
        }
    });
    let store = here.store();
    let records = store.list().unwrap();
    let versions: Vec<String> = records.iter().map(|record| record.version.clone()).collect();
    let expected: Vec<String> = (1..=4 * each).map(|version| version.to_string()).collect();
    assert_eq!(versions, expected);
    // Nothing is left beside them.
    assert_eq!(fs::read_dir(here.path("models")).unwrap().count(), 1);
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with('.')
}

#[test]
fn what_was_not_added_whole_is_not_there() {
    let here = Here::new();
    let store = here.store();
    store
        .add("prices", None, &here.file("m.txt", MODEL), &[])
        .unwrap();
    // Of a program that was killed.
    fs::create_dir_all(here.path("models/.0123456789abcdef")).unwrap();
    fs::create_dir_all(here.path("models/prices/2")).unwrap();
    fs::create_dir_all(here.path("models/other")).unwrap();
    assert_eq!(store.resolve("prices").unwrap().version, "1");
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(
        store
            .add("prices", None, &here.path("m.txt"), &[])
            .unwrap()
            .version,
        "2"
    );
    assert!(
        fs::read_dir(here.path("models"))
            .unwrap()
            .any(|entry| is_hidden(&entry.unwrap().path()))
    );
}

#[test]
fn the_program_does_all_of_it() {
    let here = Here::new();
    here.file("m.txt", MODEL);
    let added = here.said(true, &["add", "prices", "m.txt", "--input=features:FP64[-1,6]"]);
    assert!(
        added.starts_with("prices:1  lightgbm  48 bytes  sha256 "),
        "{added}"
    );
    assert!(added.trim_end().ends_with("  features:FP64[-1,6]"), "{added}");
    here.said(true, &["add", "prices:2.0", "m.txt"]);
    here.said(true, &["add", "houses", "m.txt"]);
    let listed = here.said(true, &["list"]);
    assert_eq!(listed.lines().count(), 3);
    assert!(
        listed.starts_with("houses:1 ") && listed.contains("\nprices:2.0 "),
        "{listed}"
    );
    assert_eq!(here.said(true, &["list", "prices"]).lines().count(), 2);
    assert!(
        here.said(false, &["list", "cars"])
            .contains("no model cars: it has houses, prices")
    );
    assert_eq!(here.said(true, &["verify"]).matches(" is well").count(), 3);
    fs::write(here.path("models/houses/1/m.txt"), "other").unwrap();
    let verified = here.said(false, &["verify"]);
    assert!(
        verified.matches(" is well").count() == 2 && verified.contains("houses:1 in the store"),
        "{verified}"
    );
    here.said(true, &["verify", "prices:latest"]);
    assert_eq!(
        here.said(true, &["remove", "houses:1", "prices:1"]),
        "removed houses:1\nremoved prices:1\n"
    );
    assert_eq!(here.said(true, &["list"]).lines().count(), 1);
    assert!(
        here.said(false, &["add", "prices", "none.txt"])
            .contains("cannot add none.txt: it cannot be read")
    );
    assert!(
        here.said(false, &["add", "prices", "m.txt", "--input=x"])
            .contains("x:FP32[-1,4]")
    );
    assert!(here.said(false, &["remove"]).contains("<MODELS>"));
}

#[test]
fn help_tells_what_there_is() {
    let here = Here::new();
    let help = here.said(true, &["--help"]);
    for word in [
        "list",
        "add",
        "verify",
        "remove",
        "--store",
        "PURLIN_MODEL_STORE",
        "s3://bucket/models",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let help = here.said(true, &["add", "--help"]);
    assert!(help.contains("--input") && help.contains("AOTInductor"), "{help}");
}

#[cfg(feature = "object-store")]
#[test]
fn an_object_store_is_as_good() {
    let here = Here::new();
    let cache = here.path("cache");
    let store = ModelStore::open("memory://models-of-a-test/below")
        .unwrap()
        .with_cache(&cache);
    assert!(store.list().unwrap().is_empty());
    let file = here.file("m.txt", MODEL);
    assert_eq!(store.add("prices", None, &file, &[]).unwrap().version, "1");
    assert_eq!(
        store
            .add("prices", None, &here.file("n.txt", &model_of(7)), &[])
            .unwrap()
            .version,
        "2"
    );
    assert!(matches!(
        store.add("prices", Some("2"), &file, &[]),
        Err(StoreError::Exists { .. })
    ));
    let model = store.resolve("prices:1").unwrap();
    assert!(model.path.starts_with(&cache));
    assert_eq!(fs::read_to_string(&model.path).unwrap(), MODEL);
    // What is in the cache is checked, and fetched again if it has changed.
    fs::write(&model.path, "other").unwrap();
    assert_eq!(
        fs::read_to_string(store.resolve("prices:1").unwrap().path).unwrap(),
        MODEL
    );
    assert_eq!(store.list().unwrap().len(), 2);
    store.remove("prices:2").unwrap();
    assert_eq!(store.resolve("prices").unwrap().version, "1");
    let error = store.remove("prices:2").unwrap_err().to_string();
    assert!(error.contains("no version 2 of prices: it has 1"), "{error}");

    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let barrier = &barrier;
            let file = here.file(&format!("{thread}.txt"), &model_of(thread + 1));
            let cache = cache.clone();
            scope.spawn(move || {
                let store = ModelStore::open("memory://models-of-a-test/many")
                    .unwrap()
                    .with_cache(cache);
                barrier.wait();
                for _ in 0..4 {
                    let added = store.add("prices", None, &file, &[]).unwrap();
                    let model = store.resolve(&format!("prices:{}", added.version)).unwrap();
                    assert_eq!(model.inputs[0].shape[1], i64::try_from(thread + 1).unwrap());
                }
            });
        }
    });
    let store = ModelStore::open("memory://models-of-a-test/many")
        .unwrap()
        .with_cache(cache);
    assert_eq!(store.list().unwrap().len(), 16);
    for record in store.list().unwrap() {
        store
            .verify(&format!("{}:{}", record.name, record.version))
            .unwrap();
    }
}
