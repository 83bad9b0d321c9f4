//! The protocol over gRPC.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use purlin::BoxError;
use tonic::{Code, Request, Status};
use tower::Service;

use super::batch::{Batched, alike, join, split};
use super::raw;
use super::spec::{Metadata, ServedModel, Spec};
use super::{KServe, key};
use crate::client::Http;
use crate::failure::{Failure, FailureKind};
use crate::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    model_metadata_response,
};
use crate::protocol::Protocol;
use crate::tensor::{Datatype, TensorRow};

/// [`KServe`] over gRPC; see [`KServe::grpc`].
pub struct KServeGrpc<E, I>(pub(crate) KServe<E, I>);

impl<E, I> Clone for KServeGrpc<E, I> {
    fn clone(&self) -> Self {
        KServeGrpc(self.0.clone())
    }
}

impl<E, I> std::fmt::Debug for KServeGrpc<E, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KServeGrpc").field(&self.0.names).finish()
    }
}

impl<E: TensorRow, I: TensorRow> Protocol for KServeGrpc<E, I> {
    type Example = E;
    type Inference = I;
    type Connected = ServedModel;
    type Request = ModelInferRequest;

    const HTTP2: bool = true;

    fn model(&self) -> String {
        self.0.names.model.clone()
    }

    fn key(&self) -> String {
        key::<E, I>("KServe gRPC", &self.0.names)
    }

    fn with_model(&self, id: &str) -> Result<Self, BoxError> {
        Ok(KServeGrpc(self.0.with_model(id)?))
    }

    fn rows_per_request(&self) -> usize {
        self.0.names.rows
    }

    async fn connect(&self, http: &Http) -> Result<ServedModel, Failure> {
        let names = &self.0.names;
        let (name, version) = (names.model.clone(), names.version.clone().unwrap_or_default());
        let mut client = client(http);
        let ready = ModelReadyRequest {
            name: name.clone(),
            version: version.clone(),
        };
        let ready = client
            .model_ready(ready)
            .await
            .map_err(|status| failure(http, &status))?;
        if !ready.into_inner().ready {
            return Err(Failure::new(FailureKind::Unavailable, "the model is not ready"));
        }
        let metadata = client
            .model_metadata(ModelMetadataRequest { name, version })
            .await;
        let metadata = metadata.map_err(|status| failure(http, &status))?;
        ServedModel::check::<E, I>(names, metadata.into_inner().into())
    }

    fn version(&self, connected: &ServedModel) -> Option<String> {
        connected.version.clone()
    }

    fn go_together(&self, served: &ServedModel, one: &E, other: &E) -> bool {
        !served.takes_one_row() && alike(one, other)
    }

    fn request(&self, served: &ServedModel, rows: &[&E]) -> Result<ModelInferRequest, BoxError> {
        let batch = join(served, rows)?;
        let raw_input_contents = batch.iter().map(|tensor| raw::write(&tensor.values)).collect();
        let names = &self.0.names;
        Ok(ModelInferRequest {
            model_name: names.model.clone(),
            model_version: names.version.clone().unwrap_or_default(),
            inputs: batch.into_iter().map(input).collect(),
            outputs: served.output.as_deref().into_iter().map(wanted).collect(),
            raw_input_contents,
            ..ModelInferRequest::default()
        })
    }

    async fn send(
        &self,
        http: &Http,
        served: &ServedModel,
        request: &ModelInferRequest,
        rows: usize,
    ) -> Result<Vec<I>, Failure> {
        let response = client(http).model_infer(Request::new(request.clone())).await;
        let response = response.map_err(|status| failure(http, &status))?;
        let outputs = outputs(response.into_inner()).map_err(Failure::garbled)?;
        split(served, outputs, rows).map_err(Failure::garbled)
    }
}

fn input(tensor: Batched) -> InferInputTensor {
    InferInputTensor {
        datatype: tensor.values.datatype().name().to_owned(),
        name: tensor.name,
        shape: tensor.shape,
        ..InferInputTensor::default()
    }
}

fn wanted(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor {
        name: name.to_owned(),
        ..InferRequestedOutputTensor::default()
    }
}

impl From<ModelMetadataResponse> for Metadata {
    fn from(response: ModelMetadataResponse) -> Self {
        let spec = |tensor: model_metadata_response::TensorMetadata| Spec {
            name: tensor.name,
            datatype: tensor.datatype,
            shape: tensor.shape,
        };
        Metadata {
            versions: response.versions,
            inputs: response.inputs.into_iter().map(spec).collect(),
            outputs: response.outputs.into_iter().map(spec).collect(),
        }
    }
}

/// The tensors of an answer, whose values are in one of two places.
fn outputs(response: ModelInferResponse) -> Result<Vec<Batched>, String> {
    let (outputs, mut raw) = (response.outputs, response.raw_output_contents.into_iter());
    let is_raw = raw.len() > 0;
    if is_raw && raw.len() != outputs.len() {
        return Err(format!(
            "it gave values of {} outputs, but named {}",
            raw.len(),
            outputs.len()
        ));
    }
    let tensor = |output: crate::proto::model_infer_response::InferOutputTensor| {
        let datatype = Datatype::named(&output.datatype).ok_or_else(|| {
            format!(
                "the output {} is {}, which has no type here",
                output.name, output.datatype
            )
        })?;
        let values = match raw.next() {
            Some(bytes) if is_raw => raw::read(datatype, &bytes),
            _ => raw::contents(datatype, output.contents.unwrap_or_default()),
        };
        Ok(Batched {
            values: values
                .ok_or_else(|| format!("the output {} holds values that are not {datatype}", output.name))?,
            name: output.name,
            shape: output.shape,
        })
    };
    outputs.into_iter().map(tensor).collect()
}

fn client(http: &Http) -> GrpcInferenceServiceClient<Channel> {
    // A path of the URL comes before that of the service.
    GrpcInferenceServiceClient::new(Channel(http.clone()))
        .max_decoding_message_size(http.most_bytes())
        .max_encoding_message_size(purlin_net::MAX_MESSAGE_BYTES)
}

/// What a status of gRPC means.
fn failure(http: &Http, status: &Status) -> Failure {
    // An error of the connection is told as that of HTTP is.
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.clone();
        }
        source = error.source();
    }
    let kind = match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => FailureKind::Unavailable,
        Code::ResourceExhausted => FailureKind::Overloaded,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => FailureKind::Refused,
        Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
            FailureKind::Denied
        }
        _ => FailureKind::Failed,
    };
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    let pushback = pushback.and_then(|value| value.to_str().ok()?.parse().ok());
    Failure {
        kind,
        status: None,
        text: format!("{:?}: {}", status.code(), http.told(status.message().as_bytes())),
        retry_after: pushback.map(Duration::from_millis),
    }
}

/// Calls of gRPC by the client of HTTP, so that addresses, TLS and tokens are the same.
#[derive(Clone)]
struct Channel(Http);

impl Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<reqwest::Body>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let http = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
            let body = body.collect().await;
            let body = body.map_err(|status| Failure::new(FailureKind::Refused, status.to_string()))?;
            let response = http
                .client()
                .request(parts.method, http.url(&path))
                .headers(parts.headers)
                .body(body.to_bytes())
                .send()
                .await
                .map_err(|error| http.unanswered(error))?;
            Ok(response.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::half::F16;
    use crate::proto::InferTensorContents;
    use crate::proto::model_infer_response::InferOutputTensor;
    use crate::tensor::Values;

    fn output(datatype: &str, contents: Option<InferTensorContents>) -> InferOutputTensor {
        InferOutputTensor {
            name: "y".to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![1],
            contents,
            ..InferOutputTensor::default()
        }
    }

    fn read(outputs_of: Vec<InferOutputTensor>, raw: Vec<Bytes>) -> Result<Values, String> {
        let response = ModelInferResponse {
            outputs: outputs_of,
            raw_output_contents: raw,
            ..ModelInferResponse::default()
        };
        Ok(outputs(response)?.remove(0).values)
    }

    #[test]
    fn values_are_in_one_of_two_places() {
        let contents = InferTensorContents {
            fp32_contents: vec![2.5],
            ..InferTensorContents::default()
        };
        let expected = Ok(Values::F32(vec![2.5]));
        assert_eq!(read(vec![output("FP32", Some(contents))], vec![]), expected);
        let raw = Bytes::copy_from_slice(&2.5f32.to_le_bytes());
        assert_eq!(read(vec![output("FP32", None)], vec![raw.clone()]), expected);
        let half = Bytes::from_static(&[0, 0x3c]);
        let expected = Ok(Values::F16(vec![F16::from_f32(1.0)]));
        assert_eq!(read(vec![output("FP16", None)], vec![half]), expected);
        let error = read(vec![output("FP32", None)], vec![raw.clone(), raw]).unwrap_err();
        assert_eq!(error, "it gave values of 2 outputs, but named 1");
        let error = read(vec![output("FP32", None)], vec![Bytes::from_static(b"abc")]).unwrap_err();
        assert_eq!(error, "the output y holds values that are not FP32");
        assert!(
            read(vec![output("BF16", None)], vec![])
                .unwrap_err()
                .contains("has no type here")
        );
    }
}
