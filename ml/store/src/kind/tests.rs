use std::fs;
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn found(bytes: &[u8]) -> String {
    let (_folder, path) = written(bytes);
    match inspect(&path) {
        Ok(Inspected { kind, inputs }) => {
            let inputs: Vec<String> = inputs.iter().map(Input::to_string).collect();
            format!("{kind} {}", inputs.join(" "))
        }
        Err(error) => error.to_string(),
    }
}

fn zip_of(names: &[&str]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for name in names {
        zip.start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(b"some bytes").unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn safetensors_of() -> Vec<u8> {
    let data = [0u8; 24];
    let view = ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, vec![2, 3], &data).unwrap();
    ::safetensors::serialize([("weight", view)], None).unwrap()
}

const LIGHTGBM: &str = "tree\nversion=v4\nmax_feature_idx=5\n\nTree=0\n\nend of trees\n";
const XGBOOST: &str = r#"{"learner": {"learner_model_param": {"base_score": "5E-1", "num_feature": "13"}}, "version": [3, 0, 0]}"#;
const PMML: &str = r#"<?xml version="1.0"?>
<PMML version="4.4" xmlns="http://www.dmg.org/PMML-4_4">
  <DataDictionary>
    <DataField name="age" optype="continuous" dataType="double"/>
    <DataField name="color" optype="categorical" dataType="string"/>
    <DataField name="price" optype="continuous" dataType="double"/>
  </DataDictionary>
  <TreeModel functionName="regression">
    <MiningSchema>
      <MiningField name="price" usageType="target"/>
      <MiningField name="age"/>
      <MiningField name="color" usageType="active"/>
    </MiningSchema>
    <Node score="1"><True/></Node>
  </TreeModel>
</PMML>
"#;

/// UBJSON as XGBoost writes it: keys and texts with lengths of 64 bits, and lists of numbers of one type.
fn ubjson_of() -> Vec<u8> {
    fn key(out: &mut Vec<u8>, text: &str) {
        out.push(b'L');
        out.extend((text.len() as i64).to_be_bytes());
        out.extend(text.as_bytes());
    }
    fn text(out: &mut Vec<u8>, value: &str) {
        out.push(b'S');
        key(out, value);
    }
    let mut out = vec![b'{'];
    key(&mut out, "learner");
    out.push(b'{');
    key(&mut out, "gradient_booster");
    out.extend(b"{");
    key(&mut out, "weights");
    out.extend(b"[$d#L");
    out.extend(3i64.to_be_bytes());
    out.extend([0; 12]);
    key(&mut out, "mixed");
    out.extend(b"[i\x01TFZ[]]");
    out.push(b'}');
    key(&mut out, "learner_model_param");
    out.push(b'{');
    key(&mut out, "num_feature");
    text(&mut out, "13");
    out.extend(b"}}");
    key(&mut out, "version");
    out.extend(b"[#L");
    out.extend(2i64.to_be_bytes());
    out.extend(b"i\x03i\x00}");
    out
}

fn models() -> Vec<(&'static str, Vec<u8>)> {
    let torchscript = zip_of(&["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/data/0"]);
    let package = zip_of(&["m/archive_format", "m/data/aotinductor/model/x.so"]);
    let encoder = zip_of(&[
        "m/config.json",
        "m/tokenizer.json",
        "m/model.safetensors",
        "m/1_Pooling/config.json",
    ]);
    vec![
        ("lightgbm features:FP64[-1,6]", LIGHTGBM.into()),
        ("torchscript ", torchscript),
        ("aotinductor ", package),
        ("sentence-transformers sentences:BYTES[-1]", encoder),
        ("safetensors ", safetensors_of()),
        ("xgboost features:FP32[-1,13]", XGBOOST.into()),
        ("xgboost features:FP32[-1,13]", ubjson_of()),
        ("pmml age:FP64[-1] color:BYTES[-1]", PMML.into()),
        ("onnx x:FP32[-1,4]", onnx::tests::model()),
    ]
}

#[test]
fn kinds_and_inputs_are_told_by_what_files_hold() {
    for (expected, bytes) in models() {
        assert_eq!(found(&bytes), expected);
    }
}

#[test]
fn files_that_are_cut_off_are_told_as_what_they_were() {
    for (kind, bytes) in models() {
        let kind = match kind.split(' ').next().unwrap() {
            "torchscript" | "aotinductor" | "sentence-transformers" => "zip",
            "xgboost" if bytes[1] == b'L' => "UBJSON",
            "xgboost" => "JSON",
            "lightgbm" => "LightGBM",
            "onnx" => "ONNX",
            "pmml" => "PMML",
            other => other,
        };
        let half = found(&bytes[..bytes.len() * 2 / 3]);
        assert!(
            half.starts_with(&format!("it is a {kind} file that was cut off: ")),
            "{half}"
        );
        let last = found(&bytes[..bytes.len() - 3]);
        assert!(
            last.starts_with(&format!("it is a {kind} file that was cut off: ")),
            "{last}"
        );
    }
    let number = found(br#"{"learner": {"a": 5E"#);
    assert!(
        number.starts_with("it is a JSON file that was cut off: "),
        "{number}"
    );
}

#[test]
fn what_is_no_model_is_told_with_what_was_expected() {
    assert!(found(b"").starts_with("it has 0 bytes: expected a LightGBM text model, ONNX,"));
    let text = found(b"hello, world");
    assert!(
        text.starts_with(r#"it is not a model: it begins with "hello, world"; expected a LightGBM"#),
        "{text}"
    );
    let bytes = found(&[0x89, b'P', b'N', b'G', 0, 1]);
    assert!(
        bytes.contains("it begins with the bytes 89 50 4e 47 00 01"),
        "{bytes}"
    );
    for (bytes, told) in [
        (zip_of(&["m/data.pkl", "m/data/0"]), "what torch.save writes"),
        (
            zip_of(&["m/archive_format", "m/models/model.json"]),
            "what torch.export.save writes",
        ),
        (zip_of(&["letter.txt"]), "it holds letter.txt"),
        // The tokenizer of one, and the weights of another.
        (
            zip_of(&["a/config.json", "a/tokenizer.json", "b/model.safetensors"]),
            "a folder of sentence-transformers; it holds a/config.json",
        ),
        (b"{\"a\": 1}".to_vec(), "expected a model of XGBoost"),
        (XGBOOST.replace("13", "none").into(), r#"num_feature is "none""#),
        (PMML.replace("MiningSchema", "Schema").into(), "a MiningSchema"),
        (
            PMML.replace("</DataDictionary>", "</Dictionary>").into(),
            "its XML is wrong at byte",
        ),
        (
            LIGHTGBM.replace("max_feature_idx", "x").into(),
            "max_feature_idx=",
        ),
        ([safetensors_of(), vec![0]].concat(), "as its header says"),
        ([ubjson_of(), vec![0]].concat(), "expected the end of the file"),
    ] {
        let found = found(&bytes);
        assert!(
            found.contains("cannot be used") && found.contains(told),
            "{told}: {found}"
        );
    }
    let missing = inspect(std::path::Path::new("/no/such/model"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("No such file"), "{missing}");
}

#[test]
fn lists_in_lists_without_end_are_told() {
    let deep = [b"{L\0\0\0\0\0\0\0\x01a".as_slice(), &[b'['; 100_000]].concat();
    assert!(found(&deep).contains("more than 64 lists and objects in one another"));
    let objects = b"{L\0\0\0\0\0\0\0\x01a".repeat(100_000);
    assert!(found(&objects).contains("more than 64 lists and objects in one another"));
}

#[test]
fn inputs_are_written_and_read() {
    for text in ["x:FP32[-1,4]", "a:b:BYTES[-1]", "n:INT64[]"] {
        assert_eq!(text.parse::<Input>().unwrap().to_string(), text);
    }
    for wrong in [
        "",
        "x",
        "x:FP32",
        "x:FP32[a]",
        "x:FP32[-2]",
        ":FP32[1]",
        "x:[1]",
        "x:FP32[1",
    ] {
        assert!(
            wrong
                .parse::<Input>()
                .unwrap_err()
                .contains("NAME:DATATYPE[LENGTH,...]"),
            "{wrong}"
        );
    }
    let fits = |one: &str, other: &str| one.parse::<Input>().unwrap().fits(&other.parse().unwrap());
    assert!(fits("x:FP32[-1,4]", "x:FP32[8,4]") && fits("x:FP32[8,4]", "x:FP32[-1,-1]"));
    assert!(!fits("x:FP32[-1,4]", "x:FP32[-1,5]") && !fits("x:FP32[-1]", "x:FP64[-1]"));
    assert!(!fits("x:FP32[-1]", "y:FP32[-1]") && !fits("x:FP32[-1]", "x:FP32[-1,1]"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed or cut, there is an answer.
    #[test]
    fn broken_files_have_answers(which in 0usize..8, at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let (_, mut bytes) = models().remove(which);
        let at = at.index(bytes.len());
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] = byte,
        }
        prop_assert!(!found(&bytes).is_empty());
    }
}
