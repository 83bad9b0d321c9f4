//! KServe's protocol over HTTP.

use std::time::Duration;

use purlin::prelude::*;
use purlin_inference::{ModelMetadata, RunInference};
use purlin_remote::{F16, KServe, Remote, Retries, Server, Tensor, Values};
use serde_json::json;

use crate::stand_in::{Reply, StandIn, metadata, rows, sum_server, sums};
use crate::{failure, server};

type Rows = Vec<f64>;

fn sum() -> KServe<Rows, f64> {
    KServe::model("sum")
}

#[test]
fn rows_go_out_in_batches_and_results_name_the_model() {
    let stand = sum_server(|_| None);
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new((0..100).map(|n| vec![f64::from(n), 0.5])));
    let model = Remote::new(server(&stand.url), sum().rows(10));
    let results = numbers.apply(RunInference::new(model));
    let wrong = results.filter("Wrong", |result| result.inference != result.example[0] + 0.5);
    PAssert::that(&wrong.map("Show", |result| result.inference)).is_empty();
    let name = format!("sum at {}", stand.url);
    let named = results.filter("Named", move |result| {
        result.model_id == name && result.model_version.as_deref() == Some("3")
    });
    PAssert::that(&named.apply(Count::globally()))
        .named("Named")
        .equals(100);
    let result = p.run();
    let asked = stand.inferences();
    let sent: usize = asked.iter().map(|asked| rows(&asked.body).len()).sum();
    assert_eq!(sent, 100);
    assert!(asked.iter().all(|asked| rows(&asked.body).len() <= 10));
    let requests = i64::try_from(asked.len()).unwrap();
    let metrics = result.metrics();
    // That of the model's metadata is one more.
    assert_eq!(metrics.counter("RunInference", "remote_requests"), requests + 1);
    assert_eq!(metrics.counter("RunInference", "remote_retries"), 0);
    assert_eq!(metrics.counter("RunInference", "num_inferences"), 100);
}

#[test]
fn a_version_is_asked_for_by_its_path() {
    let stand = StandIn::new(|asked| match asked.path.as_str() {
        "/below/v2/models/sum/versions/9/ready" => Reply::Json(json!({})),
        "/below/v2/models/sum/versions/9" => Reply::Json(metadata()),
        "/below/v2/models/sum/versions/9/infer" => Reply::Json(sums(&asked.body)),
        _ => Reply::status(404, ""),
    });
    let p = TestPipeline::new();
    let model = Remote::new(server(&format!("{}/below", stand.url)), sum().version("9"));
    let results = p
        .apply(Create::new([vec![1.0, 2.0]]))
        .apply(RunInference::new(model));
    let shown = results.map("Show", |result| (result.inference, result.model_version));
    PAssert::that(&shown).equals((3.0, Some("9".to_owned())));
    p.run();
}

#[test]
fn the_model_changes_while_the_job_runs() {
    let stand = StandIn::new(|asked| match asked.path.as_str() {
        "/v2/models/sum/versions/9/ready" => Reply::Json(json!({})),
        "/v2/models/sum/versions/9" => Reply::Json(metadata()),
        "/v2/models/sum/versions/9/infer" => Reply::Json(sums(&asked.body)),
        _ => Reply::status(404, ""),
    });
    let p = TestPipeline::new();
    // The version that the handler names is not there: the update's serves from the first row on.
    let models = p.apply(Create::new([ModelMetadata {
        model_id: "sum:9".to_owned(),
        model_name: String::new(),
    }]));
    let model = Remote::new(server(&stand.url), sum().version("8"));
    let results = p
        .apply_named("Rows", Create::new([vec![1.0, 2.0]]))
        .apply(RunInference::new(model).with_model_updates(&models));
    let shown = results.map("Show", |result| (result.inference, result.model_version));
    PAssert::that(&shown).equals((3.0, Some("9".to_owned())));
    p.run();
}

#[test]
fn rows_of_floats_are_halves_for_the_server() {
    let spec = |name: &str| json!([{"name": name, "datatype": "FP16", "shape": [-1, 2]}]);
    let stand = StandIn::new(move |asked| match asked.path.as_str() {
        "/v2/models/half" => Reply::Json(json!({"inputs": spec("x"), "outputs": spec("y")})),
        "/v2/models/half/infer" => {
            let input = &asked.body["inputs"][0];
            assert_eq!(input["datatype"], "FP16");
            Reply::Json(json!({"outputs": [
                {"name": "y", "datatype": "FP16", "shape": input["shape"], "data": input["data"]}]}))
        }
        _ => Reply::Json(json!({})),
    });
    let p = TestPipeline::new();
    let model = KServe::<Vec<f32>, Vec<f32>>::model("half");
    let results = p
        .apply(Create::new([vec![0.5f32, 0.1]]))
        .apply(RunInference::new(Remote::new(server(&stand.url), model)));
    let shown = results.map("Show", |result| result.inference);
    PAssert::that(&shown).equals(vec![0.5, F16::from_f32(0.1).to_f32()]);
    p.run();
}

#[test]
fn tensors_have_names_and_shapes() {
    let stand = StandIn::new(|asked| match asked.path.as_str() {
        "/v2/models/two/infer" => {
            let inputs = &asked.body["inputs"];
            let rows = inputs[0]["shape"][0].as_u64().unwrap();
            assert_eq!(inputs[1]["shape"], json!([rows]));
            // Rows of different lengths are in requests of their own.
            let length = inputs[0]["shape"][1].as_u64().unwrap();
            assert_eq!(inputs[0]["data"].as_array().unwrap().len() as u64, rows * length);
            Reply::Json(json!({"outputs": [
                {"name": "length", "datatype": "INT64", "shape": [rows, 1], "data": vec![length; rows as usize]},
                {"name": "word", "datatype": "BYTES", "shape": [rows], "data": inputs[1]["data"]},
            ]}))
        }
        "/v2/models/two" => Reply::Json(json!({"inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]}, {"name": "word", "datatype": "BYTES", "shape": [-1]}]})),
        _ => Reply::Json(json!({})),
    });
    let row = |word: &str, ids: Vec<i64>| {
        let tensor = |name: &str, shape, values| Tensor {
            name: name.to_owned(),
            shape,
            values,
        };
        vec![
            tensor("ids", vec![ids.len()], Values::I64(ids)),
            tensor("word", vec![], Values::Bytes(vec![word.as_bytes().to_vec()])),
        ]
    };
    let p = TestPipeline::new();
    let rows = [
        row("one", vec![7]),
        row("two", vec![7, 8]),
        row("three", vec![7, 8, 9]),
        row("deux", vec![1, 2]),
    ];
    let model = KServe::<Vec<Tensor>, Vec<Tensor>>::model("two");
    let results = p
        .apply(Create::new(rows))
        .apply(RunInference::new(Remote::new(server(&stand.url), model)));
    let shown = results.map("Show", |result| {
        match (&result.inference[0].values, &result.inference[1].values) {
            (Values::I64(length), Values::Bytes(word)) => {
                format!("{} {length:?}", String::from_utf8_lossy(&word[0]))
            }
            other => format!("{other:?}"),
        }
    });
    let expected = ["one [1]", "two [2]", "three [3]", "deux [2]"].map(str::to_owned);
    PAssert::that(&shown).contains_in_any_order(expected);
    p.run();
}

fn load_error<E, I>(server: Server, model: KServe<E, I>, row: E) -> String
where
    E: purlin_remote::TensorRow,
    I: purlin_remote::TensorRow,
    KServe<E, I>: purlin_remote::Protocol<Example = E>,
{
    let p = TestPipeline::new();
    p.apply(Create::new([row]))
        .apply(RunInference::new(Remote::new(server, model)));
    failure(p)
}

#[test]
fn a_model_that_cannot_be_used_is_an_error_at_load() {
    let stand = sum_server(|_| None);
    let at = || server(&stand.url);
    let error = load_error(at(), KServe::<Rows, f64>::model("total"), vec![]);
    assert!(
        error.contains("cannot load the model total at http://127.0.0.1") && error.contains("404 Not Found"),
        "{error}"
    );
    assert!(
        error.contains("no such model") && error.contains("tries: 1"),
        "{error}"
    );
    let error = load_error(at(), KServe::<Vec<f32>, f64>::model("sum"), vec![]);
    assert!(
        error.contains("its input x (FP64 [-1, 2]) wants FP64, but the pipeline's rows are FP32"),
        "{error}"
    );
    let error = load_error(at(), KServe::<Rows, i64>::model("sum"), vec![]);
    assert!(error.contains("its output y (FP64 [-1]) gives FP64"), "{error}");
    let error = load_error(at().bearer_from_env("PURLIN_TEST_NO_SUCH_TOKEN"), sum(), vec![]);
    assert!(error.contains("PURLIN_TEST_NO_SUCH_TOKEN is not set"), "{error}");
    assert!(stand.inferences().is_empty());
    let error = load_error(server("models:8080"), sum(), vec![]);
    assert!(error.contains("neither http nor https"), "{error}");
}

#[test]
fn a_server_that_is_no_server_of_models_is_told() {
    let stand = StandIn::new(|_| Reply::Text("<html>Hello</html>".to_owned()));
    let error = load_error(server(&stand.url), sum(), vec![]);
    assert!(
        error.contains("not the JSON that was expected") && error.contains("<html>Hello</html>"),
        "{error}"
    );
}

#[test]
fn a_model_that_is_not_ready_yet_is_waited_for() {
    let stand = StandIn::new(|asked| match asked.path.as_str() {
        "/v2/models/sum/ready" if asked.number < 3 => Reply::status(400, "loading"),
        "/v2/models/sum/ready" => Reply::Json(json!({})),
        "/v2/models/sum" => Reply::Json(metadata()),
        _ => Reply::Json(sums(&asked.body)),
    });
    let p = TestPipeline::new();
    let model = Remote::new(server(&stand.url), sum());
    let results = p
        .apply(Create::new([vec![1.0, 2.0]]))
        .apply(RunInference::new(model));
    PAssert::that(&results.map("Sum", |result| result.inference)).equals(3.0);
    p.run();

    let never = StandIn::new(|_| Reply::status(400, "loading"));
    let brief = server(&never.url).retries(Retries {
        tries: 2,
        first_pause: Duration::ZERO,
        ..Retries::default()
    });
    let error = load_error(brief, sum(), vec![]);
    assert!(
        error.contains("the model is not ready: 400 Bad Request: loading (tries: 2"),
        "{error}"
    );
}
