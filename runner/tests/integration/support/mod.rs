//! Pipelines made by hand, and a worker in this process that executes them with functions of the test's.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use purlin_model::spec::no_schemas;
use purlin_model::{Coder, Header, Timer, TimerCoder, WindowedValueCoder, Windows};
use purlin_proto::fn_execution::{
    self as fnapi, BundleApplication, DelayedBundleApplication, ProcessBundleDescriptor, RemoteGrpcPort,
};
use purlin_proto::pipeline::{self, FunctionSpec, PTransform, ParDoPayload, Pipeline};
use purlin_proto::urns;
use purlin_runner::worker::{
    BundleOutcome, BundleWork, StartWorker, StateHandler, WorkInput, Worker, WorkerError, WorkerFactory,
};
use tokio::sync::{Notify, Semaphore};

/// Builds a pipeline of leaves.
pub struct Builder {
    pub pipeline: Pipeline,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

pub fn spec(urn: &str, payload: Vec<u8>) -> Option<FunctionSpec> {
    Some(FunctionSpec {
        urn: urn.to_owned(),
        payload: payload.into(),
    })
}

impl Builder {
    pub fn new() -> Self {
        let mut builder = Builder {
            pipeline: Pipeline {
                components: Some(Default::default()),
                ..Default::default()
            },
        };
        for (id, urn, components) in [
            ("bytes", urns::coders::BYTES, &[][..]),
            ("global", urns::coders::GLOBAL_WINDOW, &[]),
            ("interval", urns::coders::INTERVAL_WINDOW, &[]),
            ("kv", urns::coders::KV, &["bytes", "bytes"]),
            ("values", urns::coders::ITERABLE, &["bytes"]),
            ("grouped", urns::coders::KV, &["bytes", "values"]),
        ] {
            builder.coder(id, urn, components);
        }
        builder.windowing("global", urns::window_fns::GLOBAL_WINDOWS, Vec::new(), "global");
        let capabilities = vec![urns::transforms::TRUNCATE_SIZED_RESTRICTION.to_owned()];
        let environment = pipeline::Environment {
            urn: "test:env".to_owned(),
            capabilities,
            ..Default::default()
        };
        builder
            .components()
            .environments
            .insert("env".to_owned(), environment);
        builder
    }

    pub fn components(&mut self) -> &mut pipeline::Components {
        self.pipeline.components.as_mut().unwrap()
    }

    pub fn coder(&mut self, id: &str, urn: &str, components: &[&str]) {
        let coder = pipeline::Coder {
            spec: spec(urn, Vec::new()),
            component_coder_ids: components.iter().map(|&id| id.to_owned()).collect(),
        };
        self.components().coders.insert(id.to_owned(), coder);
    }

    pub fn windowing(&mut self, id: &str, urn: &str, payload: Vec<u8>, coder: &str) {
        let strategy = pipeline::WindowingStrategy {
            window_fn: spec(urn, payload),
            window_coder_id: coder.to_owned(),
            environment_id: "env".to_owned(),
            ..Default::default()
        };
        self.components()
            .windowing_strategies
            .insert(id.to_owned(), strategy);
    }

    /// A collection in global windows.
    pub fn collection(&mut self, id: &str, coder: &str) {
        self.windowed(id, coder, "global");
    }

    pub fn windowed(&mut self, id: &str, coder: &str, windowing: &str) {
        let collection = pipeline::PCollection {
            unique_name: id.to_owned(),
            coder_id: coder.to_owned(),
            windowing_strategy_id: windowing.to_owned(),
            is_bounded: pipeline::is_bounded::Enum::Bounded.into(),
            ..Default::default()
        };
        self.components().pcollections.insert(id.to_owned(), collection);
    }

    pub fn transform(
        &mut self,
        id: &str,
        urn: &str,
        payload: Vec<u8>,
        inputs: &[(&str, &str)],
        outputs: &[&str],
    ) {
        let transform = PTransform {
            unique_name: id.to_owned(),
            spec: spec(urn, payload),
            inputs: inputs
                .iter()
                .map(|&(tag, id)| (tag.to_owned(), id.to_owned()))
                .collect(),
            outputs: outputs
                .iter()
                .enumerate()
                .map(|(i, &id)| (i.to_string(), id.to_owned()))
                .collect(),
            environment_id: if urn == urns::transforms::PAR_DO {
                "env".to_owned()
            } else {
                String::new()
            },
            ..Default::default()
        };
        self.components().transforms.insert(id.to_owned(), transform);
        self.pipeline.root_transform_ids.push(id.to_owned());
    }

    pub fn impulse(&mut self, output: &str) {
        self.collection(output, "bytes");
        self.transform(
            &format!("{output}/impulse"),
            urns::transforms::IMPULSE,
            Vec::new(),
            &[],
            &[output],
        );
    }

    /// A ParDo that the worker executes by its id.
    pub fn par_do(&mut self, id: &str, input: &str, outputs: &[&str]) {
        self.par_do_with(id, &[("main", input)], outputs, ParDoPayload::default());
    }

    pub fn par_do_with(
        &mut self,
        id: &str,
        inputs: &[(&str, &str)],
        outputs: &[&str],
        payload: ParDoPayload,
    ) {
        self.transform(
            id,
            urns::transforms::PAR_DO,
            payload.encode_to_vec(),
            inputs,
            outputs,
        );
    }

    pub fn group(&mut self, id: &str, input: &str, output: &str) {
        self.transform(
            id,
            urns::transforms::GROUP_BY_KEY,
            Vec::new(),
            &[("in", input)],
            &[output],
        );
    }
}

/// What a function sees besides its element.
pub struct Context<'a> {
    pub bundle: &'a str,
    pub header: &'a Header,
    pub transform: &'a str,
    pub state: &'a Arc<dyn StateHandler>,
    /// The windows of outputs, where they are not the element's.
    pub out: Vec<(Header, Vec<u8>)>,
    /// Timers set: family and timer.
    pub timers: Vec<(String, Timer)>,
    /// Residuals: element, milliseconds of delay, watermark in milliseconds.
    pub residuals: Vec<(Vec<u8>, i64, Option<i64>)>,
    pub finalize: bool,
    /// Residuals do not say whose they are.
    pub unnamed: bool,
}

impl Context<'_> {
    pub fn emit(&mut self, value: impl Into<Vec<u8>>) {
        self.out.push((self.header.clone(), value.into()));
    }

    pub fn get(&self, key: fnapi::state_key::Type) -> Vec<u8> {
        let mut all = Vec::new();
        let mut token = Bytes::new();
        loop {
            let get = fnapi::StateGetRequest {
                continuation_token: token,
            };
            match self.ask(key.clone(), fnapi::state_request::Request::Get(get)) {
                fnapi::state_response::Response::Get(got) => {
                    all.extend_from_slice(&got.data);
                    token = got.continuation_token;
                }
                other => panic!("not an answer to get: {other:?}"),
            }
            if token.is_empty() {
                return all;
            }
        }
    }

    pub fn append(&self, key: fnapi::state_key::Type, data: Vec<u8>) {
        let append = fnapi::StateAppendRequest { data: data.into() };
        self.ask(key, fnapi::state_request::Request::Append(append));
    }

    fn ask(
        &self,
        key: fnapi::state_key::Type,
        request: fnapi::state_request::Request,
    ) -> fnapi::state_response::Response {
        let request = fnapi::StateRequest {
            id: "1".to_owned(),
            instruction_id: self.bundle.to_owned(),
            state_key: Some(fnapi::StateKey { r#type: Some(key) }),
            request: Some(request),
        };
        let response = self.state.handle(request);
        assert_eq!(response.error, "");
        response.response.unwrap()
    }
}

pub type Function = Arc<dyn Fn(&[u8], &mut Context<'_>) -> Result<(), WorkerError> + Send + Sync>;

/// Functions by the id of their transform; timers by `id/family`.
#[derive(Clone, Default)]
pub struct Functions(pub Arc<Mutex<HashMap<String, Function>>>);

impl Functions {
    pub fn set(
        &self,
        id: &str,
        function: impl Fn(&[u8], &mut Context<'_>) -> Result<(), WorkerError> + Send + Sync + 'static,
    ) {
        self.0.lock().insert(id.to_owned(), Arc::new(function));
    }

    fn get(&self, id: &str) -> Function {
        let functions = self.0.lock();
        functions
            .get(id)
            .unwrap_or_else(|| panic!("no function for {id}"))
            .clone()
    }
}

/// Makes workers.
#[derive(Default)]
pub struct Factory {
    pub functions: Functions,
    pub started: Arc<AtomicU32>,
    pub stopped: Arc<AtomicU32>,
    pub finalized: Arc<Mutex<Vec<String>>>,
    /// Workers cannot be started, for this reason.
    pub broken: Option<String>,
    /// So many starts end before the worker can take a bundle.
    pub deaths: Mutex<u32>,
    /// From this start on (the first is 1), the program that submitted the job is gone.
    pub gone_from: Option<u32>,
    /// The first bundle loses its worker.
    pub loses_first: bool,
    /// Bundles with this transform wait for it.
    pub blocked: Option<(String, Arc<Notify>)>,
    /// What a worker answers to progress requests, if not that it does not know.
    pub progress: Option<fnapi::ProcessBundleProgressResponse>,
    /// Bundles tell this metric by the short id "1", and what that means once this is opened.
    pub metric: Option<(pipeline::MonitoringInfo, Arc<Semaphore>)>,
    pub splits: Arc<Mutex<Vec<fnapi::ProcessBundleSplitRequest>>>,
    /// What a worker answers to splits, if not that it gives nothing back.
    pub split: Option<fnapi::ProcessBundleSplitResponse>,
    /// A worker never answers to splits.
    pub ignores_splits: bool,
    /// Workers are asked what short ids of metrics mean, and never answer.
    pub silent: bool,
    /// Workers tell how they are once this is opened.
    pub status: Option<Arc<Semaphore>>,
}

impl WorkerFactory for Factory {
    fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
        let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        let broken = self.broken.clone();
        let mut deaths = self.deaths.lock();
        if *deaths > 0 {
            *deaths -= 1;
            let environment = request.environment_id;
            let reason = format!("start {number} ended by signal 9");
            return async { Err(WorkerError::Died { environment, reason }) }.boxed();
        }
        if self.gone_from.is_some_and(|first| number >= first) {
            return async { Err(WorkerError::SubmitterGone("the launcher is gone".into())) }.boxed();
        }
        let worker = Fake {
            id: request.worker_id,
            functions: self.functions.clone(),
            stopped: self.stopped.clone(),
            finalized: self.finalized.clone(),
            blocked: self.blocked.clone(),
            progress: self.progress.clone(),
            metric: self.metric.clone(),
            splits: self.splits.clone(),
            split: self.split.clone(),
            ignores_splits: self.ignores_splits,
            silent: self.silent,
            status: self.status.clone(),
            is_lost: self.loses_first && number == 1,
        };
        async move {
            match broken {
                Some(reason) => Err(WorkerError::Start {
                    environment: request.environment_id,
                    reason,
                }),
                None => Ok(Arc::new(worker) as Arc<dyn Worker>),
            }
        }
        .boxed()
    }
}

struct Fake {
    id: String,
    functions: Functions,
    stopped: Arc<AtomicU32>,
    finalized: Arc<Mutex<Vec<String>>>,
    blocked: Option<(String, Arc<Notify>)>,
    progress: Option<fnapi::ProcessBundleProgressResponse>,
    metric: Option<(pipeline::MonitoringInfo, Arc<Semaphore>)>,
    splits: Arc<Mutex<Vec<fnapi::ProcessBundleSplitRequest>>>,
    split: Option<fnapi::ProcessBundleSplitResponse>,
    ignores_splits: bool,
    silent: bool,
    status: Option<Arc<Semaphore>>,
    is_lost: bool,
}

impl Worker for Fake {
    fn process(&self, work: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>> {
        let (functions, blocked, silent) = (self.functions.clone(), self.blocked.clone(), self.silent);
        let lost = self.is_lost.then(|| WorkerError::Lost {
            worker: self.id.clone(),
            reason: "it closed its control stream".into(),
        });
        let metric = self.metric.clone();
        async move {
            if let Some(lost) = lost {
                return Err(lost);
            }
            if let Some((transform, notify)) = blocked
                && work.descriptor.transforms.contains_key(&transform)
            {
                notify.notified().await;
            }
            let mut outcome = execute(&functions, work)?;
            let data = &mut outcome.response.monitoring_data;
            if silent {
                data.insert("short id".to_owned(), Bytes::new());
            }
            if let Some((metric, _)) = metric {
                data.insert("1".to_owned(), metric.payload);
            }
            Ok(outcome)
        }
        .boxed()
    }

    fn progress(
        &self,
        _instruction: String,
    ) -> BoxFuture<'static, Result<Option<fnapi::ProcessBundleProgressResponse>, WorkerError>> {
        let progress = self.progress.clone();
        async move { Ok(progress) }.boxed()
    }

    fn split(
        &self,
        request: fnapi::ProcessBundleSplitRequest,
    ) -> BoxFuture<'static, Result<fnapi::ProcessBundleSplitResponse, WorkerError>> {
        self.splits.lock().push(request);
        if self.ignores_splits {
            return futures::future::pending().boxed();
        }
        let answer = self.split.clone().unwrap_or_default();
        async move { Ok(answer) }.boxed()
    }

    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>> {
        self.finalized.lock().push(instruction);
        async { Ok(()) }.boxed()
    }

    fn monitoring_infos(
        &self,
        _ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<(String, pipeline::MonitoringInfo)>, WorkerError>> {
        if self.silent {
            return futures::future::pending().boxed();
        }
        let metric = self.metric.clone();
        async move {
            let Some((metric, told)) = metric else {
                return Ok(Vec::new());
            };
            let _told = told.acquire().await;
            Ok(vec![("1".to_owned(), metric)])
        }
        .boxed()
    }

    fn samples(
        &self,
        _request: fnapi::SampleDataRequest,
    ) -> BoxFuture<'static, Result<fnapi::SampleDataResponse, WorkerError>> {
        async { Ok(Default::default()) }.boxed()
    }

    fn status(&self) -> BoxFuture<'static, Result<String, String>> {
        let told = self.status.clone();
        async move {
            if let Some(told) = told {
                let _told = told.acquire().await;
            }
            Ok("well".to_owned())
        }
        .boxed()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.stopped.fetch_add(1, Ordering::SeqCst);
        async {}.boxed()
    }

    fn lost(&self) -> BoxFuture<'static, String> {
        let _ = &self.id;
        futures::future::pending().boxed()
    }
}

/// The coder of a descriptor.
pub fn coder(descriptor: &ProcessBundleDescriptor, id: &str) -> Coder {
    let proto = &descriptor.coders[id];
    let components = proto
        .component_coder_ids
        .iter()
        .map(|id| coder(descriptor, id))
        .collect();
    let spec = proto.spec.as_ref().unwrap();
    Coder::from_parts(&spec.urn, &spec.payload, components, &no_schemas).unwrap()
}

fn port(descriptor: &ProcessBundleDescriptor, transform: &str) -> WindowedValueCoder {
    let spec = descriptor.transforms[transform].spec.as_ref().unwrap();
    let port = RemoteGrpcPort::decode(&spec.payload[..]).unwrap();
    match coder(descriptor, &port.coder_id) {
        Coder::WindowedValue(coder) => *coder,
        other => panic!("{other} is no windowed value"),
    }
}

fn side_inputs(transform: &PTransform) -> Vec<String> {
    let spec = transform.spec.as_ref().unwrap();
    if spec.urn != urns::transforms::PAR_DO && !spec.urn.contains("sdf") {
        return Vec::new();
    }
    ParDoPayload::decode(&spec.payload[..])
        .unwrap()
        .side_inputs
        .into_keys()
        .collect()
}

struct Execution<'a> {
    functions: &'a Functions,
    work: &'a BundleWork,
    outcome: BundleOutcome,
    sinks: HashMap<String, Vec<u8>>,
}

fn execute(functions: &Functions, work: BundleWork) -> Result<BundleOutcome, WorkerError> {
    let mut execution = Execution {
        functions,
        work: &work,
        outcome: BundleOutcome::default(),
        sinks: HashMap::new(),
    };
    let source = &work.descriptor.transforms[&work.source];
    let input = source.outputs.values().next().unwrap();
    let format = port(&work.descriptor, &work.source);
    for piece in &work.input {
        match piece {
            WorkInput::Elements(data) => {
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let element = format.decode(&mut rest, true).unwrap();
                    let header = Header {
                        timestamp: element.timestamp,
                        windows: element.windows,
                        pane: element.pane,
                    };
                    execution.deliver(input, &header, element.value)?;
                }
            }
            WorkInput::Timers {
                transform,
                family,
                data,
            } => execution.timers(transform, family, data)?,
        }
    }
    let Execution {
        mut outcome, sinks, ..
    } = execution;
    outcome
        .outputs
        .extend(sinks.into_iter().map(|(sink, data)| (sink, data.into())));
    Ok(outcome)
}

impl Execution<'_> {
    fn deliver(&mut self, collection: &str, header: &Header, value: &[u8]) -> Result<(), WorkerError> {
        let mut readers: Vec<(&String, &PTransform)> = self
            .work
            .descriptor
            .transforms
            .iter()
            .filter(|(_, transform)| {
                let sides = side_inputs(transform);
                transform
                    .inputs
                    .iter()
                    .any(|(tag, id)| id == collection && !sides.contains(tag))
            })
            .collect();
        readers.sort_by_key(|(id, _)| *id);
        for (id, transform) in readers {
            if self.work.sinks.contains(id) {
                let out = self.sinks.entry(id.clone()).or_default();
                header.encode(out);
                out.extend_from_slice(value);
                continue;
            }
            self.call(id, id, transform, header, value)?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        function: &str,
        id: &str,
        transform: &PTransform,
        header: &Header,
        value: &[u8],
    ) -> Result<(), WorkerError> {
        let urn = transform.spec.as_ref().unwrap().urn.as_str();
        let mut context = Context {
            bundle: &self.work.instruction,
            header,
            transform: id,
            state: &self.work.state,
            out: Vec::new(),
            timers: Vec::new(),
            residuals: Vec::new(),
            finalize: false,
            unnamed: false,
        };
        if urn == urns::transforms::FLATTEN {
            context.emit(value);
        } else {
            self.functions.get(function)(value, &mut context)?;
        }
        let Context {
            out,
            timers,
            residuals,
            finalize,
            unnamed,
            ..
        } = context;
        self.outcome.response.requires_finalization |= finalize;
        for (family, timer) in timers {
            let mut data = Vec::new();
            timer.encode(&mut data);
            self.outcome.timers.push((id.to_owned(), family, data.into()));
        }
        for (element, delay, watermark) in residuals {
            let mut data = Vec::new();
            header.encode(&mut data);
            data.extend_from_slice(&element);
            let output_watermarks = watermark.map(|millis| {
                let at = prost_types::Timestamp {
                    seconds: millis.div_euclid(1000),
                    nanos: (millis.rem_euclid(1000) * 1_000_000) as i32,
                };
                transform.outputs.keys().map(|tag| (tag.clone(), at)).collect()
            });
            self.outcome
                .response
                .residual_roots
                .push(DelayedBundleApplication {
                    application: Some(BundleApplication {
                        transform_id: if unnamed { String::new() } else { id.to_owned() },
                        input_id: "main".to_owned(),
                        element: data.into(),
                        output_watermarks: output_watermarks.unwrap_or_default(),
                        is_bounded: 0,
                    }),
                    requested_time_delay: Some(prost_types::Duration {
                        seconds: delay / 1000,
                        nanos: 0,
                    }),
                });
        }
        let mut outputs: Vec<_> = transform.outputs.iter().collect();
        outputs.sort();
        for (header, value) in out {
            if let Some((_, output)) = outputs.first() {
                self.deliver(output, &header, &value)?;
            }
        }
        Ok(())
    }

    fn timers(&mut self, transform: &str, family: &str, data: &[u8]) -> Result<(), WorkerError> {
        let proto = &self.work.descriptor.transforms[transform];
        let payload = ParDoPayload::decode(&proto.spec.as_ref().unwrap().payload[..]).unwrap();
        let coder = coder(
            &self.work.descriptor,
            &payload.timer_family_specs[family].timer_family_coder_id,
        );
        let Coder::Timer(coder) = coder else {
            panic!("{coder} is no timer's coder")
        };
        let coder: TimerCoder = *coder;
        for timer in coder.decode_all(data) {
            let timer = timer.unwrap();
            let firing = timer.firing.unwrap();
            let header = Header {
                timestamp: firing.hold_timestamp,
                windows: Windows::clone(&timer.windows),
                pane: firing.pane,
            };
            self.call(
                &format!("{transform}/{family}"),
                transform,
                proto,
                &header,
                &timer.user_key,
            )?;
        }
        Ok(())
    }
}
