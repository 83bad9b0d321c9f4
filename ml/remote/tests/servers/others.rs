//! BentoML, OpenAI's API, and JSON of one's own.

use std::collections::HashMap;

use parking_lot::Mutex;
use purlin::prelude::*;
use purlin_inference::{ModelHandler, RunInference};
use purlin_remote::{BentoMl, JsonEndpoint, OpenAiChat, OpenAiEmbeddings, Remote};
use serde_json::{Value, json};

use crate::stand_in::{Reply, StandIn};
use crate::{failure, server};

fn bento() -> StandIn {
    StandIn::new(|asked| match asked.path.as_str() {
        "/readyz" => Reply::Text("\n".to_owned()),
        "/schema.json" => Reply::Json(json!({"name": "prices", "routes": [
            {"name": "predict", "route": "/predict", "batchable": true,
             "input": {"properties": {"rows": {"type": "array"}, "scale": {"type": "number"}}}}]})),
        "/predict" => {
            let scale = asked.body["scale"].as_f64().unwrap();
            let rows: Vec<Vec<f64>> = serde_json::from_value(asked.body["rows"].clone()).unwrap();
            match rows.iter().any(Vec::is_empty) {
                true => Reply::status(400, r#"{"error": "1 validation error for Input"}"#),
                false => Reply::Json(json!(rows.iter().map(|row| row[0] * scale).collect::<Vec<_>>())),
            }
        }
        _ => Reply::status(404, ""),
    })
}

#[test]
fn bentoml_takes_lists_and_gives_lists() {
    let stand = bento();
    let p = TestPipeline::new();
    let rows = [vec![1.0], vec![], vec![2.5]];
    let api = BentoMl::<Vec<f64>, f64>::api("predict", "rows").with_argument("scale", 10);
    let model = RunInference::new(Remote::new(server(&stand.url), api)).with_dead_letters();
    let (results, failed) = p.apply(Create::new(rows)).apply(model);
    PAssert::that(&results.map("Price", |result| result.inference)).contains_in_any_order([10.0, 25.0]);
    let told = failed.filter("Told", |failed| {
        failed
            .error
            .contains("400 Bad Request: {\"error\": \"1 validation error")
    });
    PAssert::that(&told.apply(Count::globally()))
        .named("Told")
        .equals(1);
    p.run();
}

#[test]
fn a_row_that_failed_with_others_is_asked_for_alone() {
    // Until a row was asked for the second time, all rows of the begin fail with it.
    let seen: Mutex<HashMap<u64, usize>> = Mutex::default();
    let stand = StandIn::new(move |asked| match asked.path.as_str() {
        "/schema.json" => Reply::Json(json!({"routes": [{"name": "predict", "route": "/predict"}]})),
        "/predict" => {
            let rows: Vec<u64> = serde_json::from_value(asked.body["rows"].clone()).unwrap();
            let mut seen = seen.lock();
            let times: Vec<usize> = rows
                .iter()
                .map(|row| {
                    let times = seen.entry(*row).or_default();
                    *times += 1;
                    *times
                })
                .collect();
            match rows[..] {
                [7] => Reply::status(400, "7 is bad"),
                [row] if row < 4 && times == [1] => Reply::status(400, "its neighbour is bad"),
                _ => Reply::Json(json!(rows)),
            }
        }
        _ => Reply::Json(json!({})),
    });
    let api = BentoMl::<u64, u64>::api("predict", "rows").rows(1);
    let handler = Remote::new(server(&stand.url), api);
    let loaded = handler.load().unwrap();
    let rows: Vec<u64> = (0..10).collect();
    let batch: Vec<&u64> = rows.iter().collect();
    for (row, result) in rows.iter().zip(handler.run_each(&batch, &loaded).unwrap()) {
        match result {
            Ok(inference) => assert!(inference == *row && inference != 7),
            Err(error) => assert!(*row == 7 && error.to_string().contains("7 is bad")),
        }
    }
    // The five that failed once more.
    assert_eq!(stand.inferences().len(), 15);
}

#[test]
fn a_bento_without_the_api_is_an_error_at_load() {
    let stand = bento();
    let error = |api: BentoMl<Vec<f64>, f64>| {
        let p = TestPipeline::new();
        p.apply(Create::new([vec![1.0]]))
            .apply(RunInference::new(Remote::new(server(&stand.url), api)));
        failure(p)
    };
    let told = error(BentoMl::api("classify", "rows"));
    assert!(
        told.contains("the service has no API classify: it has predict"),
        "{told}"
    );
    let told = error(BentoMl::api("predict", "row"));
    assert!(
        told.contains("the API predict has no argument row: it has rows, scale"),
        "{told}"
    );
}

fn openai() -> StandIn {
    StandIn::new(|asked| match asked.path.as_str() {
        "/v1/models" => Reply::Json(json!({"data": [{"id": "small"}, {"id": "large"}]})),
        "/v1/embeddings" => {
            let texts: Vec<String> = serde_json::from_value(asked.body["input"].clone()).unwrap();
            // Not in order.
            let data: Vec<Value> = texts
                .iter()
                .enumerate()
                .rev()
                .map(|(index, text)| json!({"index": index, "embedding": [text.len(), 1]}))
                .collect();
            Reply::Json(json!({"object": "list", "model": asked.body["model"], "data": data}))
        }
        "/v1/chat/completions" => {
            let messages = asked.body["messages"].as_array().unwrap();
            let asks = messages.last().unwrap()["content"].as_str().unwrap();
            match asks {
                "bomb" => Reply::status(400, r#"{"error": {"message": "refused by policy"}}"#),
                _ => Reply::Json(json!({
                    "model": "large-2026", "choices": [{"message": {"content": format!("{asks}!")}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": messages.len(), "completion_tokens": 2}})),
            }
        }
        _ => Reply::status(404, ""),
    })
}

#[test]
fn embeddings_go_to_their_texts() {
    let stand = openai();
    let p = TestPipeline::new();
    let texts = p.apply(Create::new((0..30).map(|n| "x".repeat(n))));
    let model = OpenAiEmbeddings::model("small").rows(7);
    let results = texts.apply(RunInference::new(Remote::new(
        server(&format!("{}/v1", stand.url)),
        model,
    )));
    let wrong = results.filter("Wrong", |result| {
        result.inference != [result.example.len() as f32, 1.0]
    });
    PAssert::that(&wrong.apply(Count::globally())).equals(0);
    PAssert::that(&results.apply_named("All", Count::globally()))
        .named("All")
        .equals(30);
    p.run();
    assert!(
        stand
            .inferences()
            .iter()
            .all(|asked| asked.body["input"].as_array().unwrap().len() <= 7)
    );
}

#[test]
fn a_question_that_is_refused_is_asked_once_and_the_others_once() {
    let stand = openai();
    let chat = OpenAiChat::<String>::model("large")
        .with_system("Shout.")
        .with_parameter("temperature", 0);
    let handler = Remote::new(server(&format!("{}/v1/", stand.url)), chat);
    let loaded = handler.load().unwrap();
    let questions: Vec<String> = ["a", "bomb", "b"].map(str::to_owned).into();
    let batch: Vec<&String> = questions.iter().collect();
    let results = handler.run_each(&batch, &loaded).unwrap();
    let texts: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().map_or("failed", |answer| answer.text.as_str()))
        .collect();
    assert_eq!(texts, ["a!", "failed", "b!"]);
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(
        error.contains("large at") && error.contains("refused by policy"),
        "{error}"
    );
    let answer = results[0].as_ref().unwrap();
    assert_eq!(
        (answer.model.as_str(), answer.prompt_tokens),
        ("large-2026", Some(2))
    );
    assert_eq!(stand.inferences().len(), 3);
}

#[test]
fn a_model_that_the_server_does_not_list_is_an_error_at_load() {
    let stand = openai();
    let at = |path: &str| server(&format!("{}{path}", stand.url));
    let error = Remote::new(at("/v1"), OpenAiEmbeddings::model("medium"))
        .load()
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("the server has no model medium: it has small, large"),
        "{error}"
    );
    // A server that lists none is asked all the same, and says itself what is wrong.
    let handler = Remote::new(at("/other"), OpenAiEmbeddings::model("medium"));
    let loaded = handler.load().unwrap();
    let error = handler.run(&[&"a".to_owned()], &loaded).unwrap_err().to_string();
    assert!(error.contains("404 Not Found"), "{error}");
}

#[test]
fn json_of_any_kind() {
    let stand = StandIn::new(|asked| match asked.path.as_str() {
        "/one" => Reply::Json(json!(asked.body.as_str().unwrap().len())),
        "/many/words" => {
            let texts = asked.body["texts"].as_array().unwrap();
            let lengths: Vec<usize> = texts.iter().map(|text| text.as_str().unwrap().len()).collect();
            Reply::Json(json!({ "lengths": lengths }))
        }
        _ => Reply::Json(json!({"nothing": 1})),
    });
    let words = || ["a", "bb", "ccc"].map(str::to_owned);
    let many = |path: &str| {
        JsonEndpoint::<String, i64>::batches(
            "lengths",
            path,
            2,
            |texts| Ok(json!({ "texts": texts })),
            |mut answer| Ok(serde_json::from_value(answer["lengths"].take())?),
        )
    };
    for model in [JsonEndpoint::rows("lengths", "one"), many("/many/words")] {
        let p = TestPipeline::new();
        let results = p
            .apply(Create::new(words()))
            .apply(RunInference::new(Remote::new(server(&stand.url), model)));
        PAssert::that(&results.map("Length", |result| result.inference)).contains_in_any_order([1, 2, 3]);
        p.run();
    }
    let handler = Remote::new(server(&stand.url), many("elsewhere"));
    let loaded = handler.load().unwrap();
    let error = handler.run(&[&"a".to_owned()], &loaded).unwrap_err().to_string();
    assert!(
        error.contains("not the one that was expected") && error.contains(r#"{"nothing":1}"#),
        "{error}"
    );
    assert!(error.contains("tries: 6"), "{error}");
}
