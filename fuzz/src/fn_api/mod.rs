//! A worker that says what it likes, over gRPC, to a running job.
//!
//! `hostile` is the worker, `messages` makes what it says.

mod hostile;
mod messages;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use purlin_proto::fn_execution as fnapi;
use purlin_proto::pipeline::Pipeline;
use purlin_runner::fnapi::{FnApiServer, FnApiSettings, WorkerIdentity, WorkerLog};
use purlin_runner::job::{Job, JobSettings, JobState};
use purlin_runner::translate::{PlanOptions, plan};
use purlin_runner::worker::{StartWorker, Worker, WorkerError, WorkerFactory};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::PIPELINES;
use crate::input::Input;
use hostile::Hostile;

/// A job that has not ended so long after it was cancelled hangs.
const HANG: Duration = Duration::from_secs(60);

static NEXT_JOB: AtomicU64 = AtomicU64::new(0);

/// What all inputs share: a runtime, the server under test, and a connection to it.
struct World {
    runtime: Runtime,
    server: Arc<FnApiServer>,
    channel: Channel,
}

struct Mute;

impl WorkerLog for Mute {
    fn log(&self, _: &WorkerIdentity, _: &fnapi::LogEntry) {}
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (server, channel) = runtime.block_on(async {
            let settings = FnApiSettings {
                log: Arc::new(Mute),
                ..FnApiSettings::default()
            };
            let server = FnApiServer::bind(settings).await.expect("a free port");
            let endpoint = Endpoint::from_shared(format!("http://{}", server.url())).expect("an address");
            let channel = endpoint.connect().await.expect("the server");
            (Arc::new(server), channel)
        });
        World {
            runtime,
            server,
            channel,
        }
    })
}

/// Runs a pipeline on workers that do what the bytes say. When the bytes end, the worker vanishes and there is no
/// other. Whatever happens, a job can be cancelled and ends. Returns how
/// many requests the workers got, and one more if the job was done.
///
/// # Panics
/// Where the runner does, and when the job hangs.
pub fn fn_api(data: &[u8]) -> usize {
    let world = world();
    world.runtime.block_on(run(world, data))
}

async fn run(world: &'static World, data: &[u8]) -> usize {
    let mut input = Input(data);
    let Some(&pipeline) = input.pick(PIPELINES) else {
        return 0;
    };
    let pipeline = Pipeline::decode(pipeline).expect("a fixture");
    let options = PlanOptions {
        slots_per_worker: 1 + input.below(3) as u32,
        ..PlanOptions::default()
    };
    let plan = plan(&pipeline, &options).expect("fixtures are sound");
    let (over, mut is_over) = watch::channel(false);
    let requests = Arc::new(AtomicUsize::new(0));
    let factory = Factory {
        world,
        requests: requests.clone(),
        script: Arc::new(Mutex::new(input.0.to_vec())),
        over,
    };
    let settings = JobSettings {
        job_id: format!("job-{}", NEXT_JOB.fetch_add(1, Ordering::Relaxed)),
        ..JobSettings::default()
    };
    let job = Job::start(plan, Arc::new(factory), settings);
    let ended = job.wait();
    tokio::select! {
        _ = ended => {}
        _ = is_over.wait_for(|over| *over) => {}
        // Nothing more is asked of a worker that waits: a long delay, say.
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    let _ = (job.metrics(), job.error(), job.history());
    job.cancel();
    let ended = tokio::time::timeout(HANG, job.wait()).await;
    let state = ended.unwrap_or_else(|_| panic!("the job hangs after cancel, in state {:?}", job.state()));
    assert!(state.is_terminal());
    let _ = job.metrics();
    requests.load(Ordering::Relaxed) + usize::from(state == JobState::Done)
}

struct Factory {
    world: &'static World,
    requests: Arc<AtomicUsize>,
    /// What is left of the bytes.
    script: Arc<Mutex<Vec<u8>>>,
    over: watch::Sender<bool>,
}

impl WorkerFactory for Factory {
    fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
        let script = std::mem::take(&mut *self.script.lock());
        let (world, rest, over) = (self.world, self.script.clone(), self.over.clone());
        let requests = self.requests.clone();
        async move {
            let refused = |reason: String| WorkerError::Start {
                environment: request.environment_id.clone(),
                reason,
            };
            if script.is_empty() {
                return Err(refused("the script is over".into()));
            }
            let worker = world.server.expect(&request)?;
            let hostile = Hostile::connect(&world.channel, &request.worker_id, requests).await;
            let mut hostile = hostile.map_err(|status| refused(status.message().to_owned()))?;
            worker.connected().await.map_err(refused)?;
            tokio::spawn(async move {
                let mut input = Input(&script);
                hostile.perform(&mut input).await;
                *rest.lock() = input.0.to_vec();
                over.send_replace(input.is_empty());
            });
            Ok(Arc::new(worker) as Arc<dyn Worker>)
        }
        .boxed()
    }
}
