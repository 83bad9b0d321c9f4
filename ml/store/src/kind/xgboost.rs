//! XGBoost's models.

use std::fs::File;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ubjson::{Fault, Reader};
use super::{BadModel, Input, Inspected, Kind, read_all};

pub(super) fn is_json(begin: &[u8]) -> bool {
    let mut bytes = begin.iter().filter(|byte| !byte.is_ascii_whitespace());
    bytes.next() == Some(&b'{') && matches!(bytes.next(), Some(b'"' | b'}') | None)
}

#[derive(Deserialize)]
struct Model {
    learner: Option<Learner>,
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Learner {
    learner_model_param: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    num_feature: Option<String>,
}

fn unusable(reason: String) -> BadModel {
    BadModel::Unusable { kind: "JSON", reason }
}

pub(super) fn inspect_json(file: File) -> Result<Inspected, BadModel> {
    let bytes = read_all(file)?;
    // A number that is cut is wrong for JSON, too.
    let ends = bytes.trim_ascii_end().ends_with(b"}");
    let model: Model = serde_json::from_slice(&bytes).map_err(|error| match error.is_eof() || !ends {
        true => BadModel::CutOff {
            kind: "JSON",
            expected: format!("expected the end of XGBoost's JSON ({error})"),
        },
        false => unusable(format!("expected XGBoost's JSON ({error})")),
    })?;
    let features = model
        .learner
        .and_then(|learner| learner.learner_model_param)
        .and_then(|parameters| parameters.num_feature);
    let features = features.ok_or_else(|| unusable(EXPECTED.to_owned()))?;
    of_features(&features)
}

const EXPECTED: &str = "expected a model of XGBoost, which has learner.learner_model_param.num_feature";

fn of_features(features: &str) -> Result<Inspected, BadModel> {
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

pub(super) fn inspect_ubjson(file: File) -> Result<Inspected, BadModel> {
    let bytes = read_all(file)?;
    let mut features = None;
    let mut reader = Reader::new(&bytes);
    let read = reader.object(0, &mut |key, reader| match key {
        b"learner" => reader.object(1, &mut |key, reader| match key {
            b"learner_model_param" => reader.object(2, &mut |key, reader| match key {
                b"num_feature" => {
                    features = Some(String::from_utf8_lossy(reader.text()?).into_owned());
                    Ok(())
                }
                _ => reader.skip(2),
            }),
            _ => reader.skip(1),
        }),
        _ => reader.skip(0),
    });
    match read {
        Ok(()) if reader.is_at_end() => of_features(&features.ok_or_else(|| unusable(EXPECTED.to_owned()))?),
        Ok(()) => Err(unusable("bytes follow the end of its UBJSON".to_owned())),
        Err(Fault::CutOff) => Err(BadModel::CutOff {
            kind: "UBJSON",
            expected: "expected the end of XGBoost's UBJSON".to_owned(),
        }),
        Err(Fault::Mark(mark)) => Err(unusable(format!(
            "its UBJSON has the mark {mark:#04x}, which is none"
        ))),
        Err(Fault::TooDeep) => Err(unusable("its UBJSON has lists in lists without end".to_owned())),
    }
}
