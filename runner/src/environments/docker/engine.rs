//! The Docker engine of this service.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptions, ListContainersOptions, RemoveContainerOptions};
use futures::StreamExt;

use super::options::Pull;

/// The label of every container, with who started it.
pub(super) const OWNER: &str = "purlin.service";
/// The label of the worker's id.
pub(super) const WORKER: &str = "purlin.worker";
/// The label of the job's id.
pub(super) const JOB: &str = "purlin.job";

/// Connects to the engine that DOCKER_HOST names, else the machine's own.
pub(super) async fn connect() -> Result<Docker, String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let failed = |e: Error| {
        format!(
            "the Docker engine at {host} does not answer ({}); start it, or name another by DOCKER_HOST, or use \
             --environment_type=PROCESS or LOOPBACK",
            reason(&e)
        )
    };
    let docker = Docker::connect_with_host(&host).map_err(failed)?;
    docker.negotiate_version().await.map_err(failed)
}

/// An error without the client's own words.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        other => {
            let mut error: &dyn std::error::Error = other;
            while let Some(source) = error.source() {
                error = source;
            }
            error.to_string()
        }
    }
}

/// Whether it says that there is no such thing.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Makes sure that the image is here.
pub(super) async fn image(docker: &Docker, image: &str, pull: Pull) -> Result<(), String> {
    let here = match docker.inspect_image(image).await {
        Ok(_) => true,
        Err(e) if is_missing(&e) => false,
        Err(e) => {
            return Err(format!(
                "the Docker engine cannot look for image {image:?}: {}",
                reason(&e)
            ));
        }
    };
    let how = format!(
        "build it with `make {}`, or name another image by --environment_config=IMAGE",
        match image.contains("gpu") {
            true => "docker-gpu",
            false => "docker-cpu",
        }
    );
    match pull {
        Pull::Missing if here => return Ok(()),
        Pull::Never if here => return Ok(()),
        Pull::Never => {
            return Err(format!(
                "there is no image {image:?} here, and --docker_pull=never; {how}"
            ));
        }
        _ => {}
    }
    tracing::info!("pulling image {image}");
    // Without a tag, the engine would pull them all.
    let last = image.rsplit('/').next().unwrap_or(image);
    let tag = (!last.contains(':')).then(|| "latest".to_owned());
    let options = CreateImageOptions {
        from_image: Some(image.to_owned()),
        tag,
        ..Default::default()
    };
    let mut steps = docker.create_image(Some(options), None, None);
    while let Some(step) = steps.next().await {
        let failed = match step {
            Ok(info) => info.error_detail.and_then(|error| error.message),
            Err(e) => Some(reason(&e)),
        };
        match failed {
            None => {}
            Some(_) if here => return Ok(()),
            Some(failed) => {
                return Err(format!(
                    "there is no image {image:?} here, and it cannot be pulled ({failed}); {how}"
                ));
            }
        }
    }
    Ok(())
}

/// Who this process is: host, process id, and when it began, since ids are used again.
pub(super) fn owner() -> String {
    let id = std::process::id();
    format!("{}/{id}/{}", host(), began(id).unwrap_or_default())
}

fn host() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// When a process of this machine began, in the kernel's ticks; none if it does not run.
fn began(id: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields = stat.get(stat.rfind(')')? + 1..)?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether the owner of a container was a process of this machine that no longer runs.
fn abandoned(owner: &str) -> bool {
    let mut parts = owner.splitn(3, '/');
    let (Some(of), Some(id), Some(at)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    if of != host() || !cfg!(target_os = "linux") {
        return false;
    }
    let Ok(id) = id.parse() else { return false };
    began(id).as_deref() != Some(at)
}

/// Removes containers of services that ended without doing so.
pub(super) async fn sweep(docker: &Docker) {
    let filters = HashMap::from([("label".to_owned(), vec![OWNER.to_owned()])]);
    let options = ListContainersOptions {
        all: true,
        filters: Some(filters),
        ..Default::default()
    };
    let found = match docker.list_containers(Some(options)).await {
        Ok(found) => found,
        Err(e) => return tracing::warn!("cannot look for abandoned containers: {}", reason(&e)),
    };
    for container in found {
        let owner = container.labels.as_ref().and_then(|labels| labels.get(OWNER));
        let (Some(id), Some(owner)) = (&container.id, owner) else {
            continue;
        };
        if abandoned(owner) {
            tracing::info!("removing container {id} of a service that has crashed");
            remove(docker, id).await;
        }
    }
}

/// Removes a container, running or not.
pub(super) async fn remove(docker: &Docker, id: &str) {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..Default::default()
    };
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => {}
        // Someone else was quicker.
        Err(Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }) => {}
        Err(e) => tracing::warn!("cannot remove container {id}: {}", reason(&e)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_dead_are_swept() {
        assert!(!super::abandoned(&super::owner()));
        assert!(!super::abandoned("another machine/1/5"));
        assert!(!super::abandoned("nonsense"));
        let own = super::owner();
        assert!(super::abandoned(&format!("{own}0")), "another process has its id");
    }
}
