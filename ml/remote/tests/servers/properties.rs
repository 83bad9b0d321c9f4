//! Whatever a server does: no row is lost or doubled, and each gets its own answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use purlin_inference::ModelHandler;
use purlin_remote::{KServe, Remote, Retries};

use crate::server;
use crate::stand_in::{Reply, answer_of, rows, sum_server, sums};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Status(u16),
    RetryNow,
    Cut,
    Garbage,
    TooFew,
    TooMany,
    OtherType,
}

fn reply(fault: Fault, body: &serde_json::Value) -> Option<Reply> {
    let answer = |change: &dyn Fn(&mut Vec<f64>)| {
        let mut sums = rows(body).iter().map(|row| row.iter().sum()).collect();
        change(&mut sums);
        Some(Reply::Json(answer_of(&sums)))
    };
    match fault {
        Fault::None => None,
        Fault::Status(status) => Some(Reply::status(status, "fault")),
        Fault::RetryNow => Some(Reply::Status(
            429,
            Some(("retry-after", "0".to_owned())),
            String::new(),
        )),
        Fault::Cut => Some(Reply::Cut),
        Fault::Garbage => Some(Reply::Text(sums(body).to_string()[..20].to_owned())),
        Fault::TooFew => answer(&|sums| sums.truncate(sums.len() - 1)),
        Fault::TooMany => answer(&|sums| sums.push(0.0)),
        Fault::OtherType => Some(Reply::Text(sums(body).to_string().replace("FP64", "INT64"))),
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => prop::sample::select(vec![500, 502, 503, 504, 429, 408]).prop_map(Fault::Status),
        1 => Just(Fault::RetryNow),
        1 => Just(Fault::Cut),
        1 => Just(Fault::Garbage),
        1 => Just(Fault::TooFew),
        1 => Just(Fault::TooMany),
        1 => Just(Fault::OtherType),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_row_gets_its_own_answer_once(
        faults in proptest::collection::vec(fault(), 0..40),
        bad in proptest::collection::vec(prop::bool::weighted(0.1), 0..60),
        per_request in 1usize..20,
        concurrency in 1usize..6,
    ) {
        let answered: Arc<Mutex<HashMap<u64, usize>>> = Arc::default();
        let counts = answered.clone();
        let script = Mutex::new(faults.into_iter());
        let bad_rows = bad.clone();
        let stand = sum_server(move |asked| {
            let sent = rows(&asked.body);
            // A row that is bad is so in any company, and that is told at once.
            if sent.iter().any(|row| bad_rows[row[0] as usize]) {
                return Some(Reply::status(422, "bad row"));
            }
            let fault = script.lock().next().unwrap_or(Fault::None);
            let reply = reply(fault, &asked.body);
            if reply.is_none() {
                let mut counts = counts.lock();
                for row in sent {
                    *counts.entry(row[0] as u64).or_default() += 1;
                }
            }
            reply
        });
        let retries = Retries { tries: 50, first_pause: Duration::ZERO, ..Retries::default() };
        let at = server(&stand.url).retries(retries).concurrency(concurrency);
        let handler = Remote::new(at, KServe::<Vec<f64>, f64>::model("sum").rows(per_request));
        let loaded = handler.load().unwrap();
        let numbers: Vec<Vec<f64>> = (0..bad.len()).map(|n| vec![n as f64, 0.25]).collect();
        let batch: Vec<&Vec<f64>> = numbers.iter().collect();

        let results = handler.run_each(&batch, &loaded).unwrap();
        prop_assert_eq!(results.len(), numbers.len());
        let answered = answered.lock();
        for (index, result) in results.into_iter().enumerate() {
            // What went well was asked once, and not again as part of a half.
            let times = answered.get(&(index as u64)).copied().unwrap_or(0);
            match result {
                Ok(sum) => prop_assert!(!bad[index] && sum == index as f64 + 0.25 && times == 1),
                Err(error) => {
                    prop_assert!(bad[index] && times == 0);
                    prop_assert!(error.to_string().contains("422 Unprocessable Entity: bad row"), "{}", error);
                }
            }
        }
    }
}
