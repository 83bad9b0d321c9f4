//! PMML.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{BadModel, Input, Inspected, Kind};

pub(super) fn is_one(begin: &[u8]) -> bool {
    let text = String::from_utf8_lossy(begin);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with("<PMML")
        || (text.starts_with("<?xml") || text.starts_with("<!--")) && text.contains("<PMML")
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = element.try_get_attribute(name).ok()??;
    Some(found.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned())
}

/// What a PMML file says of fields.
#[derive(Default)]
struct Fields {
    types: HashMap<String, String>,
    /// Those that the first model takes.
    inputs: Vec<String>,
    schemas: usize,
}

impl Fields {
    fn see(&mut self, element: &BytesStart<'_>) {
        match element.local_name().as_ref() {
            b"DataField" => {
                if let (Some(name), Some(kind)) = (attribute(element, "name"), attribute(element, "dataType"))
                {
                    self.types.insert(name, kind);
                }
            }
            b"MiningSchema" => self.schemas += 1,
            b"MiningField" if self.schemas == 1 => {
                let usage = attribute(element, "usageType");
                if let (Some(name), None | Some("active")) = (attribute(element, "name"), usage.as_deref()) {
                    self.inputs.push(name);
                }
            }
            _ => {}
        }
    }

    fn inputs(self) -> Vec<Input> {
        let datatype = |name: &String| match self.types.get(name).map(String::as_str) {
            Some("double") => "FP64",
            Some("float") => "FP32",
            Some("integer") => "INT64",
            Some("boolean") => "BOOL",
            _ => "BYTES",
        };
        let input = |name: &String| Input::new(name, datatype(name), vec![-1]);
        self.inputs.iter().map(input).collect()
    }
}

pub(super) fn inspect(file: File) -> Result<Inspected, BadModel> {
    let mut reader = Reader::from_reader(BufReader::new(file));
    let (mut fields, mut depth, mut buffer) = (Fields::default(), 0usize, Vec::new());
    let unusable = |reason: String| BadModel::Unusable { kind: "PMML", reason };
    loop {
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(element)) => {
                depth += 1;
                fields.see(&element);
            }
            Ok(Event::Empty(element)) => fields.see(&element),
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::Eof) => break,
            Ok(_) => {}
            Err(error) => {
                let at = reader.error_position();
                return Err(match error {
                    quick_xml::Error::Syntax(_) => BadModel::CutOff {
                        kind: "PMML",
                        expected: format!("at byte {at}: {error}"),
                    },
                    error => unusable(format!("its XML is wrong at byte {at}: {error}")),
                });
            }
        }
        buffer.clear();
    }
    if depth > 0 {
        return Err(BadModel::CutOff {
            kind: "PMML",
            expected: format!("{depth} elements are not closed at its end"),
        });
    }
    if fields.schemas == 0 {
        return Err(unusable("expected a model with a MiningSchema".to_owned()));
    }
    Ok(Inspected {
        kind: Kind::Pmml,
        inputs: fields.inputs(),
    })
}
