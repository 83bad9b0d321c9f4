//! Jobs of several back ends: the local one, and one that runs jobs elsewhere.

use futures::StreamExt as _;
use prost_types::value::Kind;
use purlin_net::{Limit, Limits};
use purlin_runner::fnapi::TracingLog;
use purlin_runner::job::{EventLog, Importance, JobEvent, JobMetrics};
use tonic::service::Routes;

use super::*;
use crate::backends::{Backend, Local, LocalSettings, Prepared, Recovered, Submission};
use crate::pipeline_options::OptionValues;

/// What Beam's Python SDK makes of a word count.
const WORDCOUNT: &[u8] = include_bytes!("../../../runner/tests/data/wordcount.pb");

async fn local() -> Arc<Local> {
    let settings = LocalSettings {
        host: "localhost".into(),
        port: 0,
        advertised_host: "localhost".into(),
        routes: Routes::default(),
        routes_limit: Limit::of(1 << 20),
        log: Arc::new(TracingLog),
        limits: Limits::new(1 << 20),
        connect_timeout: Duration::from_secs(10),
        hang_timeout: None,
        idle_timeout: None,
        allow_environments: Arc::new([]),
    };
    Arc::new(Local::bind(settings).await.unwrap())
}

async fn jobs(others: Vec<Arc<dyn Backend>>) -> Arc<Jobs> {
    let backends = Backends::new(local().await, others);
    let store = Arc::new(Store::new(None, true).await.unwrap());
    Arc::new(Jobs::new(Arc::default(), backends, store))
}

/// Takes the jobs whose option `cluster` names it, and goes on with them after a restart of the service.
#[derive(Default)]
struct Cluster {
    /// How often a pipeline was prepared.
    prepared: Arc<AtomicU64>,
    left: Mutex<Vec<Recovered>>,
}

#[async_trait]
impl Backend for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn takes(&self, options: &PipelineOptions) -> bool {
        options.values().text("cluster").is_some()
    }

    fn options(&self) -> Vec<api::PipelineOptionDescriptor> {
        let text = api::pipeline_option_type::Enum::String;
        vec![crate::pipeline_options::describe(
            "cluster",
            text,
            "",
            "Where it is.",
        )]
    }

    async fn prepare(&self, job: Submission) -> Result<Box<dyn Prepared>, JobError> {
        self.prepared.fetch_add(1, Ordering::Relaxed);
        if job.options.values().text("cluster").as_deref() == Some("moon") {
            let problems = "there is no way to the moon".into();
            return Err(JobError::Invalid { problems });
        }
        Ok(Box::new(Ready))
    }

    async fn recover(&self) -> Vec<Recovered> {
        std::mem::take(&mut self.left.lock())
    }
}

struct Ready;

impl Prepared for Ready {
    fn run(self: Box<Self>, settings: JobSettings) -> Arc<dyn RunningJob> {
        let job = Remote::default();
        job.log
            .tell(Importance::Basic, format!("sent {}", settings.job_id));
        job.log.set(JobState::Running);
        Arc::new(job)
    }
}

/// A job that runs until it is told to end.
#[derive(Default)]
struct Remote {
    log: Arc<EventLog>,
}

#[async_trait]
impl RunningJob for Remote {
    fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    async fn metrics(&self) -> JobMetrics {
        JobMetrics::default()
    }

    fn cancel(&self) {
        self.log.set(JobState::Cancelled);
    }

    async fn drain(&self) -> Result<(), JobError> {
        self.log.set(JobState::Drained);
        Ok(())
    }

    async fn wait(&self) {
        let mut state = self.log.watch();
        state.wait_for(|now| now.state.is_terminal()).await.unwrap();
    }

    fn outlives_service(&self) -> bool {
        true
    }
}

fn request(cluster: Option<&str>) -> api::PrepareJobRequest {
    let cluster = cluster.map(|name| ("beam:option:cluster:v1", Kind::StringValue(name.into())));
    api::PrepareJobRequest {
        pipeline: Some(pipeline::Pipeline::decode(WORDCOUNT).unwrap()),
        pipeline_options: Some(OptionValues::of(cluster.as_slice()).0),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_prepared_job_keeps_nothing_of_the_request() {
    let message = Bytes::from(request(None).encode_to_vec());
    let request = api::PrepareJobRequest::decode(message.clone()).unwrap();
    assert!(WORDCOUNT.len() < record::MAX_READY_BYTES && !message.is_unique());
    let jobs = jobs(Vec::new()).await;
    let _job = jobs.prepare(request, false).await.unwrap();
    assert!(message.is_unique());
}

#[tokio::test]
async fn a_job_runs_on_the_back_end_that_its_options_choose() {
    let cluster = Arc::new(Cluster::default());
    let jobs = jobs(vec![cluster.clone()]).await;
    let named: Vec<String> = jobs.describe_options().into_iter().map(|o| o.name).collect();
    for name in ["job_name", "sdk_worker_parallelism", "cluster"] {
        assert_eq!(named.iter().filter(|own| *own == name).count(), 1, "{name}");
    }

    let here = jobs.prepare(request(None), false).await.unwrap();
    assert_eq!(here.backend().name(), "local");
    let refused = jobs.prepare(request(Some("moon")), false).await.err().unwrap();
    assert_eq!(Status::from(refused).code(), tonic::Code::InvalidArgument);

    let job = jobs.prepare(request(Some("earth")), false).await.unwrap();
    assert_eq!(job.backend().name(), "cluster");
    // It is prepared once more when its artifacts are there.
    let artifact = pipeline::ArtifactInformation::default();
    let environment = job.pipeline().await.unwrap().unwrap().components.unwrap();
    let environment = environment.environments.into_keys().next().unwrap();
    let staged = HashMap::from([(environment, vec![artifact])]);
    StagingJobs::staged(&*jobs, &job.id, staged).await.unwrap();
    jobs.run(&job.id).await.unwrap();
    assert_eq!(cluster.prepared.load(Ordering::Relaxed), 3);
    assert_eq!(*jobs.running().borrow(), 1);
    assert_eq!(job.state().0, api::job_state::Enum::Running);
    jobs.cancel(&job);
    let events: Vec<JobEvent> = job.job().unwrap().log().events().collect().await;
    assert!(matches!(&events[1], JobEvent::Message(told) if told.text == format!("sent {}", job.id)));
    assert!(matches!(&events[3], JobEvent::State(change) if change.state == JobState::Cancelled));
    // Nothing of it runs any more.
    jobs.running().wait_for(|n| *n == 0).await.unwrap();
}

#[tokio::test]
async fn a_job_that_outlives_the_service_is_found_again() {
    let cluster = Arc::new(Cluster::default());
    let before = jobs(vec![cluster.clone()]).await;
    let job = before.prepare(request(Some("earth")), false).await.unwrap();
    before.run(&job.id).await.unwrap();
    before.end_all().await;
    before.shutdown().await;
    assert_eq!(job.state().0, api::job_state::Enum::Running);
    assert!(matches!(before.run(&job.id).await, Err(JobError::Ending)));

    cluster.left.lock().push(Recovered {
        id: job.id.clone(),
        name: job.name.clone(),
        options: job.options.clone(),
        pipeline: None,
        prepared_at: job.prepared_at,
        job: job.job().unwrap(),
    });
    let after = jobs(vec![cluster]).await;
    after.recover().await;
    let found = after.get(&job.id).unwrap();
    assert_eq!(found.state().0, api::job_state::Enum::Running);
    assert!(found.pipeline().await.unwrap().is_none());
    assert_eq!(*after.running().borrow(), 1);
    found.job().unwrap().drain().await.unwrap();
    after.running().wait_for(|n| *n == 0).await.unwrap();
    assert!(matches!(after.run(&job.id).await, Err(JobError::RunTwice { .. })));
}
