//! KServe's protocol over gRPC, beside a server made by tonic.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use purlin::prelude::*;
use purlin_inference::{ModelHandler, RunInference};
use purlin_remote::proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use purlin_remote::proto::model_infer_response::InferOutputTensor;
use purlin_remote::proto::model_metadata_response::TensorMetadata;
use purlin_remote::proto::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse,
};
use purlin_remote::{KServe, KServeGrpc, Remote};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::stand_in::runtime;
use crate::{failure, server};

type Fault = dyn Fn(usize, &[f32]) -> Option<Status> + Send + Sync;

/// Doubles numbers.
struct Doubles {
    fault: Box<Fault>,
    /// Rows of each request.
    asked: Arc<Mutex<Vec<usize>>>,
    /// Whether values are in the fields of their type.
    in_fields: bool,
    token: Option<String>,
}

#[tonic::async_trait]
impl GrpcInferenceService for Doubles {
    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        match request.into_inner().name.as_str() {
            "double" => Ok(Response::new(ModelReadyResponse { ready: true })),
            name => Err(Status::not_found(format!("no model {name}"))),
        }
    }

    async fn model_metadata(
        &self,
        _: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let tensor = |name: &str| TensorMetadata {
            name: name.to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![-1, 1],
        };
        Ok(Response::new(ModelMetadataResponse {
            name: "double".to_owned(),
            versions: vec!["5".to_owned()],
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y")],
            ..ModelMetadataResponse::default()
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        if let Some(token) = &self.token {
            let sent = request.metadata().get("authorization");
            assert_eq!(sent.unwrap().to_str().unwrap(), token);
        }
        let request = request.into_inner();
        assert_eq!(request.inputs[0].name, "x");
        let values: Vec<f32> = request.raw_input_contents[0]
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(request.inputs[0].shape, [i64::try_from(values.len()).unwrap(), 1]);
        let number = {
            let mut asked = self.asked.lock();
            asked.push(values.len());
            asked.len()
        };
        if let Some(status) = (self.fault)(number, &values) {
            return Err(status);
        }
        let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
        let raw: Bytes = doubled.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Response::new(ModelInferResponse {
            outputs: vec![InferOutputTensor {
                name: "y".to_owned(),
                datatype: "FP32".to_owned(),
                shape: request.inputs[0].shape.clone(),
                contents: self.in_fields.then(|| InferTensorContents {
                    fp32_contents: doubled,
                    ..InferTensorContents::default()
                }),
                ..InferOutputTensor::default()
            }],
            raw_output_contents: if self.in_fields { vec![] } else { vec![raw] },
            ..ModelInferResponse::default()
        }))
    }
}

/// A server, its URL, and the rows of the requests that it got.
fn serve(doubles: Doubles) -> (Runtime, String, Arc<Mutex<Vec<usize>>>) {
    let asked = doubles.asked.clone();
    let runtime = runtime();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = GrpcInferenceServiceServer::new(doubles);
    let server = tonic::transport::Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (runtime, url, asked)
}

fn doubles(fault: impl Fn(usize, &[f32]) -> Option<Status> + Send + Sync + 'static) -> Doubles {
    Doubles {
        fault: Box::new(fault),
        asked: Arc::default(),
        in_fields: false,
        token: None,
    }
}

fn model(url: &str) -> Remote<KServeGrpc<f32, f32>> {
    Remote::new(server(url), KServe::model("double").rows(8).grpc())
}

#[test]
fn rows_go_out_in_batches_with_tokens() {
    for in_fields in [false, true] {
        let (_runtime, url, asked) = serve(Doubles {
            in_fields,
            token: Some(format!("Bearer {}", std::env::var("PATH").unwrap())),
            ..doubles(|_, _| None)
        });
        let p = TestPipeline::new();
        let numbers = p.apply(Create::new((0..50u8).map(f32::from)));
        let protocol = KServe::<f32, f32>::model("double").rows(8).grpc();
        let handler = Remote::new(server(&url).bearer_from_env("PATH"), protocol);
        let results = numbers.apply(RunInference::new(handler));
        let wrong = results.filter("Wrong", |result| result.inference != result.example * 2.0);
        PAssert::that(&wrong.map("Show", |result| result.inference)).is_empty();
        let versions = results.map("Version", |result| result.model_version);
        PAssert::that(&versions.apply(Distinct::new()))
            .named("Version")
            .equals(Some("5".to_owned()));
        p.run();
        let asked = asked.lock();
        assert_eq!(asked.iter().sum::<usize>(), 50);
        assert!(asked.iter().all(|rows| *rows <= 8));
    }
}

#[test]
fn statuses_that_pass_are_tried_again() {
    for status in [
        Status::unavailable("restarting"),
        Status::resource_exhausted("queue is full"),
        Status::internal("boom"),
        Status::unknown("?"),
    ] {
        let told = status.clone();
        let (_runtime, url, asked) = serve(doubles(move |number, _| (number < 3).then(|| told.clone())));
        let handler = model(&url);
        let loaded = handler.load().unwrap();
        assert_eq!(
            handler.run(&[&1.0, &f32::INFINITY], &loaded).unwrap(),
            [2.0, f32::INFINITY],
            "{status}"
        );
        assert_eq!(*asked.lock(), [2, 2, 2], "{status}");
    }
}

#[test]
fn a_bad_row_costs_itself_alone() {
    let bad = |_, values: &[f32]| {
        values
            .contains(&13.0)
            .then(|| Status::invalid_argument("13 is bad luck"))
    };
    let (_runtime, url, asked) = serve(doubles(bad));
    let handler = model(&url);
    let loaded = handler.load().unwrap();
    let numbers: Vec<f32> = (0..32u8).map(f32::from).collect();
    let batch: Vec<&f32> = numbers.iter().collect();
    let results = handler.run_each(&batch, &loaded).unwrap();
    for (number, result) in numbers.iter().zip(results) {
        match result {
            Ok(doubled) => assert_eq!(doubled, number * 2.0),
            Err(error) => {
                assert_eq!(*number, 13.0);
                let error = error.to_string();
                assert!(
                    error.contains("InvalidArgument: 13 is bad luck (tries: 1"),
                    "{error}"
                );
            }
        }
    }
    assert_eq!(asked.lock().len(), 4 + 6);
}

#[test]
fn a_model_that_is_not_there_and_a_server_that_is_not_are_told() {
    let (runtime, url, _) = serve(doubles(|_, _| None));
    let error_of = |model: Remote<KServeGrpc<f32, f32>>| {
        let p = TestPipeline::new();
        p.apply(Create::new([1.0f32])).apply(RunInference::new(model));
        failure(p)
    };
    let error = error_of(Remote::new(server(&url), KServe::model("triple").grpc()));
    assert!(error.contains("NotFound: no model triple (tries: 1"), "{error}");
    let p = TestPipeline::new();
    let wrong = Remote::new(server(&url), KServe::<i64, f32>::model("double").grpc());
    p.apply(Create::new([1i64])).apply(RunInference::new(wrong));
    let error = failure(p);
    assert!(
        error.contains("its input x (FP32 [-1, 1]) wants FP32, but the pipeline's rows are INT64"),
        "{error}"
    );
    drop(runtime);
    let error = error_of(model(&url));
    assert!(
        error.contains("Connection refused") && error.contains("tries: 6"),
        "{error}"
    );
}
