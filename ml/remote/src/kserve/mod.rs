//! The Open Inference Protocol, which is KServe's v2: of Triton, MLServer, KServe and others.

mod batch;
mod grpc;
mod http;
mod json;
mod raw;
mod spec;

use std::marker::PhantomData;

pub use grpc::KServeGrpc;
pub use spec::ServedModel;

use purlin::BoxError;

use crate::tensor::TensorRow;

/// KServe's protocol v2 (the Open Inference Protocol) over HTTP with JSON: Triton, MLServer, KServe, OpenVINO's server and
/// others.
/// [`KServe::grpc`] is the same over gRPC, which is faster for many numbers, and has forms for NaN and for bytes that are no
/// text.
///
/// An example is a row of the model's input, and an inference that of its output: a number, a `Vec` of numbers, a `String`, or
/// [`Tensor`](crate::Tensor)s with names and shapes; see [`TensorRow`]. Rows are put together along the first dimension of the
/// model's
/// tensors. When the model is loaded the server is asked whether it is ready, and what it takes and gives: names, datatypes and
/// shapes that do
/// not fit are errors, as far as the server tells them.
///
/// Where models change while the job runs, an update names another model of the server by `NAME`, or `NAME:VERSION`.
///
/// ```no_run
/// use purlin::prelude::*;
/// use purlin_inference::RunInference;
/// use purlin_remote::{KServe, Remote, Server};
///
/// let server = Server::at("http://localhost:8080");
/// let model = Remote::new(server, KServe::<Vec<f32>, Vec<f32>>::model("iris").version("2"));
/// let p = Pipeline::new();
/// let rows = p.apply(Create::new([vec![5.1f32, 3.5, 1.4, 0.2]]));
/// rows.apply(RunInference::new(model)).map("Show", |result| println!("{:?}", result.inference));
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub struct KServe<E, I> {
    pub(crate) names: Names,
    types: PhantomData<fn(E) -> I>,
}

/// The names by which a model is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub model: String,
    pub version: Option<String>,
    pub input: Option<String>,
    pub output: Option<String>,
    pub rows: usize,
}

impl Names {
    /// Of another model: `NAME`, whose version the server chooses, or `NAME:VERSION`.
    fn with_model(&self, id: &str) -> Result<Names, BoxError> {
        let (model, version) = match id.rsplit_once(':') {
            Some((model, version)) => (model, Some(version.to_owned())),
            None => (id, None),
        };
        if model.is_empty() || version.as_ref().is_some_and(String::is_empty) {
            return Err(format!("{id:?} names no model of the server: give NAME or NAME:VERSION").into());
        }
        Ok(Names {
            model: model.to_owned(),
            version,
            ..self.clone()
        })
    }
}

impl<E, I> Clone for KServe<E, I> {
    fn clone(&self) -> Self {
        KServe {
            names: self.names.clone(),
            types: PhantomData,
        }
    }
}

impl<E, I> std::fmt::Debug for KServe<E, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KServe").field(&self.names).finish()
    }
}

impl<E: TensorRow, I: TensorRow> KServe<E, I> {
    /// A model by its name on the server.
    pub fn model(name: impl Into<String>) -> Self {
        KServe {
            names: Names {
                model: name.into(),
                version: None,
                input: None,
                output: None,
                rows: 32,
            },
            types: PhantomData,
        }
    }

    /// Asks for this version. Which one it is, the server chooses unless told.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.names.version = Some(version.into());
        self
    }

    /// The name of the input, for rows without names. What the server says, unless told; or `input-0`, where it says nothing.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>) -> Self {
        self.names.input = Some(name.into());
        self
    }

    /// The output that is wanted. All of them, unless told.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.names.output = Some(name.into());
        self
    }

    /// So many rows go into a request at most: what the server takes as a batch. 32 unless told.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> Self {
        self.names.rows = rows.max(1);
        self
    }

    /// The same over gRPC. The server's URL is then that of its gRPC port, such as `http://HOST:8081`.
    #[must_use]
    pub fn grpc(self) -> KServeGrpc<E, I> {
        KServeGrpc(self)
    }
}

/// The key of a model's rows.
pub(crate) fn key<E, I>(kind: &str, names: &Names) -> String {
    format!("{kind} {names:?} {}", std::any::type_name::<fn(E) -> I>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_names_a_model_and_may_name_its_version() {
        let names = Names {
            model: "sum".to_owned(),
            version: Some("1".to_owned()),
            output: Some("y".to_owned()),
            rows: 8,
            ..Names::default()
        };
        let other = |id: &str| names.with_model(id).map(|names| (names.model, names.version));
        assert_eq!(other("sum:2").unwrap(), ("sum".to_owned(), Some("2".to_owned())));
        assert_eq!(other("product").unwrap(), ("product".to_owned(), None));
        let kept = names.with_model("product").unwrap();
        assert_eq!((kept.output.as_deref(), kept.rows), (Some("y"), 8));
        for wrong in ["", ":2", "sum:"] {
            let error = other(wrong).unwrap_err().to_string();
            assert!(error.contains("give NAME or NAME:VERSION"), "{error}");
        }
    }
}
