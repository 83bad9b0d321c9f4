//! Reaches a job service, or says in a second what is in the way.

use std::io;
use std::time::Duration;

use purlin_net::{Purpose, endpoint, root_cause};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::error::RunError;
use crate::harness::grpc::CONNECT;

/// After how long a service that does not greet is told of; a busy one may still do so.
const SLOW: Duration = Duration::from_millis(900);
/// How long a service may take to greet.
const GREETING: Duration = Duration::from_secs(5);
/// What a client of HTTP/2, and so of gRPC, says first: the preface, and settings that change nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Length of a frame's header; its fourth byte is the type.
const FRAME_HEADER: usize = 9;
const SETTINGS: u8 = 4;

/// Why an endpoint is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error(
        "nothing listens at {0}; start a job service with `purlin-job-service` or `make job-service`, or give the address \
         of one as --job_endpoint=HOST:PORT"
    )]
    Refused(String),
    #[error(
        "{address} cannot be reached: {reason}; give the address of a job service as --job_endpoint=HOST:PORT"
    )]
    Other { address: String, reason: String },
    #[error(
        "what listens at {address} does not speak gRPC: {reason}; give the address of a job service as \
         --job_endpoint=HOST:PORT"
    )]
    NotGrpc { address: String, reason: String },
}

impl From<Unreachable> for RunError {
    fn from(error: Unreachable) -> Self {
        RunError::Runner(error.to_string())
    }
}

/// `host:port` of an address.
fn bare(address: &str) -> &str {
    let address = address.trim().trim_end_matches('/');
    address.strip_prefix("http://").unwrap_or(address)
}

/// Whether a gRPC server listens: it is greeted, and must greet back.
pub(super) async fn probe(address: &str) -> Result<(), Unreachable> {
    let address = bare(address).to_owned();
    let not_grpc = |reason: &str| {
        Err(Unreachable::NotGrpc {
            address: address.clone(),
            reason: reason.to_owned(),
        })
    };
    let greeting = async {
        let mut stream = TcpStream::connect(&address).await.map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => Unreachable::Refused(address.clone()),
            _ => Unreachable::Other {
                address: address.clone(),
                reason: e.to_string(),
            },
        })?;
        let mut header = [0; FRAME_HEADER];
        let mut read = 0;
        if stream.write_all(HELLO).await.is_ok() {
            while read < FRAME_HEADER {
                match stream.read(&mut header[read..]).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => read += n,
                }
            }
        }
        Ok(header[..read].to_vec())
    };
    let greeting = async {
        tokio::pin!(greeting);
        if let Ok(greeting) = tokio::time::timeout(SLOW, &mut greeting).await {
            return greeting;
        }
        tracing::warn!("{address} takes connections, but does not answer; waiting up to {GREETING:?} for it");
        greeting.await
    };
    match tokio::time::timeout(GREETING, greeting).await {
        Err(_) => not_grpc("it does not answer"),
        Ok(Err(error)) => Err(error),
        Ok(Ok(header)) if header.is_empty() => not_grpc("it closes the connection"),
        Ok(Ok(header)) if header.len() == FRAME_HEADER && header[3] == SETTINGS => Ok(()),
        Ok(Ok(header)) => not_grpc(&format!("it answers {:?}", String::from_utf8_lossy(&header))),
    }
}

/// Connects to a gRPC server.
pub(super) async fn connect(address: &str) -> Result<Channel, Unreachable> {
    let address = bare(address);
    let other = |reason: String| Unreachable::Other {
        address: address.to_owned(),
        reason,
    };
    let endpoint = endpoint(address, Purpose::Streams, CONNECT).map_err(|e| other(e.to_string()))?;
    if address
        .rsplit_once(':')
        .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        return Err(other("it is not HOST:PORT".into()));
    }
    probe(address).await?;
    endpoint
        .keep_alive_while_idle(false)
        .connect()
        .await
        .map_err(|e| other(root_cause(&e)))
}

/// What a failed call means to the user.
pub(super) fn explain(doing: &str, address: &str, status: &Status) -> RunError {
    let address = bare(address);
    let reason = match status.code() {
        Code::Unimplemented => {
            return RunError::Runner(format!(
                "the gRPC server at {address} is no Beam job service ({doing} is not implemented there); Purlin's \
                 listens at port 8099 by default, 8098 is its artifact service"
            ));
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            "it took too long; see the service's log, or give it more time by --job_server_timeout=SECONDS"
        }
        _ if status.message().is_empty() => status.code().description(),
        _ => status.message(),
    };
    RunError::Runner(format!(
        "{doing} at the job service at {address} failed: {reason}"
    ))
}
