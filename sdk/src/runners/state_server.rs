//! Serves the queryable state of a pipeline that runs in this process, under the same paths as the job service.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use axum::{Json, Router};
use purlin_net::{Acceptor, HostNames, MAX_CONNECTIONS, Silence, check_hosts, listen};
use purlin_runner::job::JobHandle;
use purlin_runner::query::StateQuery;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::error::RunError;

/// Only this machine: what is served has no lock.
const HOST: &str = "localhost";

/// A port that is bound, and does not answer yet.
pub(super) struct StateServer(TcpListener);

impl StateServer {
    /// Binds the port.
    ///
    /// # Errors
    /// When it is taken.
    pub(super) fn listen(runtime: &Runtime, port: u16) -> Result<StateServer, RunError> {
        // The caller may be in a runtime of its own, where no other can be waited in.
        let (tell, bound) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let _ = tell.send(listen(HOST, port).await);
        });
        let bound = bound
            .recv()
            .map_err(|_| RunError::Runner("cannot listen on --state_port".to_owned()))?;
        let listener = bound.map_err(|error| RunError::Runner(format!("--state_port: {error}")))?;
        Ok(StateServer(listener))
    }

    /// Answers until the runtime ends, which the run's handle holds.
    #[expect(clippy::print_stderr, reason = "who gave port 0 must learn which it is")]
    pub(super) fn serve(self, runtime: &Runtime, job: JobHandle) {
        if let Ok(address) = self.0.local_addr() {
            eprintln!(
                "queryable state is at http://{HOST}:{}/jobs/{}/state/TRANSFORM/STATE?key=KEY",
                address.port(),
                job.id()
            );
        }
        let router = Router::new()
            .route("/jobs/{id}/state/{transform}/{state}", get(state))
            .with_state(job);
        let router = check_hosts(router, HostNames::new([]));
        let acceptor = Acceptor::new(self.0, Silence::Ever, MAX_CONNECTIONS);
        runtime.spawn(async move {
            if let Err(error) = axum::serve(acceptor, router).await {
                tracing::error!("the server of queryable state ended: {error}");
            }
        });
    }
}

async fn state(
    State(job): State<JobHandle>,
    Path((id, transform, state)): Path<(String, String, String)>,
    uri: Uri,
) -> Result<Json<serde_json::Value>, (StatusCode, String)> {
    if id != job.id() {
        let text = format!(
            "there is no job {id} here: the one of this process is {}\n",
            job.id()
        );
        return Err((StatusCode::NOT_FOUND, text));
    }
    let answer = StateQuery::parse(transform, state, uri.query().unwrap_or_default())
        .and_then(|query| job.state_of(&query));
    answer
        .map(Json)
        .map_err(|error| (error.status(), format!("{error}\n")))
}
