//! Text encoders against sentence-transformers (`golden_text.py`).

use std::io::Write;
use std::path::{Path, PathBuf};

use purlin::prelude::*;
use purlin_inference::{BatchSizes, RunInference};
use purlin_torch::text::{Pooling, TextEmbedder, TextEncoder, TextModelError, TextOptions};
use serde::Deserialize;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text")
}

#[derive(Deserialize)]
struct Golden {
    sentences: Vec<String>,
    embeddings: Vec<Vec<f32>>,
}

fn expected(path: &Path) -> Golden {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn check(found: &[Vec<f32>], expected: &[Vec<f32>], within: f32) {
    assert_eq!(found.len(), expected.len());
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= within,
                "row {row}: {found} {expected}"
            );
        }
    }
}

fn check_model(folder: &Path, golden: &Golden) {
    let encoder = TextEncoder::load(folder, &TextOptions::default()).unwrap();
    assert_eq!(encoder.width(), golden.embeddings[0].len());
    let sentences: Vec<&str> = golden.sentences.iter().map(String::as_str).collect();
    check(&encoder.embed(&sentences).unwrap(), &golden.embeddings, 1e-4);
    // Alone, and among many.
    for (sentence, expected) in sentences.iter().zip(&golden.embeddings) {
        check(
            &encoder.embed(&[sentence]).unwrap(),
            std::slice::from_ref(expected),
            1e-4,
        );
    }
    let many = sentences.repeat(20);
    let rows = golden.embeddings.iter().cycle().take(many.len()).cloned();
    let rows: Vec<Vec<f32>> = rows.collect();
    check(&encoder.embed(&many).unwrap(), &rows, 1e-4);
    assert!(encoder.embed(&[]).unwrap().is_empty());
}

#[test]
fn embeddings_are_those_of_sentence_transformers() {
    check_model(
        &golden().join("tiny"),
        &expected(&golden().join("embeddings.json")),
    );
}

/// The real model: `golden_text.py FOLDER` writes it with its embeddings.
#[test]
fn minilm_gives_what_sentence_transformers_give() {
    let Some(folder) = std::env::var_os("MINILM") else {
        println!("skipped: MINILM names no folder that golden_text.py has written");
        return;
    };
    let folder = Path::new(&folder);
    check_model(folder, &expected(&folder.join("embeddings.json")));
}

#[test]
fn a_pipeline_embeds_sentences_and_one_that_fails_costs_one_row() {
    let golden_rows = expected(&golden().join("embeddings.json"));
    let handler =
        TextEmbedder::from_path(golden().join("tiny")).with_batch_sizes(BatchSizes { min: 3, max: 3 });
    let p = TestPipeline::new();
    let results = p
        .apply(Create::new(golden_rows.sentences.clone()))
        .apply(RunInference::new(handler));
    let rows = results.map("Rounded", |result| {
        let rounded: Vec<i64> = result
            .inference
            .iter()
            .map(|x| (x * 1000.0).round() as i64)
            .collect();
        (result.example, rounded)
    });
    let wanted = golden_rows
        .sentences
        .iter()
        .zip(&golden_rows.embeddings)
        .map(|(sentence, row)| {
            let rounded: Vec<i64> = row.iter().map(|x| (x * 1000.0).round() as i64).collect();
            (sentence.clone(), rounded)
        });
    PAssert::that(&rows).contains_in_any_order(wanted.collect::<Vec<_>>());
    p.run();
}

/// The golden model in a zip file, each file's name with this before it.
fn zipped(within: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    let mut zip = zip::ZipWriter::new(file.as_file_mut());
    let mut add = |folder: &Path, name: &str| {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let name = format!("{within}{name}{}", entry.file_name().to_string_lossy());
                zip.start_file(name, zip::write::SimpleFileOptions::default())
                    .unwrap();
                zip.write_all(&std::fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    };
    let tiny = golden().join("tiny");
    add(&tiny, "");
    add(&tiny.join("1_Pooling"), "1_Pooling/");
    zip.finish().unwrap();
    file
}

#[test]
fn a_zip_file_is_read_as_the_folder_that_is_in_it() {
    let golden = expected(&golden().join("embeddings.json"));
    for within in ["", "tiny/"] {
        check_model(zipped(within).path(), &golden);
    }
}

#[test]
fn what_is_wrong_with_a_zip_file_is_told() {
    let told = |path: &Path| {
        let error = TextEncoder::load(path, &TextOptions::default()).unwrap_err();
        error.to_string()
    };
    let none = told(Path::new("no/such.zip"));
    assert!(none.starts_with("cannot read no/such.zip: "), "{none}");
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "a letter").unwrap();
    let text = told(text.path());
    assert!(
        text.contains("expected the folder of a text model, or a zip file of it"),
        "{text}"
    );
    // Its list of files is at the end.
    let whole = zipped("tiny/");
    let bytes = std::fs::read(whole.path()).unwrap();
    std::fs::write(whole.path(), &bytes[..bytes.len() / 2]).unwrap();
    let cut = told(whole.path());
    assert!(cut.contains("a zip file of it"), "{cut}");
    let other = tempfile::NamedTempFile::new().unwrap();
    let mut zip = zip::ZipWriter::new(other.as_file().try_clone().unwrap());
    zip.start_file("letter.txt", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.finish().unwrap();
    let other = told(other.path());
    assert!(
        other.contains("a zip file without config.json is no text model"),
        "{other}"
    );
}

#[test]
fn options_take_the_place_of_what_the_folder_says() {
    let load = |options: TextOptions| TextEncoder::load(&golden().join("tiny"), &options).unwrap();
    let long = |encoder: &TextEncoder| {
        encoder
            .embed(&["a plane takes off and someone plays a flute"])
            .unwrap()
    };
    let usual = long(&load(TextOptions::default()));
    for options in [
        TextOptions {
            pooling: Some(Pooling::Cls),
            ..TextOptions::default()
        },
        TextOptions {
            pooling: Some(Pooling::Max),
            ..TextOptions::default()
        },
        TextOptions {
            normalize: Some(false),
            ..TextOptions::default()
        },
        TextOptions {
            max_length: Some(4),
            ..TextOptions::default()
        },
    ] {
        assert_ne!(long(&load(options.clone())), usual, "{options:?}");
    }
    // Cut to the same two tokens.
    let short = load(TextOptions {
        max_length: Some(4),
        ..TextOptions::default()
    });
    assert_eq!(
        short.embed(&["a plane"]).unwrap(),
        short.embed(&["a plane takes off"]).unwrap()
    );
}

/// A copy of the golden model's folder.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden().join("tiny")).unwrap() {
        let entry = entry.unwrap();
        let to = folder.path().join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            for file in std::fs::read_dir(entry.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
    folder
}

#[test]
fn what_is_wrong_with_a_folder_is_told() {
    let error = |change: &dyn Fn(&Path)| {
        let folder = copy();
        change(folder.path());
        TextEncoder::load(folder.path(), &TextOptions::default()).unwrap_err()
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    let said = |change: &dyn Fn(&Path), words: &[&str]| {
        let text = error(change).to_string();
        words
            .iter()
            .for_each(|words| assert!(text.contains(words), "{text}"));
    };
    said(
        &|folder| std::fs::remove_file(folder.join("config.json")).unwrap(),
        &["cannot read", "config.json"],
    );
    said(
        &|folder| std::fs::remove_file(folder.join("tokenizer.json")).unwrap(),
        &["cannot read", "tokenizer.json"],
    );
    said(
        &|folder| std::fs::write(folder.join("tokenizer.json"), "{").unwrap(),
        &["tokenizer.json is not what it should be"],
    );
    said(
        &edit("config.json", "\"bert\"", "\"gpt2\""),
        &["type \"gpt2\"", "known are"],
    );
    said(
        &edit("config.json", "\"gelu\"", "\"relu\""),
        &["activation \"relu\""],
    );
    said(
        &edit(
            "config.json",
            "\"num_attention_heads\": 3",
            "\"num_attention_heads\": 5",
        ),
        &["a multiple of num_attention_heads"],
    );
    said(
        &edit("modules.json", "normalize.Normalize", "dense.Dense"),
        &["module", "Dense", "Transformer, Pooling and Normalize"],
    );
    said(
        &edit("1_Pooling/config.json", "\"mean\"", "\"lasttoken\""),
        &["another pooling"],
    );
    said(
        &edit(
            "config.json",
            "\"intermediate_size\": 40",
            "\"intermediate_size\": 48",
        ),
        &[
            "do not fit its config.json",
            "encoder.layer.0.intermediate.dense.weight [48, 24], the file has [40, 24]",
        ],
    );
    said(
        &|folder| std::fs::write(folder.join("model.safetensors"), b"").unwrap(),
        &["is no weights file that is known"],
    );
    let none = error(&|folder| std::fs::remove_file(folder.join("model.safetensors")).unwrap());
    assert!(matches!(none, TextModelError::NoWeights { .. }), "{none}");
}
