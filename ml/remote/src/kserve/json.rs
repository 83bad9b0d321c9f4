//! The protocol's tensors in JSON. Numbers are read as they are written, without a step between that would round them.

use serde::ser::{Error as _, Serialize, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize as SerializeDerive};
use serde_json::value::RawValue;

use super::batch::Batched;
use crate::half::F16;
use crate::tensor::{Datatype, Values};

#[derive(SerializeDerive)]
pub(crate) struct InferRequest<'a> {
    pub inputs: Vec<Input<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Wanted<'a>>,
}

#[derive(SerializeDerive)]
pub(crate) struct Wanted<'a> {
    pub name: &'a str,
}

#[derive(SerializeDerive)]
pub(crate) struct Input<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    data: Data<'a>,
}

impl<'a> From<&'a Batched> for Input<'a> {
    fn from(tensor: &'a Batched) -> Self {
        Input {
            name: &tensor.name,
            datatype: tensor.values.datatype().name(),
            shape: &tensor.shape,
            data: Data(&tensor.values),
        }
    }
}

struct Data<'a>(&'a Values);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Values::Bool(list) => list.serialize(to),
            Values::U8(list) => list.serialize(to),
            Values::U16(list) => list.serialize(to),
            Values::U32(list) => list.serialize(to),
            Values::U64(list) => list.serialize(to),
            Values::I8(list) => list.serialize(to),
            Values::I16(list) => list.serialize(to),
            Values::I32(list) => list.serialize(to),
            Values::I64(list) => list.serialize(to),
            Values::F16(list) if list.iter().all(|value| value.to_f32().is_finite()) => {
                to.collect_seq(list.iter().map(|value| value.to_f32()))
            }
            Values::F32(list) if list.iter().all(|value| value.is_finite()) => list.serialize(to),
            Values::F64(list) if list.iter().all(|value| value.is_finite()) => list.serialize(to),
            Values::F16(_) | Values::F32(_) | Values::F64(_) => Err(S::Error::custom(
                "a value of the row is NaN or infinite, for which JSON has no form: ask the model over gRPC",
            )),
            Values::Bytes(list) => {
                let mut texts = to.serialize_seq(Some(list.len()))?;
                for bytes in list {
                    let text = std::str::from_utf8(bytes).map_err(|_| {
                        S::Error::custom("bytes of the row are not text, for which JSON has no form: ask the model over gRPC")
                    })?;
                    texts.serialize_element(text)?;
                }
                texts.end()
            }
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct InferResponse<'a> {
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl InferResponse<'_> {
    /// The tensors.
    ///
    /// # Errors
    /// When values are not what they are said to be: what is wrong.
    pub fn tensors(self) -> Result<Vec<Batched>, String> {
        self.outputs.into_iter().map(Output::tensor).collect()
    }
}

impl Output<'_> {
    fn tensor(self) -> Result<Batched, String> {
        let datatype = Datatype::named(&self.datatype).ok_or_else(|| {
            format!(
                "the output {} is {}, which has no type here",
                self.name, self.datatype
            )
        })?;
        let values = values(datatype, self.data.get());
        let values = values.map_err(|value| {
            format!(
                "the output {} is {datatype}, but holds the value {value}",
                self.name
            )
        })?;
        Ok(Batched {
            name: self.name,
            shape: self.shape,
            values,
        })
    }
}

/// The values of a list, which may hold lists.
///
/// # Errors
/// The value that is not of the datatype.
fn values(datatype: Datatype, data: &str) -> Result<Values, String> {
    macro_rules! numbers {
        ($kind:ident) => {
            Values::$kind(parse_all(data, |word| word.parse().ok())?)
        };
    }
    Ok(match datatype {
        Datatype::Bool => Values::Bool(parse_all(data, |word| match word {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?),
        Datatype::U8 => numbers!(U8),
        Datatype::U16 => numbers!(U16),
        Datatype::U32 => numbers!(U32),
        Datatype::U64 => numbers!(U64),
        Datatype::I8 => numbers!(I8),
        Datatype::I16 => numbers!(I16),
        Datatype::I32 => numbers!(I32),
        Datatype::I64 => numbers!(I64),
        // What JSON has no form for is null for most servers.
        Datatype::F16 => Values::F16(parse_all(data, |word| match word {
            "null" => Some(F16::from_f32(f32::NAN)),
            word => word.parse().ok().map(F16::from_f32),
        })?),
        Datatype::F32 => Values::F32(parse_all(data, |word| match word {
            "null" => Some(f32::NAN),
            word => word.parse().ok(),
        })?),
        Datatype::F64 => Values::F64(parse_all(data, |word| match word {
            "null" => Some(f64::NAN),
            word => word.parse().ok(),
        })?),
        Datatype::Bytes => Values::Bytes(texts(data)?),
    })
}

/// The words between brackets and commas. It is JSON, as was checked when the answer was read.
fn parse_all<T>(data: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    if data.contains('"') {
        return Err("a text".to_owned());
    }
    data.split(|c: char| matches!(c, '[' | ']' | ',') || c.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| parse(word).ok_or_else(|| word.chars().take(40).collect()))
        .collect()
}

fn texts(data: &str) -> Result<Vec<Vec<u8>>, String> {
    fn collect(value: serde_json::Value, into: &mut Vec<Vec<u8>>) -> Result<(), String> {
        match value {
            serde_json::Value::String(text) => into.push(text.into_bytes()),
            serde_json::Value::Array(list) => {
                for value in list {
                    collect(value, into)?;
                }
            }
            other => return Err(other.to_string().chars().take(40).collect()),
        }
        Ok(())
    }
    let mut found = Vec::new();
    let value = serde_json::from_str(data).map_err(|error| error.to_string())?;
    collect(value, &mut found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: Values) -> Result<String, String> {
        let tensor = Batched {
            name: "x".to_owned(),
            shape: vec![i64::try_from(values.len()).unwrap()],
            values,
        };
        let request = InferRequest {
            inputs: vec![Input::from(&tensor)],
            outputs: vec![],
        };
        serde_json::to_string(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_are_the_protocols() {
        assert_eq!(
            written(Values::F32(vec![0.1, -2.0])).unwrap(),
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[0.1,-2.0]}]}"#
        );
        assert!(
            written(Values::Bytes(vec![b"a\"b".to_vec()]))
                .unwrap()
                .contains(r#"["a\"b"]"#)
        );
        assert!(
            written(Values::F64(vec![f64::NAN]))
                .unwrap_err()
                .contains("NaN or infinite")
        );
        assert!(
            written(Values::Bytes(vec![vec![0xff]]))
                .unwrap_err()
                .contains("not text")
        );
    }

    fn read(datatype: &str, data: &str) -> Result<Values, String> {
        let text =
            format!(r#"{{"outputs":[{{"name":"y","datatype":"{datatype}","shape":[1],"data":{data}}}]}}"#);
        let response: InferResponse<'_> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(response.tensors()?.remove(0).values)
    }

    #[test]
    fn answers_are_read_to_the_last_bit() {
        for value in [
            0.1f64,
            1.0 / 3.0,
            1e-308,
            123_456.789_012_345_67,
            8.41e21,
            f64::MAX,
        ] {
            assert_eq!(read("FP64", &format!("[{value}]")), Ok(Values::F64(vec![value])));
        }
        let nested = read("FP32", "[[1, 2.5], [3e2,\n null]]").unwrap();
        let Values::F32(list) = nested else {
            panic!("{nested:?}")
        };
        assert_eq!(list[..3], [1.0, 2.5, 300.0]);
        assert!(list[3].is_nan());
        assert_eq!(read("BOOL", "[true, 0]"), Ok(Values::Bool(vec![true, false])));
        assert_eq!(
            read("BYTES", r#"[["a", "b,]"]]"#),
            Ok(Values::Bytes(vec![b"a".to_vec(), b"b,]".to_vec()]))
        );
        assert_eq!(read("INT64", "[]"), Ok(Values::I64(vec![])));
        let halves = |list: &[f32]| Values::F16(list.iter().copied().map(F16::from_f32).collect());
        assert_eq!(read("FP16", "[0.5, -65504]"), Ok(halves(&[0.5, -65504.0])));
        assert!(
            written(halves(&[0.5, 0.1]))
                .unwrap()
                .contains(r#""FP16","shape":[2],"data":[0.5,0.09997"#)
        );
        assert!(written(halves(&[1e6])).unwrap_err().contains("NaN or infinite"));
    }

    #[test]
    fn values_of_another_type_are_told() {
        let told = |datatype, data| read(datatype, data).unwrap_err();
        assert_eq!(
            told("INT8", "[300]"),
            "the output y is INT8, but holds the value 300"
        );
        assert_eq!(
            told("INT32", "[1.5]"),
            "the output y is INT32, but holds the value 1.5"
        );
        assert_eq!(
            told("FP32", r#"["1"]"#),
            "the output y is FP32, but holds the value a text"
        );
        assert_eq!(
            told("BYTES", "[1]"),
            "the output y is BYTES, but holds the value 1"
        );
        assert_eq!(
            told("BF16", "[1]"),
            "the output y is BF16, which has no type here"
        );
        assert!(read("FP32", "[NaN]").is_err());
    }
}
