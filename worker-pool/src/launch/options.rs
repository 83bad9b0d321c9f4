//! Pipeline options that the pool reads.

use prost_types::Struct;
use prost_types::value::Kind;

/// The texts of a list option, by the part of its name between `beam:option:` and `:v1`.
pub(super) fn texts<'a>(options: Option<&'a Struct>, name: &str) -> impl Iterator<Item = &'a str> {
    let value = options.and_then(|options| options.fields.get(&format!("beam:option:{name}:v1")));
    let list = value.and_then(|value| match &value.kind {
        Some(Kind::ListValue(list)) => Some(list.values.as_slice()),
        _ => None,
    });
    list.unwrap_or_default()
        .iter()
        .filter_map(|value| match &value.kind {
            Some(Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        })
}
