//! Options that are the runner's alone, which tells their names and types.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_proto::job_management::pipeline_option_type::Enum as Type;

use super::proto::{key, string, strings};
use crate::schema::fields::nearest;

/// The options as the runner takes them, by URN.
///
/// # Errors
/// Each option that the runner does not have, or whose value is none of its type.
pub(crate) fn checked(
    given: &[String],
    described: &[PipelineOptionDescriptor],
    own: &[String],
    runner: &str,
) -> Result<Struct, String> {
    let mut problems = Vec::new();
    let mut fields = BTreeMap::new();
    for (name, values) in by_name(given) {
        let value = match described.iter().find(|option| option.name == name) {
            Some(option) => typed(&name, &values, option.r#type(), runner),
            None => {
                let names = described.iter().map(|option| &option.name).chain(own);
                let hint = nearest(&name, names.map(String::as_str));
                let hint = hint.map_or_else(String::new, |hint| format!("; did you mean --{hint}?"));
                Err(format!(
                    "--{name}: neither this program nor the runner at {runner} has this option{hint}"
                ))
            }
        };
        match value {
            Ok(value) => {
                fields.insert(key(&name), value);
            }
            Err(problem) => problems.push(problem),
        }
    }
    match problems.as_slice() {
        [] => Ok(Struct { fields }),
        problems => Err(problems.join("\n")),
    }
}

/// The options for a runner that does not tell which it has.
pub(crate) fn unchecked(given: &[String]) -> Struct {
    let fields = by_name(given).into_iter().map(|(name, values)| {
        let value = match values.as_slice() {
            [None] => flag(true),
            [Some(text)] => string(text.clone()),
            _ => list(&values),
        };
        (key(&name), value)
    });
    Struct {
        fields: fields.collect(),
    }
}

/// The values by name, as Beam spells names; none for an option that is just named.
fn by_name(given: &[String]) -> BTreeMap<String, Vec<Option<String>>> {
    let mut options: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for option in given {
        let (name, value) = option
            .split_once('=')
            .map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
        options
            .entry(name.replace('-', "_"))
            .or_default()
            .push(value.map(str::to_owned));
    }
    options
}

fn flag(value: bool) -> Value {
    Value {
        kind: Some(Kind::BoolValue(value)),
    }
}

fn list(values: &[Option<String>]) -> Value {
    strings(values.iter().map(|value| value.clone().unwrap_or_default()))
}

fn typed(name: &str, values: &[Option<String>], of: Type, runner: &str) -> Result<Value, String> {
    let (of_type, takes) = match of {
        Type::String => ("string", "a text"),
        Type::Boolean => ("boolean", "true or false"),
        Type::Integer => ("integer", "a whole number"),
        Type::Number => ("number", "a number"),
        Type::Array => ("array", "the option once for each element"),
        Type::Object => ("object", "an object as JSON"),
    };
    let wrong = |said: &str| {
        Err(format!(
            "--{name}: {said}; its type is {of_type}, so the runner at {runner} takes {takes}"
        ))
    };
    let text = match values {
        [None] if of == Type::Boolean => return Ok(flag(true)),
        _ if values.contains(&None) => return wrong("it has no value"),
        _ if of == Type::Array => return Ok(list(values)),
        [Some(text)] => text,
        _ => return wrong("it is given more than once"),
    };
    let value = match of {
        Type::String | Type::Array => Some(string(text.clone())),
        Type::Boolean => text.to_ascii_lowercase().parse().ok().map(flag),
        // As text, as Beam's SDKs send it: numbers of a Struct are floating ones.
        Type::Integer => text.parse::<i64>().ok().map(|number| string(number.to_string())),
        Type::Number => text
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .map(|number| Value {
                kind: Some(Kind::NumberValue(number)),
            }),
        Type::Object => serde_json::from_str::<serde_json::Map<_, _>>(text)
            .ok()
            .map(|object| from_json(serde_json::Value::Object(object))),
    };
    value.map_or_else(|| wrong(&format!("{text:?} does not do")), Ok)
}

fn from_json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.into_iter().map(from_json).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields
                .into_iter()
                .map(|(name, value)| (name, from_json(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn described() -> Vec<PipelineOptionDescriptor> {
        let option = |name: &str, of: Type| PipelineOptionDescriptor {
            name: name.into(),
            r#type: of.into(),
            ..Default::default()
        };
        vec![
            option("parallelism", Type::Integer),
            option("checkpointing_mode", Type::String),
            option("object_reuse", Type::Boolean),
            option("fraction", Type::Number),
            option("files_to_stage", Type::Array),
            option("labels", Type::Object),
        ]
    }

    fn check(given: &str) -> Result<Struct, String> {
        let given: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
        checked(&given, &described(), &["output".to_owned()], "here:1")
    }

    #[test]
    fn values_travel_by_the_types_that_the_runner_tells() {
        let all = check(
            "parallelism=2 checkpointing-mode=A object_reuse fraction=0.5 files_to_stage=a files_to_stage=b labels={\"x\":[1]}",
        );
        let all = all.unwrap();
        let of = |name: &str| all.fields[&key(name)].kind.clone().unwrap();
        assert_eq!(of("parallelism"), Kind::StringValue("2".into()));
        assert_eq!(of("checkpointing_mode"), Kind::StringValue("A".into()));
        assert_eq!(of("object_reuse"), Kind::BoolValue(true));
        assert_eq!(of("fraction"), Kind::NumberValue(0.5));
        let files = crate::options::proto::read_strings(&all.fields[&key("files_to_stage")]);
        assert_eq!(files.unwrap(), ["a", "b"]);
        let Kind::StructValue(labels) = of("labels") else {
            panic!("labels are no object");
        };
        assert!(matches!(labels.fields["x"].kind, Some(Kind::ListValue(_))));
        assert_eq!(
            check("object_reuse=FALSE").unwrap().fields[&key("object_reuse")],
            flag(false)
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_with_option_and_type() {
        expect![[r#"
            --checkpointing_mode: it is given more than once; its type is string, so the runner at here:1 takes a text
            --files_to_stage: it has no value; its type is array, so the runner at here:1 takes the option once for each element
            --fraction: "half" does not do; its type is number, so the runner at here:1 takes a number
            --labels: "[1]" does not do; its type is object, so the runner at here:1 takes an object as JSON
            --object_reuse: "yes" does not do; its type is boolean, so the runner at here:1 takes true or false
            --outptu: neither this program nor the runner at here:1 has this option; did you mean --output?
            --paralelism: neither this program nor the runner at here:1 has this option; did you mean --parallelism?
            --parallelism: "two" does not do; its type is integer, so the runner at here:1 takes a whole number"#]]
        .assert_eq(
            &check(
                "parallelism=two paralelism=2 outptu=x object_reuse=yes fraction=half labels=[1] files_to_stage \
                 checkpointing_mode=A checkpointing_mode=B",
            )
            .unwrap_err(),
        );
    }

    #[test]
    fn a_runner_that_tells_nothing_gets_texts() {
        let given = ["a=1", "b", "c=1", "c=2"].map(str::to_owned);
        let all = unchecked(&given).fields;
        assert_eq!(all[&key("a")], string("1"));
        assert_eq!(all[&key("b")], flag(true));
        assert_eq!(
            crate::options::proto::read_strings(&all[&key("c")]).unwrap(),
            ["1", "2"]
        );
    }
}
