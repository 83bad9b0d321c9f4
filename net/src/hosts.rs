//! Which names a server answers to, in HTTP/1.
//!
//! A page that a user's browser shows may come from a name that its owner lets point to this machine afterwards, and could
//! then read what is served here (DNS rebinding). Such requests bear that name as their Host. Browsers speak HTTP/1 where
//! nothing is encrypted, so calls of gRPC, which are HTTP/2, need no such check.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

/// What this machine calls itself; empty where that is not known.
pub fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The names of a server.
#[derive(Clone, Debug)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// These names, beside addresses, `localhost` and this machine's own name.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().chain([machine_name(), "localhost".to_owned()]);
        let names = names.map(|name| name.trim().to_ascii_lowercase());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// Whether a Host header, which may have a port, is one of these names or an address.
    pub fn allow(&self, host: &str) -> bool {
        let host = host.trim();
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || name.ends_with(".localhost") || self.0.contains(&name)
    }
}

/// Lets HTTP/1 only read, and only under the server's names.
pub fn check_hosts(router: axum::Router, names: HostNames) -> axum::Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let refusal = refusal(&request, &names);
        async move {
            match refusal {
                Some(refusal) => refusal,
                None => next.run(request).await,
            }
        }
    }))
}

fn refusal(request: &Request, names: &HostNames) -> Option<Response> {
    if request.version() >= Version::HTTP_2 {
        return None;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "only GET is served in HTTP/1\n").into_response());
    }
    // Programs that send none are no browsers.
    let host = request.headers().get(HOST)?;
    let host = String::from_utf8_lossy(host.as_bytes());
    (!names.allow(&host)).then(|| {
        let text = format!("this server is not called {host:?}; --allowed_hosts gives it names\n");
        (StatusCode::FORBIDDEN, text).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_allowed() {
        let names = HostNames::new(["Beam.example.org".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:8074",
            "127.0.0.1:8074",
            "[::1]:8074",
            "10.0.0.7",
            "beam.example.org:1",
            "x.localhost",
        ] {
            assert!(names.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.example:8074",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[evil",
        ] {
            assert!(!names.allow(host), "{host}");
        }
    }
}
