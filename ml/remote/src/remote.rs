//! The handler for `RunInference`.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use purlin::metrics::Counter;
use purlin::prelude::*;
use purlin_inference::{BatchSizes, InferenceError, ModelHandler};
use tokio::task::JoinSet;

use crate::caller::Caller;
use crate::client::Http;
use crate::failure::{Failure, RemoteError};
use crate::protocol::Protocol;
use crate::runtime::wait;
use crate::server::Server;

/// Applies a model behind a [`Server`] to examples, by a [`Protocol`].
///
/// A batch of `RunInference` becomes requests of at most so many rows, which run side by side. What a row costs that the server
/// cannot
/// take is told by [`FailureKind`](crate::FailureKind): its request is halved until it stands alone where failures have outputs.
/// A
/// server that is away is no row's fault: it fails the bundle, which the runner tries again.
#[derive(Debug, Clone)]
pub struct Remote<P> {
    server: Server,
    protocol: P,
    rows: usize,
    sizes: Option<BatchSizes>,
    namespace: String,
}

/// A model behind a server that has been asked. It is what [`Remote`] loads.
pub struct Connected<P: Protocol> {
    protocol: P,
    http: Http,
    known: P::Connected,
    caller: Caller,
    counters: Counters,
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    requests: Counter,
    retries: Counter,
    throttled: Counter,
    circuit_opens: Counter,
}

impl Counters {
    fn new(namespace: &str) -> Counters {
        let counter = |name| Metrics::counter(namespace, name);
        Counters {
            requests: counter("remote_requests"),
            retries: counter("remote_retries"),
            // Beam's name.
            throttled: counter("throttling-msecs"),
            circuit_opens: counter("remote_circuit_opens"),
        }
    }
}

impl<P: Protocol> Remote<P> {
    /// The protocol's model on a server.
    pub fn new(server: Server, protocol: P) -> Remote<P> {
        Remote {
            server,
            rows: protocol.rows_per_request().max(1),
            protocol,
            sizes: None,
            namespace: "RunInference".to_owned(),
        }
    }

    /// So many rows go into a request at most. What the protocol says, unless told.
    #[must_use]
    pub fn rows_per_request(mut self, rows: usize) -> Self {
        self.rows = rows.max(1).min(self.protocol.rows_per_request().max(1));
        self
    }

    /// The smallest and the largest batch of `RunInference`, which becomes one or more requests. From 1 to as many rows as fill
    /// all
    /// requests that may run at a time, unless told.
    #[must_use]
    pub fn with_batch_sizes(mut self, sizes: BatchSizes) -> Self {
        self.sizes = Some(sizes);
        self
    }

    /// Counts under this namespace. `RunInference` unless told.
    #[must_use]
    pub fn with_metrics_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.to_owned();
        self
    }

    /// The rows of each request.
    fn cut(&self, known: &P::Connected, rows: &[&P::Example]) -> VecDeque<Range<usize>> {
        let mut parts = VecDeque::new();
        let mut begin = 0;
        for at in 1..=rows.len() {
            let ends = at == rows.len()
                || at - begin == self.rows
                || !self.protocol.go_together(known, rows[begin], rows[at]);
            if ends {
                parts.push_back(begin..at);
                begin = at;
            }
        }
        parts
    }

    /// Asks for all rows. `alone`: what fails is halved until each row at fault stands alone; without it the first error ends it.
    fn ask(
        &self,
        rows: &[&P::Example],
        model: &Arc<Connected<P>>,
        alone: bool,
    ) -> Result<Vec<Result<P::Inference, BoxError>>, BoxError> {
        let mut results: Vec<Option<Result<P::Inference, BoxError>>> = rows.iter().map(|_| None).collect();
        let mut parts = self.cut(&model.known, rows);
        let mut suspects = VecDeque::new();
        // Each round sends what is left, all at once.
        let mut exclusive = false;
        while !parts.is_empty() {
            let mut requests = Vec::new();
            let mut halves = VecDeque::new();
            for part in parts.drain(..) {
                match self.protocol.request(&model.known, &rows[part.clone()]) {
                    Ok(request) => requests.push((part, request)),
                    Err(error) if !alone => return Err(error),
                    Err(error) if part.len() == 1 => results[part.start] = Some(Err(error)),
                    Err(_) => halve(part, &mut halves),
                }
            }
            let outcomes = wait(send_all(model.clone(), requests, exclusive))?;
            for (part, outcome) in outcomes? {
                match outcome {
                    Ok(inferences) => {
                        for (result, inference) in results[part].iter_mut().zip(inferences) {
                            *result = Some(Ok(inference));
                        }
                    }
                    Err(error) if !error.failure.kind.is_of_rows() => {
                        return Err(InferenceError::Unavailable(error.into()).into());
                    }
                    Err(error) if !alone => return Err(error.into()),
                    Err(error) if part.len() == 1 => {
                        results[part.start] = Some(Err(error.into()));
                        suspects.push_back(part);
                    }
                    Err(_) => halve(part, &mut halves),
                }
            }
            parts = halves;
            if parts.is_empty() && P::MERGES && !exclusive {
                exclusive = true;
                parts = std::mem::take(&mut suspects);
            }
        }
        let missing = || Err("no request was made of a row".into());
        Ok(results
            .into_iter()
            .map(|result| result.unwrap_or_else(missing))
            .collect())
    }

    fn count(&self, model: &Connected<P>) {
        let counted = model.caller.take_counted();
        let counters = &model.counters;
        for (counter, number) in [
            (counters.requests, counted.requests),
            (counters.retries, counted.retries),
            (counters.throttled, counted.throttled_millis),
            (counters.circuit_opens, counted.circuit_opens),
        ] {
            if number > 0 {
                counter.inc(i64::try_from(number).unwrap_or(i64::MAX));
            }
        }
    }
}

fn halve(part: Range<usize>, halves: &mut VecDeque<Range<usize>>) {
    let middle = part.start + part.len() / 2;
    halves.push_back(part.start..middle);
    halves.push_back(middle..part.end);
}

type Outcome<I> = (Range<usize>, Result<Vec<I>, RemoteError>);

/// Sends requests side by side, or where each is to be the only one, one after the other. The first that fails for a reason that
/// is not the rows' ends the others.
async fn send_all<P: Protocol>(
    model: Arc<Connected<P>>,
    requests: Vec<(Range<usize>, P::Request)>,
    exclusive: bool,
) -> Result<Vec<Outcome<P::Inference>>, BoxError> {
    let mut tasks = JoinSet::new();
    for (part, request) in requests {
        let model = model.clone();
        tasks.spawn(async move {
            let send = || model.send(&request, part.len());
            let outcome = match exclusive {
                true => model.caller.call_alone(send).await,
                false => model.caller.call(send).await,
            };
            (part, outcome)
        });
    }
    let mut outcomes = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        let outcome = done.map_err(|error| format!("a request was not sent to its end: {error}"))?;
        let ends = matches!(&outcome.1, Err(error) if !error.failure.kind.is_of_rows());
        outcomes.push(outcome);
        if ends {
            break;
        }
    }
    Ok(outcomes)
}

impl<P: Protocol> Connected<P> {
    /// One try.
    async fn send(&self, request: &P::Request, rows: usize) -> Result<Vec<P::Inference>, Failure> {
        let inferences = self.protocol.send(&self.http, &self.known, request, rows).await?;
        if inferences.len() == rows {
            return Ok(inferences);
        }
        Err(Failure::garbled(format!(
            "it gave {} answers for {rows} rows",
            inferences.len()
        )))
    }
}

impl<P: Protocol> ModelHandler for Remote<P> {
    type Example = P::Example;
    type Inference = P::Inference;
    type Model = Arc<Connected<P>>;

    fn model_id(&self) -> String {
        format!("{} at {}", self.protocol.model(), self.server.shown())
    }

    /// Handlers that ask one server in different ways have limits of their own.
    fn model_key(&self) -> String {
        format!("{} {:?} {}", self.protocol.key(), self.server, self.namespace)
    }

    fn load(&self) -> Result<Self::Model, BoxError> {
        let http = self.server.connect(P::HTTP2)?;
        let random = Box::new(fastrand::f64);
        let policy = self.server.policy.clone();
        let caller = Caller::new(self.protocol.model(), self.server.shown(), policy, random);
        let protocol = self.protocol.clone();
        let counters = Counters::new(&self.namespace);
        let connected = wait(async move {
            let known = caller.call(|| protocol.connect(&http)).await?;
            Ok::<_, RemoteError>(Connected {
                protocol,
                http,
                known,
                caller,
                counters,
            })
        })??;
        Ok(Arc::new(connected))
    }

    fn run(&self, batch: &[&P::Example], model: &Self::Model) -> Result<Vec<P::Inference>, BoxError> {
        let results = self.ask(batch, model, false);
        self.count(model);
        results?.into_iter().collect()
    }

    fn run_each(
        &self,
        batch: &[&P::Example],
        model: &Self::Model,
    ) -> Result<Vec<Result<P::Inference, BoxError>>, BoxError> {
        let results = self.ask(batch, model, true);
        self.count(model);
        results
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.sizes.unwrap_or(BatchSizes {
            min: 1,
            max: self.rows.saturating_mul(self.server.policy.concurrency),
        })
    }

    fn model_bytes(&self, _: &Self::Model) -> Option<u64> {
        // It is on the server.
        Some(0)
    }

    fn model_version(&self, model: &Self::Model) -> Option<String> {
        model.protocol.version(&model.known)
    }

    fn metrics_namespace(&self) -> String {
        self.namespace.clone()
    }

    /// Another model of the same server: what names it is the protocol's to say.
    fn update_model_path(&self, id: &str) -> Result<Self, BoxError> {
        let mut other = self.clone();
        other.protocol = self.protocol.with_model(id)?;
        Ok(other)
    }
}
