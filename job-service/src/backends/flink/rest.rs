//! Flink's REST API, as far as it is needed to run jobs.
//!
//! | call | answers |
//! |---|---|
//! | `GET config`, `overview`, `taskmanagers` | version, slots, hosts |
//! | `POST jars/upload`, `GET jars`, `POST jars/JAR/run`, `DELETE jars/JAR` | the id of a jar, of a job |
//! | `GET jobs/JOB/status`, `jobs/JOB`, `jobs/JOB/exceptions`, `jobs/JOB/accumulators` | how a job is |
//! | `PATCH jobs/JOB?mode=cancel`, `POST jobs/JOB/stop`, `GET jobs/JOB/savepoints/TRIGGER` | its end |

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Environment variable with a token for the REST API (`Authorization: Bearer …`).
pub(crate) const TOKEN_VARIABLE: &str = "PURLIN_FLINK_TOKEN";
/// Environment variable with a file of certificates, in PEM, that the REST API's certificate is checked with, too.
pub(crate) const CA_VARIABLE: &str = "PURLIN_FLINK_CA";
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take. Flink translates the pipeline before it answers to `run`.
const ANSWER: Duration = Duration::from_secs(30);
const RUN: Duration = Duration::from_secs(600);
/// A jar may take so long, for each 100 MB of it.
const UPLOAD: Duration = Duration::from_secs(120);

/// Why a call of Flink's REST API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestError {
    /// An address that is none.
    #[error(
        "flink_master={address}: {reason}; give HOST:PORT of Flink's REST API, or an http or https URL, several with commas between"
    )]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings of the environment that cannot be used.
    #[error("{variable}: {reason}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No master answered.
    #[error(
        "Flink's REST API does not answer at {masters}: {reason}; is the cluster running, and is flink_master its address?"
    )]
    Unreachable {
        /// All of them.
        masters: String,
        /// Of the last one that was tried.
        reason: String,
    },
    /// An answer that says that it cannot be done.
    #[error("Flink's {method} {path} answered {status}: {message}")]
    Refused {
        /// What was asked.
        method: Method,
        /// Without the master.
        path: String,
        /// HTTP's status.
        status: StatusCode,
        /// What Flink says, with stack traces.
        message: String,
    },
    /// An answer that is not Flink's.
    #[error(
        "{url} does not answer as Flink's REST API does: {reason}; flink_master must be the address of Flink's JobManager"
    )]
    NotFlink {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The jar cannot be read.
    #[error("cannot read {path}: {error}")]
    Jar {
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

impl RestError {
    /// Whether the same call may succeed a little later: nobody answered, or the cluster has no leader at the moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
            _ => false,
        }
    }
}

/// A cluster, by the addresses of its masters.
#[derive(Debug)]
pub(crate) struct Cluster {
    masters: Vec<Url>,
    /// The master that answered last.
    current: AtomicUsize,
    client: reqwest::Client,
}

/// How many TaskManagers and slots a cluster has.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Overview {
    pub(crate) taskmanagers: u32,
    #[serde(rename = "slots-total")]
    pub(crate) slots: u32,
    #[serde(rename = "slots-available")]
    pub(crate) free_slots: u32,
}

/// How to run a jar.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunRequest {
    pub(crate) entry_class: &'static str,
    /// The id that the job is to have: 32 hexadecimal digits.
    pub(crate) job_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallelism: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) savepoint_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_non_restored_state: Option<bool>,
}

/// What went wrong in a job, once.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    /// The stack trace, with causes.
    pub(crate) stacktrace: String,
    /// The task, if it was one.
    #[serde(default)]
    pub(crate) task_name: Option<String>,
}

/// How a job is.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) state: String,
    pub(crate) tasks: Tasks,
}

/// How many tasks of a job are in which state.
pub(crate) type Tasks = HashMap<String, u32>;

/// How a savepoint goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Savepoint {
    InProgress,
    /// Where it is.
    Done(String),
    /// Why not.
    Failed(String),
}

impl Cluster {
    /// A cluster with the masters given with commas between: `HOST:PORT`, or URLs, which may hold a user's name and password.
    pub(crate) fn new(masters: &str) -> Result<Self, RestError> {
        let masters: Vec<Url> = masters
            .split(',')
            .map(|master| address(master.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            masters,
            current: AtomicUsize::new(0),
            client: client()?,
        })
    }

    /// No cluster: whatever is asked fails.
    pub(crate) fn none() -> Result<Self, RestError> {
        Ok(Self {
            masters: Vec::new(),
            current: AtomicUsize::new(0),
            client: client()?,
        })
    }

    /// The masters, as a user may be told them: without passwords.
    pub(crate) fn masters(&self) -> String {
        let shown: Vec<String> = self.masters.iter().map(shown).collect();
        shown.join(", ")
    }

    /// Flink's version, such as 1.19.3.
    pub(crate) async fn version(&self) -> Result<String, RestError> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(rename = "flink-version")]
            version: String,
        }
        Ok(self.get::<Config>("config").await?.version)
    }

    pub(crate) async fn overview(&self) -> Result<Overview, RestError> {
        self.get("overview").await
    }

    /// The hosts of the TaskManagers.
    pub(crate) async fn hosts(&self) -> Result<Vec<String>, RestError> {
        #[derive(Deserialize)]
        struct TaskManagers {
            taskmanagers: Vec<TaskManager>,
        }
        #[derive(Deserialize)]
        struct TaskManager {
            path: String,
        }
        let found: TaskManagers = self.get("taskmanagers").await?;
        let hosts = found.taskmanagers.iter().filter_map(|one| host_of(&one.path));
        Ok(hosts.map(str::to_owned).collect())
    }

    /// Uploads a jar, which is called by this name there; its id. The file is streamed.
    pub(crate) async fn upload(&self, jar: &Path, name: &str) -> Result<String, RestError> {
        #[derive(Deserialize)]
        struct Uploaded {
            filename: String,
        }
        let failed = |error| unreadable(jar, error);
        let size = tokio::fs::metadata(jar).await.map_err(failed)?.len();
        let limit = UPLOAD + UPLOAD * u32::try_from(size / 100_000_000).unwrap_or(u32::MAX >> 8);
        let answer = self
            .call(
                Method::POST,
                "jars/upload",
                Body::Jar {
                    path: jar,
                    size,
                    name,
                },
                limit,
            )
            .await?;
        let uploaded: Uploaded = parse(self.master(), "jars/upload", &answer)?;
        let id = uploaded.filename.rsplit('/').next().unwrap_or_default();
        Ok(id.to_owned())
    }

    /// Runs an uploaded jar; the job's id in Flink.
    pub(crate) async fn run(&self, jar: &str, request: &RunRequest) -> Result<String, RestError> {
        #[derive(Deserialize)]
        struct Started {
            jobid: String,
        }
        let path = format!("jars/{jar}/run");
        let body = serde_json::to_value(request).unwrap_or_default();
        let answer = self.call(Method::POST, &path, Body::Json(&body), RUN).await?;
        let started: Started = parse(self.master(), &path, &answer)?;
        Ok(started.jobid)
    }

    /// The id of the jar that was uploaded by a name, if there is one.
    pub(crate) async fn jar_named(&self, name: &str) -> Result<Option<String>, RestError> {
        #[derive(Deserialize)]
        struct Jars {
            files: Vec<Jar>,
        }
        #[derive(Deserialize)]
        struct Jar {
            id: String,
            name: String,
        }
        let found: Jars = self.get("jars").await?;
        let mut files = found.files.into_iter();
        Ok(files.find(|jar| jar.name == name).map(|jar| jar.id))
    }

    pub(crate) async fn delete_jar(&self, jar: &str) -> Result<(), RestError> {
        self.call(Method::DELETE, &format!("jars/{jar}"), Body::Empty, ANSWER)
            .await
            .map(drop)
    }

    /// A job's state, in Flink's words; none if Flink does not know the job.
    pub(crate) async fn status(&self, job: &str) -> Result<Option<String>, RestError> {
        #[derive(Deserialize)]
        struct Status {
            status: String,
        }
        match self.get::<Status>(&format!("jobs/{job}/status")).await {
            Ok(found) => Ok(Some(found.status)),
            Err(RestError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A job's details. Flink keeps what it answers for `web.refresh-interval`, 3 seconds by default, and answers with it again; that
    /// holds for failures and accumulators, too.
    pub(crate) async fn details(&self, job: &str) -> Result<Details, RestError> {
        #[derive(Deserialize)]
        struct Answer {
            state: String,
            vertices: Vec<Vertex>,
        }
        #[derive(Deserialize)]
        struct Vertex {
            tasks: Tasks,
        }
        let answer: Answer = self.get(&format!("jobs/{job}")).await?;
        let mut tasks = Tasks::new();
        for (state, count) in answer.vertices.into_iter().flat_map(|vertex| vertex.tasks) {
            *tasks.entry(state).or_default() += count;
        }
        Ok(Details {
            state: answer.state,
            tasks,
        })
    }

    /// What went wrong so far, the first failure first.
    pub(crate) async fn failures(&self, job: &str) -> Result<Vec<Failure>, RestError> {
        #[derive(Deserialize)]
        struct Exceptions {
            #[serde(rename = "exceptionHistory")]
            history: History,
        }
        #[derive(Deserialize)]
        struct History {
            entries: Vec<Failure>,
        }
        let found: Exceptions = self.get(&format!("jobs/{job}/exceptions")).await?;
        let mut entries = found.history.entries;
        entries.sort_by_key(|failure| failure.timestamp);
        Ok(entries)
    }

    /// The value of an accumulator of a job.
    pub(crate) async fn accumulator(&self, job: &str, name: &str) -> Result<Option<String>, RestError> {
        #[derive(Deserialize)]
        struct Accumulators {
            #[serde(rename = "user-task-accumulators")]
            all: Vec<Accumulator>,
        }
        #[derive(Deserialize)]
        struct Accumulator {
            name: String,
            value: String,
        }
        let found: Accumulators = self.get(&format!("jobs/{job}/accumulators")).await?;
        let mut all = found.all.into_iter();
        Ok(all.find(|one| one.name == name).map(|one| one.value))
    }

    /// Jobs that the cluster knows and that have not ended: id and name.
    pub(crate) async fn running_jobs(&self) -> Result<Vec<(String, String)>, RestError> {
        #[derive(Deserialize)]
        struct Jobs {
            jobs: Vec<Job>,
        }
        #[derive(Deserialize)]
        struct Job {
            jid: String,
            name: String,
            state: String,
        }
        let found: Jobs = self.get("jobs/overview").await?;
        let running = found
            .jobs
            .into_iter()
            .filter(|job| !matches!(&*job.state, "FINISHED" | "FAILED" | "CANCELED"));
        Ok(running.map(|job| (job.jid, job.name)).collect())
    }

    pub(crate) async fn cancel(&self, job: &str) -> Result<(), RestError> {
        self.call(
            Method::PATCH,
            &format!("jobs/{job}?mode=cancel"),
            Body::Empty,
            ANSWER,
        )
        .await
        .map(drop)
    }

    /// Stops a job's sources, lets it finish what it has, and takes a savepoint: the id under which to ask for that.
    pub(crate) async fn stop(&self, job: &str, folder: Option<&str>) -> Result<String, RestError> {
        #[derive(Deserialize)]
        struct Triggered {
            #[serde(rename = "request-id")]
            id: String,
        }
        let path = format!("jobs/{job}/stop");
        let mut body = serde_json::json!({ "drain": true });
        if let Some(folder) = folder {
            body["targetDirectory"] = folder.into();
        }
        let answer = self.call(Method::POST, &path, Body::Json(&body), ANSWER).await?;
        Ok(parse::<Triggered>(self.master(), &path, &answer)?.id)
    }

    pub(crate) async fn savepoint(&self, job: &str, trigger: &str) -> Result<Savepoint, RestError> {
        #[derive(Deserialize)]
        struct Progress {
            status: Id,
            #[serde(default)]
            operation: Option<Operation>,
        }
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        #[derive(Deserialize)]
        struct Operation {
            #[serde(default)]
            location: Option<String>,
            #[serde(default, rename = "failure-cause")]
            failure: Option<Cause>,
        }
        #[derive(Deserialize)]
        struct Cause {
            #[serde(rename = "stack-trace")]
            trace: String,
        }
        let found: Progress = self.get(&format!("jobs/{job}/savepoints/{trigger}")).await?;
        Ok(match found.operation {
            _ if found.status.id != "COMPLETED" => Savepoint::InProgress,
            Some(Operation {
                failure: Some(cause), ..
            }) => Savepoint::Failed(cause.trace),
            Some(Operation {
                location: Some(place),
                ..
            }) => Savepoint::Done(place),
            _ => Savepoint::Failed("Flink does not say where it is".into()),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RestError> {
        let answer = self.call(Method::GET, path, Body::Empty, ANSWER).await?;
        parse(self.master(), path, &answer)
    }

    /// Asks the masters in turn, beginning with the one that answered last, until one answers.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body<'_>,
        limit: Duration,
    ) -> Result<Bytes, RestError> {
        let mut last = None;
        for master in self.in_turn() {
            // reqwest takes the user's name and password out of the URL.
            let url = format!("{}v1/{path}", self.masters[master]);
            let request = self.client.request(method.clone(), url).timeout(limit);
            let request = body.add_to(request).await?;
            match self.answer(master, &method, path, request).await {
                Err(error) if error.is_transient() => last = Some(error),
                answer => return answer,
            }
        }
        Err(last.unwrap_or_else(|| self.nobody()))
    }

    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.current.load(Ordering::Relaxed), self.masters.len());
        (0..count).map(move |i| (first + i) % count)
    }

    fn master(&self) -> &Url {
        &self.masters[self.current.load(Ordering::Relaxed)]
    }

    async fn answer(
        &self,
        master: usize,
        method: &Method,
        path: &str,
        request: RequestBuilder,
    ) -> Result<Bytes, RestError> {
        let unreachable = |error: reqwest::Error| RestError::Unreachable {
            masters: self.masters(),
            reason: purlin_net::root_cause(&error.without_url()),
        };
        let response = request.send().await.map_err(unreachable)?;
        self.current.store(master, Ordering::Relaxed);
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(RestError::Refused {
            method: method.clone(),
            path: path.to_owned(),
            status,
            message: said(&body),
        })
    }

    fn nobody(&self) -> RestError {
        RestError::Unreachable {
            masters: self.masters(),
            reason: "no master is given".into(),
        }
    }
}

fn address(given: &str) -> Result<Url, RestError> {
    let failed = |reason: String| RestError::Address {
        address: given.to_owned(),
        reason,
    };
    if given.is_empty() {
        return Err(failed("it is empty".into()));
    }
    let with_scheme = if given.contains("://") {
        given.to_owned()
    } else {
        format!("http://{given}")
    };
    let mut url = Url::parse(&with_scheme).map_err(|error| failed(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failed(format!("{} is neither http nor https", url.scheme())));
    }
    if !given.contains("://") && url.port().is_none() {
        return Err(failed("the port is missing".into()));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// What is sent with a request.
enum Body<'a> {
    Empty,
    Json(&'a serde_json::Value),
    /// A file, streamed, and what it is to be called.
    Jar {
        path: &'a Path,
        size: u64,
        name: &'a str,
    },
}

impl Body<'_> {
    /// A request with it. A file is opened anew for each.
    async fn add_to(&self, request: RequestBuilder) -> Result<RequestBuilder, RestError> {
        Ok(match self {
            Body::Empty => request,
            Body::Json(value) => request.json(value),
            Body::Jar { path, size, name } => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| unreadable(path, error))?;
                let part = Part::stream_with_length(file, *size).file_name((*name).to_owned());
                request.multipart(Form::new().part("jarfile", part))
            }
        })
    }
}

fn unreadable(jar: &Path, error: std::io::Error) -> RestError {
    RestError::Jar {
        path: jar.display().to_string(),
        error,
    }
}

/// A master, as it may be shown.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "{}://{host}{port}{}",
        url.scheme(),
        url.path().trim_end_matches('/')
    )
}

fn client() -> Result<reqwest::Client, RestError> {
    // Where another part of the program has chosen a provider, that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder().connect_timeout(CONNECT);
    let wrong = |variable, reason| RestError::Environment { variable, reason };
    if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut value =
            value.map_err(|_| wrong(TOKEN_VARIABLE, "a token holds printable characters only".into()))?;
        value.set_sensitive(true);
        builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
    }
    if let Ok(file) = std::env::var(CA_VARIABLE) {
        let failed = |reason: String| wrong(CA_VARIABLE, format!("{file}: {reason}"));
        let pem = std::fs::read(&file).map_err(|error| failed(error.to_string()))?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("there is no certificate in it".into()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| wrong("TLS", error.to_string()))
}

/// What Flink says of an error: `{"errors": […]}`.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(found) => {
            let lines: Vec<&str> = found
                .errors
                .iter()
                .map(String::as_str)
                .filter(|line| !line.is_empty())
                .collect();
            lines.join("\n")
        }
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(2000)])
            .trim()
            .to_owned(),
    }
}

fn parse<T: DeserializeOwned>(master: &Url, path: &str, body: &[u8]) -> Result<T, RestError> {
    serde_json::from_slice(body).map_err(|error| RestError::NotFlink {
        url: format!("{}/v1/{path}", shown(master)),
        reason: error.to_string(),
    })
}

/// The host in the address of a TaskManager's actor: `pekko.tcp://flink@HOST:PORT/user/…`.
fn host_of(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once('@')?;
    let (address, _) = rest.split_once('/').unwrap_or((rest, ""));
    Some(address.rsplit_once(':').map_or(address, |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_addresses_or_urls() {
        let cluster = |text: &str| Cluster::new(text).map(|cluster| cluster.masters());
        assert_eq!(cluster("a:8081").unwrap(), "http://a:8081");
        assert_eq!(
            cluster("https://me:secret@b/flink, c:1").unwrap(),
            "https://b/flink, http://c:1"
        );
        for wrong in ["", "a", "a:b", "ftp://a:1", "a:1,"] {
            let error = cluster(wrong).unwrap_err().to_string();
            assert!(error.contains("flink_master="), "{error}");
        }
    }

    #[test]
    fn names_and_passwords_of_urls_are_sent_decoded() {
        let cluster = Cluster::new("http://a%40b:c%3a@localhost:1").unwrap();
        let request = cluster.client.get(cluster.masters[0].clone()).build().unwrap();
        // Of `a@b:c:`.
        assert_eq!(request.headers()[AUTHORIZATION], "Basic YUBiOmM6");
        assert_eq!(request.url().as_str(), "http://localhost:1/");
    }

    #[test]
    fn hosts_are_read_of_the_addresses_of_actors() {
        assert_eq!(
            host_of("pekko.tcp://flink@10.0.0.7:34463/user/rpc/taskmanager_0"),
            Some("10.0.0.7")
        );
        assert_eq!(host_of("akka.tcp://flink@[::1]:1/user"), Some("[::1]"));
        assert_eq!(host_of("local"), None);
    }

    #[test]
    fn errors_are_told_in_flinks_words() {
        assert_eq!(said(br#"{"errors":["Not found.","", "why"]}"#), "Not found.\nwhy");
        assert_eq!(said(b"<html>"), "<html>");
    }
}
