//! BentoML's services.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use purlin::{BoxError, Element};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::{Http, to_json};
use crate::failure::{Failure, FailureKind};
use crate::protocol::Protocol;

/// An API of a [BentoML](https://docs.bentoml.com) service (1.2 or newer) that takes a list in one of its arguments, and gives a
/// list with
/// one answer for each: in Python such as
///
/// ```python
/// @bentoml.service
/// class Prices:
///     @bentoml.api(batchable=True)
///     def predict(self, rows: list[list[float]]) -> list[float]: ...
/// ```
///
/// Examples and inferences are what serde writes and reads as the items of these lists. When the model is loaded the service is
/// asked
/// whether it is ready, and whether it has such an API with such an argument.
///
/// ```no_run
/// use purlin::prelude::*;
/// use purlin_inference::RunInference;
/// use purlin_remote::{BentoMl, Remote, Server};
///
/// let prices = BentoMl::<Vec<f64>, f64>::api("predict", "rows");
/// let model = Remote::new(Server::at("http://localhost:3000"), prices);
/// let p = Pipeline::new();
/// p.apply(Create::new([vec![1.0, 2.0]])).apply(RunInference::new(model));
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub struct BentoMl<E, I> {
    api: String,
    argument: String,
    others: BTreeMap<String, serde_json::Value>,
    rows: usize,
    types: PhantomData<fn(E) -> I>,
}

impl<E, I> Clone for BentoMl<E, I> {
    fn clone(&self) -> Self {
        BentoMl {
            api: self.api.clone(),
            argument: self.argument.clone(),
            others: self.others.clone(),
            rows: self.rows,
            types: PhantomData,
        }
    }
}

impl<E, I> fmt::Debug for BentoMl<E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BentoMl({}({}))", self.api, self.argument)
    }
}

impl<E, I> BentoMl<E, I>
where
    E: Element + Serialize,
    I: Element + DeserializeOwned,
{
    /// The API of this name, and its argument that takes the rows.
    pub fn api(name: impl Into<String>, argument: impl Into<String>) -> Self {
        BentoMl {
            api: name.into(),
            argument: argument.into(),
            others: BTreeMap::new(),
            rows: 32,
            types: PhantomData,
        }
    }

    /// Gives another argument this value with each request.
    #[must_use]
    pub fn with_argument(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.others.insert(name.into(), value.into());
        self
    }

    /// So many rows go into a request at most. 32 unless told.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows.max(1);
        self
    }
}

/// What a service says of itself in `schema.json`.
#[derive(Deserialize)]
struct Schema {
    routes: Vec<Route>,
}

#[derive(Deserialize)]
struct Route {
    name: String,
    route: String,
    #[serde(default)]
    input: Input,
}

#[derive(Deserialize, Default)]
struct Input {
    #[serde(default)]
    properties: BTreeMap<String, serde::de::IgnoredAny>,
}

/// The path of an API.
pub struct Found {
    path: Vec<String>,
}

/// The API of a service, and whether it has these arguments.
fn find(schema: Schema, api: &str, arguments: &[&String]) -> Result<Found, String> {
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>().join(", ");
    let Some(route) = schema.routes.iter().find(|route| route.name == api) else {
        let all = names(&mut schema.routes.iter().map(|route| &route.name));
        return Err(format!("the service has no API {api}: it has {all}"));
    };
    let known = &route.input.properties;
    if let Some(missing) = arguments.iter().find(|name| !known.contains_key(**name))
        && !known.is_empty()
    {
        let all = names(&mut known.keys());
        return Err(format!("the API {api} has no argument {missing}: it has {all}"));
    }
    let path = route.route.trim_matches('/').split('/').map(str::to_owned);
    Ok(Found { path: path.collect() })
}

impl<E, I> Protocol for BentoMl<E, I>
where
    E: Element + Serialize,
    I: Element + DeserializeOwned,
{
    type Example = E;
    type Inference = I;
    type Connected = Found;
    type Request = Bytes;

    /// By APIs that are `batchable`.
    const MERGES: bool = true;

    fn model(&self) -> String {
        self.api.clone()
    }

    fn key(&self) -> String {
        let types = std::any::type_name::<fn(E) -> I>();
        format!("BentoML {} {} {:?} {types}", self.api, self.argument, self.others)
    }

    fn rows_per_request(&self) -> usize {
        self.rows
    }

    async fn connect(&self, http: &Http) -> Result<Found, Failure> {
        http.get(&["readyz"]).await.map_err(|mut failure| {
            failure.text = format!("the service is not ready: {}", failure.text);
            failure
        })?;
        let schema: Schema = http.get_json(&["schema.json"]).await.map_err(|mut failure| {
            failure.text = format!(
                "the service does not tell its APIs as BentoML 1.2 and newer do: {}",
                failure.text
            );
            failure.kind = match failure.kind {
                FailureKind::Garbled => FailureKind::Denied,
                kind => kind,
            };
            failure
        })?;
        let arguments: Vec<&String> = std::iter::once(&self.argument)
            .chain(self.others.keys())
            .collect();
        find(schema, &self.api, &arguments).map_err(Failure::denied)
    }

    fn request(&self, _: &Found, rows: &[&E]) -> Result<Bytes, BoxError> {
        let mut arguments: BTreeMap<&str, Argument<'_, E>> = BTreeMap::new();
        for (name, value) in &self.others {
            arguments.insert(name, Argument::Value(value));
        }
        arguments.insert(&self.argument, Argument::Rows(rows));
        to_json(&arguments)
    }

    async fn send(&self, http: &Http, found: &Found, request: &Bytes, _: usize) -> Result<Vec<I>, Failure> {
        let path: Vec<&str> = found.path.iter().map(String::as_str).collect();
        http.post_json(&path, request.clone()).await
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Argument<'a, E> {
    Value(&'a serde_json::Value),
    Rows(&'a [&'a E]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apis_and_arguments_that_are_not_there_are_told_with_those_that_are() {
        let schema = || {
            let text = r#"{"name": "s", "routes": [
                {"name": "predict", "route": "/v1/predict", "input": {"properties": {"rows": {"type": "array"}, "scale": {}}}},
                {"name": "status", "route": "/status"}]}"#;
            serde_json::from_str::<Schema>(text).unwrap()
        };
        let (rows, other) = ("rows".to_owned(), "row".to_owned());
        let found = find(schema(), "predict", &[&rows]).unwrap();
        assert_eq!(found.path, ["v1", "predict"]);
        let told = |api, argument| find(schema(), api, &[argument]).err().unwrap();
        assert_eq!(
            told("classify", &rows),
            "the service has no API classify: it has predict, status"
        );
        assert_eq!(
            told("predict", &other),
            "the API predict has no argument row: it has rows, scale"
        );
    }

    #[test]
    fn rows_are_one_argument_of_several() {
        let api = BentoMl::<Vec<f64>, f64>::api("predict", "rows").with_argument("scale", 2);
        let found = Found { path: vec![] };
        let request = api.request(&found, &[&vec![1.0], &vec![2.5]]).unwrap();
        assert_eq!(request, r#"{"rows":[[1.0],[2.5]],"scale":2}"#);
    }
}
