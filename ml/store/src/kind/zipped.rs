//! Zip files: PyTorch's, and the folders of sentence-transformers.

use std::fs::File;

use super::{BadModel, Input, Inspected, Kind};

pub(super) fn is_one(begin: &[u8]) -> bool {
    begin.starts_with(b"PK\x03\x04") || begin.starts_with(b"PK\x05\x06")
}

pub(super) fn inspect(file: File) -> Result<Inspected, BadModel> {
    let mut archive = zip::ZipArchive::new(file).map_err(|error| BadModel::CutOff {
        kind: "zip",
        expected: format!("its list of files, which is at its end, cannot be read ({error})"),
    })?;
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.map_or_else(|_| String::new(), std::borrow::Cow::into_owned))
        .collect();
    // Files are below a folder that bears the name of the archive.
    let has = |end: &str| {
        names
            .iter()
            .any(|name| name.split_once('/').is_some_and(|(_, rest)| rest == end))
    };
    let has_in = |folder: &str| {
        let within = |name: &String| {
            name.split_once('/')
                .is_some_and(|(_, rest)| rest.starts_with(folder))
        };
        names.iter().any(within)
    };
    let kind = if has_in("data/aotinductor/") {
        Kind::AotInductor
    } else if has("constants.pkl") && has("data.pkl") && has_in("code/") {
        Kind::TorchScript
    } else if is_text_encoder(&names) {
        Kind::SentenceTransformers
    } else {
        let reason = if has("data.pkl") {
            "it holds what torch.save writes, weights or pickled objects, and no program: expected TorchScript (torch.jit.save), an \
             AOTInductor package, or weights as safetensors"
                .to_owned()
        } else if has_in("models/") || has("archive_format") {
            "it is what torch.export.save writes, which is not compiled: expected what torch._inductor.aoti_compile_and_package writes"
                .to_owned()
        } else {
            let some: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            format!(
                "expected TorchScript, an AOTInductor package or a folder of sentence-transformers; it holds {}",
                some.join(", ")
            )
        };
        return Err(BadModel::Unusable { kind: "zip", reason });
    };
    // Each file's begin is where the list says, and its last byte is there.
    for at in 0..archive.len() {
        archive.by_index_raw(at).map_err(|error| BadModel::Unusable {
            kind: "zip",
            reason: format!(
                "its file {} cannot be read ({error})",
                names.get(at).map_or("", |name| name)
            ),
        })?;
    }
    let inputs = match kind {
        Kind::SentenceTransformers => vec![Input::new("sentences", "BYTES", vec![-1])],
        _ => Vec::new(),
    };
    Ok(Inspected { kind, inputs })
}

/// Whether there is an encoder with its tokenizer: in a folder, or at the top.
fn is_text_encoder(names: &[String]) -> bool {
    let has = |folder: &str, file: &str| names.iter().any(|name| name.strip_prefix(folder) == Some(file));
    let mut folders = names
        .iter()
        .filter_map(|name| name.strip_suffix("tokenizer.json"));
    folders.any(|folder| {
        let weights = ["model.safetensors", "pytorch_model.bin"];
        has(folder, "config.json") && weights.iter().any(|weights| has(folder, weights))
    })
}
