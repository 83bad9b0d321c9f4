//! A server that answers as a test tells it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    /// Null where there is none.
    pub body: Value,
    /// How many were asked before.
    pub number: usize,
}

/// What is answered.
pub enum Reply {
    Json(Value),
    /// A status with a header and a body.
    Status(u16, Option<(&'static str, String)>, String),
    /// Whatever this is, with status 200.
    Text(String),
    /// The begin of an answer, and then the end of the connection.
    Cut,
    /// Nothing, for ever.
    Hang,
}

impl Reply {
    pub fn status(status: u16, body: &str) -> Reply {
        Reply::Status(status, None, body.to_owned())
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    asked: Mutex<Vec<Asked>>,
}

/// It serves until it is dropped.
pub struct StandIn {
    pub url: String,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl StandIn {
    pub fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> StandIn {
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            asked: Mutex::default(),
        });
        let runtime = runtime();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(serve).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        StandIn {
            url,
            shared,
            _runtime: runtime,
        }
    }

    /// All that was asked of it.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().clone()
    }

    /// The requests for inference.
    pub fn inferences(&self) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.method == Method::POST);
        asked
    }
}

pub fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = {
        let mut all = shared.asked.lock();
        let asked = Asked {
            method,
            path: uri.path().to_owned(),
            headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            number: all.len(),
        };
        all.push(asked.clone());
        drop(all);
        (shared.answer)(&asked)
    };
    let builder = Response::builder();
    match reply {
        Reply::Json(value) => builder.body(Body::from(value.to_string())).unwrap(),
        Reply::Text(text) => builder.body(Body::from(text)).unwrap(),
        Reply::Status(status, header, body) => {
            let mut builder = builder.status(status);
            if let Some((name, value)) = header {
                builder = builder.header(name, value);
            }
            builder.body(Body::from(body)).unwrap()
        }
        Reply::Cut => {
            let parts = [Ok("{\"outputs\": ["), Err(std::io::Error::other("cut"))];
            builder
                .body(Body::from_stream(futures::stream::iter(parts)))
                .unwrap()
        }
        Reply::Hang => std::future::pending().await,
    }
}

/// What KServe's protocol says of the model `sum`, which adds up the numbers of each row.
pub fn metadata() -> Value {
    json!({
        "name": "sum", "versions": ["3"], "platform": "test",
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    })
}

/// The rows of a request.
pub fn rows(body: &Value) -> Vec<Vec<f64>> {
    let data: Vec<f64> = serde_json::from_value(body["inputs"][0]["data"].clone()).unwrap();
    data.chunks(2).map(<[f64]>::to_vec).collect()
}

/// The answer to a request of KServe's protocol.
pub fn sums(body: &Value) -> Value {
    let sums: Vec<f64> = rows(body).iter().map(|row| row.iter().sum()).collect();
    answer_of(&sums)
}

pub fn answer_of(sums: &[f64]) -> Value {
    json!({"model_name": "sum", "outputs": [{"name": "y", "datatype": "FP64", "shape": [sums.len()], "data": sums}]})
}

/// A server of the model `sum`, with faults where inferences are asked for.
pub fn sum_server(fault: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> StandIn {
    StandIn::new(move |asked| match asked.path.as_str() {
        "/v2/models/sum/ready" => Reply::Json(json!({})),
        "/v2/models/sum" => Reply::Json(metadata()),
        "/v2/models/sum/infer" => fault(asked).unwrap_or_else(|| Reply::Json(sums(&asked.body))),
        _ => Reply::status(404, "{\"error\": \"no such model\"}"),
    })
}
