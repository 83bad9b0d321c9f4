//! XGBoost's models, in JSON or UBJSON.

use std::fs::File;

use purlin_json::{Fault, Format, Reader};

use super::{BadModel, Input, Inspected, Kind, read_all};

pub(super) fn is_one(begin: &[u8]) -> bool {
    match Reader::new(begin).format() {
        Format::Ubjson => true,
        Format::Json => {
            let mut bytes = begin.iter().filter(|byte| !byte.is_ascii_whitespace());
            bytes.next() == Some(&b'{') && matches!(bytes.next(), Some(b'"' | b'}') | None)
        }
    }
}

pub(super) fn inspect(file: File) -> Result<Inspected, BadModel> {
    let bytes = read_all(file)?;
    let mut reader = Reader::new(&bytes);
    let kind = match reader.format() {
        Format::Json => "JSON",
        Format::Ubjson => "UBJSON",
    };
    let unusable = |reason: String| BadModel::Unusable { kind, reason };
    let features = features(&mut reader).map_err(|fault| match fault.is_cut_off() {
        true => BadModel::CutOff {
            kind,
            expected: format!("expected the end of XGBoost's {kind} ({fault})"),
        },
        false => unusable(format!("expected XGBoost's {kind} ({fault})")),
    })?;
    let features = features.ok_or_else(|| {
        unusable("expected a model of XGBoost, which has learner.learner_model_param.num_feature".to_owned())
    })?;
    let count: i64 = features.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
        unusable(format!(
            "num_feature is {features:?}: expected a number from 1 on"
        ))
    })?;
    Ok(Inspected {
        kind: Kind::XgBoost,
        inputs: vec![Input::new("features", "FP32", vec![-1, count])],
    })
}

/// What stands at `learner.learner_model_param.num_feature`; the rest is passed over, up to the end.
fn features(reader: &mut Reader<'_>) -> Result<Option<String>, Fault> {
    let mut features = None;
    reader.object::<Fault>(&mut |key, reader| match key {
        "learner" => reader.object(&mut |key, reader| match key {
            "learner_model_param" => reader.object(&mut |key, reader| match key {
                "num_feature" => {
                    features = Some(reader.text()?.into_owned());
                    Ok(())
                }
                _ => reader.skip(),
            }),
            _ => reader.skip(),
        }),
        _ => reader.skip(),
    })?;
    reader.end()?;
    Ok(features)
}
