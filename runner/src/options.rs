//! Pipeline options, as SDKs give them to a runner.

use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// The texts of an option, by its URN or by its bare name.
pub(crate) fn texts(options: &Struct, name: &str) -> Vec<String> {
    let urn = format!("beam:option:{name}:v1");
    let value = options.fields.get(&urn).or_else(|| options.fields.get(name));
    value.map(texts_of).unwrap_or_default()
}

fn texts_of(value: &Value) -> Vec<String> {
    match &value.kind {
        Some(Kind::StringValue(text)) => vec![text.clone()],
        Some(Kind::NumberValue(number)) => vec![number.to_string()],
        Some(Kind::ListValue(list)) => list.values.iter().flat_map(texts_of).collect(),
        _ => Vec::new(),
    }
}

/// Where SDKs say that workers run in the launcher.
const KINDS: &[&str] = &[
    "environment_type",
    "environmentType",
    "default_environment_type",
    "defaultEnvironmentType",
];

/// Whether workers run in the program that submitted the job, and end with it.
pub fn in_launcher(options: &Struct) -> bool {
    KINDS
        .iter()
        .flat_map(|name| texts(options, name))
        .any(|kind| kind.eq_ignore_ascii_case("LOOPBACK"))
}

/// Whether workers keep samples of what they process.
pub(crate) fn samples_data(options: &Struct) -> bool {
    texts(options, "experiments")
        .iter()
        .any(|name| name == "enable_data_sampling")
}
