//! LightGBM's text models.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::{BadModel, Input, Inspected, Kind};

pub(super) fn is_one(begin: &[u8]) -> bool {
    begin.starts_with(b"tree\n") || begin.starts_with(b"tree\r\n")
}

pub(super) fn inspect(file: File) -> Result<Inspected, BadModel> {
    let (mut features, mut ends, mut line_number) = (None, false, 0usize);
    for line in BufReader::new(file).lines() {
        let line = line?;
        line_number += 1;
        match line.split_once('=') {
            Some(("max_feature_idx", last)) => {
                features = last.trim().parse::<i64>().ok().map(|last| last + 1)
            }
            _ => ends |= line.trim_end() == "end of trees",
        }
    }
    if !ends {
        return Err(BadModel::CutOff {
            kind: "LightGBM",
            expected: format!("it ends at line {line_number} without the line `end of trees`"),
        });
    }
    let Some(features) = features.filter(|features| *features > 0) else {
        return Err(BadModel::Unusable {
            kind: "LightGBM",
            reason: "expected a line `max_feature_idx=` with a number from 0 on".to_owned(),
        });
    };
    Ok(Inspected {
        kind: Kind::LightGbm,
        inputs: vec![Input::new("features", "FP64", vec![-1, features])],
    })
}
