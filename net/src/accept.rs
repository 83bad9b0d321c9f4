//! Listening, and accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{Connection, Silence};

/// How long to wait when no connection can be accepted, for want of file descriptors or memory.
const RETRY: Duration = Duration::from_millis(250);

/// How long nothing more is told of connections that cannot be accepted: a process on the edge could accept now and then.
const QUIET: Duration = Duration::from_secs(60);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}: {reason}")]
pub struct BindError {
    /// Host asked for.
    pub host: String,
    /// Port asked for.
    pub port: u16,
    /// Why, and what to do.
    pub reason: String,
}

impl BindError {
    /// Explains a failure to bind.
    pub fn new(host: &str, port: u16, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is taken; end the program that holds it, or choose another port (0 takes a free one)".into()
            }
            io::ErrorKind::PermissionDenied => format!("{error}; ports below 1024 need privileges"),
            io::ErrorKind::AddrNotAvailable => format!("{error}; this machine has no such address"),
            _ => error.to_string(),
        };
        Self {
            host: host.into(),
            port,
            reason,
        }
    }
}

/// Binds a listener, IPv4 before IPv6 where the host has both.
pub async fn listen(host: &str, port: u16) -> Result<TcpListener, BindError> {
    let error = |e: &io::Error| BindError::new(host, port, e);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|e| error(&e))?
        .collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(error(&last))
}

/// Accepts connections, so many at a time. Where the process has no file descriptor left it says so, once a minute at most,
/// and waits.
pub struct Acceptor {
    listener: TcpListener,
    silence: Silence,
    open: Arc<Semaphore>,
    /// When it was last told that none can be accepted.
    told: Option<Instant>,
}

impl Acceptor {
    /// At most so many connections are open at a time; others wait to be accepted.
    pub fn new(listener: TcpListener, silence: Silence, most: usize) -> Self {
        Self {
            listener,
            silence,
            open: Arc::new(Semaphore::new(most)),
            told: None,
        }
    }

    /// The next connection, and who opened it.
    pub async fn next(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed.
        let place = self.open.clone().acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return (Connection::new(stream, peer, self.silence, place), peer);
                }
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
                        self.told = Some(Instant::now());
                        let at = self
                            .listener
                            .local_addr()
                            .map_or_else(|_| String::new(), |at| format!(" on {at}"));
                        tracing::error!("cannot accept connections{at}, and waits until it can: {error}");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// For tonic's servers.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
        futures::stream::unfold(self, |mut this| async move {
            let (connection, _) = this.next().await;
            Some((Ok(connection), this))
        })
    }
}

/// For axum's server.
impl axum::serve::Listener for Acceptor {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Whether an error is of the connection that was to be accepted, so that the next may do better.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
