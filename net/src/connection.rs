//! A connection that is ended when its peer says nothing, and what is known of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use crate::budget::Budget;

/// How long a peer has for its first words.
const GREETING: Duration = Duration::from_secs(10);
/// What HTTP/2 begins with has so many bytes, and requests of HTTP/1 no fewer.
const GREETING_BYTES: usize = 24;
/// How long a connection may be idle where that is bounded.
const IDLE: Duration = Duration::from_secs(60);

/// What a connection is ended for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// A peer that does not begin to speak; later, HTTP/2's own pings tell whether it is there.
    AtFirst,
    /// Any pause of a minute.
    Ever,
}

/// A TCP connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    info: ConnectionInfo,
    /// Its end, unless it is heard of before.
    end: Option<Pin<Box<Sleep>>>,
    silence: Silence,
    /// Bytes read, until they are enough.
    heard: usize,
    _place: Option<OwnedSemaphorePermit>,
}

/// Between which addresses a connection is; an extension of each of its requests.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: SocketAddr,
    /// This end, if it is known.
    pub local: Option<SocketAddr>,
    /// Bytes of its messages that are not whole.
    pub(crate) requests: Arc<OnceLock<Budget>>,
}

impl ConnectionInfo {
    /// Whether the peer is on this machine.
    pub fn is_local(&self) -> bool {
        let ip = |address: SocketAddr| address.ip().to_canonical();
        let same = |local: IpAddr| local == ip(self.peer);
        ip(self.peer).is_loopback() || self.local.map(ip).is_some_and(same)
    }
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        silence: Silence,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        // Without it, small messages wait for each other; it fails only where the peer has gone.
        let _ = stream.set_nodelay(true);
        let after = match silence {
            Silence::AtFirst => GREETING,
            Silence::Ever => IDLE,
        };
        let local = stream.local_addr().ok();
        Self {
            stream,
            info: ConnectionInfo {
                peer,
                local,
                requests: Arc::default(),
            },
            end: Some(Box::pin(tokio::time::sleep(after))),
            silence,
            heard: 0,
            _place: place,
        }
    }

    /// Bytes came or went.
    fn moved(&mut self, read: usize) {
        self.heard = self.heard.saturating_add(read);
        match self.silence {
            Silence::AtFirst if self.heard >= GREETING_BYTES => self.end = None,
            Silence::AtFirst => {}
            Silence::Ever => {
                if let Some(end) = &mut self.end {
                    end.as_mut().reset(Instant::now() + IDLE);
                }
            }
        }
    }

    /// Nothing moves: is it time to end?
    fn waits<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let ended = self
            .end
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if !ended {
            return Poll::Pending;
        }
        tracing::debug!("{} is silent: its connection is closed", self.info.peer);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Pending => self.waits(cx),
            Poll::Ready(_) => {
                if self.end.is_some() {
                    self.moved(0);
                }
                wrote
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match read {
            Poll::Pending => self.waits(cx),
            Poll::Ready(_) => {
                if self.end.is_some() {
                    self.moved(buf.filled().len() - before);
                }
                read
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::Acceptor;

    async fn pair(silence: Silence) -> (TcpStream, Connection) {
        let listener = crate::listen("127.0.0.1", 0).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (connection, _) = Acceptor::new(listener, silence, 1).next().await;
        (peer, connection)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_sent_away() {
        for silence in [Silence::AtFirst, Silence::Ever] {
            let (mut peer, mut connection) = pair(silence).await;
            peer.write_all(b"PRI").await.unwrap();
            let mut all = Vec::new();
            let error = connection.read_to_end(&mut all).await.unwrap_err();
            assert_eq!(
                (error.kind(), all.as_slice()),
                (io::ErrorKind::TimedOut, &b"PRI"[..])
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_begun_may_be_silent() {
        let (mut peer, mut connection) = pair(Silence::AtFirst).await;
        peer.write_all(&[1; GREETING_BYTES]).await.unwrap();
        let mut words = [0; GREETING_BYTES];
        connection.read_exact(&mut words).await.unwrap();
        let mut rest = [0; 1];
        let silent = tokio::time::timeout(Duration::from_secs(3600), connection.read(&mut rest)).await;
        assert!(silent.is_err());
    }

    #[test]
    fn a_peer_is_local_by_its_address() {
        let info = |peer: &str, local: &str| ConnectionInfo {
            peer: peer.parse().unwrap(),
            local: Some(local.parse().unwrap()),
            requests: Arc::default(),
        };
        assert!(info("127.0.0.1:5", "127.0.0.1:6").is_local());
        assert!(info("[::ffff:127.0.0.1]:5", "[::]:6").is_local());
        assert!(info("10.0.0.7:5", "10.0.0.7:6").is_local());
        assert!(!info("10.0.0.8:5", "10.0.0.7:6").is_local());
    }
}
