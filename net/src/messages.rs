//! Limits of messages by method, and of all that are on their way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::budget::Budget;
use crate::connection::ConnectionInfo;
use crate::frames::Frames;

/// What is taken of a method's messages.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes of one, at most.
    pub bytes: usize,
    /// Whether those that are not whole yet, and answers that are not read yet, are counted against the server's bounds.
    pub counted: bool,
    /// Whether large ones are decoded and handled a few at a time, aside of the threads that serve others.
    pub heavy: bool,
    /// What to do about it, at the end of the error.
    pub hint: &'static str,
}

impl Limit {
    /// Messages of anyone, so large.
    pub const fn of(bytes: usize) -> Self {
        Self {
            bytes,
            counted: true,
            heavy: false,
            hint: "",
        }
    }

    /// Messages of a peer that this process has started.
    pub const fn trusted() -> Self {
        Self {
            counted: false,
            ..Self::of(crate::MAX_MESSAGE_BYTES)
        }
    }
}

/// The limit of a method by its path (`/package.Service/Method`) and the call's metadata.
pub type Rule = Arc<dyn Fn(&str, &HeaderMap) -> Limit + Send + Sync>;

/// Bounds that all servers of a process share. Clones are the same bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    bytes: usize,
    requests: Budget,
    responses: Budget,
    turns: Arc<Semaphore>,
}

impl Limits {
    /// So many bytes of requests that are not whole may be held at a time (half of them for one connection), and as many of
    /// responses that are not read.
    pub fn new(bytes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            bytes,
            requests: Budget::new(bytes, None),
            responses: Budget::new(bytes, None),
            turns: Arc::new(Semaphore::new(cores.div_ceil(2).min(4))),
        }
    }

    /// What a connection's requests are counted against.
    fn requests(&self, connection: Option<&ConnectionInfo>) -> Budget {
        match connection {
            Some(connection) => {
                let own = || Budget::new(self.bytes / 2, Some(self.requests.clone()));
                connection.requests.get_or_init(own).clone()
            }
            None => self.requests.clone(),
        }
    }
}

/// Passes messages on that are within their method's limit, when they are whole.
pub fn limit_messages(router: axum::Router, limits: Limits, rule: Rule) -> axum::Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let limit = rule(request.uri().path(), request.headers());
        let limits = limits.clone();
        async move {
            let heavy = Arc::new(Heavy::new(limits.turns.clone()));
            let taken = limit
                .counted
                .then(|| limits.requests(request.extensions().get()).none());
            let held = heavy.clone();
            let request = request.map(|body| Body::new(Frames::new(body, limit, taken, held)));
            let inner = next.run(request);
            let response = Aside {
                inner: Box::pin(inner),
                heavy,
            };
            let response = response.await;
            if limit.counted {
                response.map(|inner| {
                    Body::new(Counted {
                        inner,
                        budget: limits.responses,
                        ended: false,
                    })
                })
            } else {
                response
            }
        }
    }))
}

type Turn = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

/// A call's turn to do heavy work, and whether it does some.
#[derive(Default)]
pub(crate) struct Heavy {
    turns: Option<Arc<Semaphore>>,
    now: AtomicBool,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
    wanted: Mutex<Option<Turn>>,
}

impl Heavy {
    fn new(turns: Arc<Semaphore>) -> Self {
        Self {
            turns: Some(turns),
            ..Self::default()
        }
    }

    /// Ready when it is this call's turn, which lasts until the call is answered.
    pub(crate) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut turn = self.turn.lock();
        if let (None, Some(turns)) = (&*turn, &self.turns) {
            let mut wanted = self.wanted.lock();
            let own = wanted.get_or_insert_with(|| Box::pin(turns.clone().acquire_owned()));
            let got = ready!(own.as_mut().poll(cx));
            *wanted = None;
            // The semaphore is never closed.
            *turn = got.ok();
        }
        self.now.store(true, Ordering::Relaxed);
        Poll::Ready(())
    }
}

/// A call's answer. While it decodes a heavy message, other tasks of its thread go elsewhere.
struct Aside<F> {
    inner: Pin<Box<F>>,
    heavy: Arc<Heavy>,
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let heavy = self.heavy.now.swap(false, Ordering::Relaxed);
        let many = || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
        if heavy && many() {
            tokio::task::block_in_place(|| self.inner.as_mut().poll(cx))
        } else {
            self.inner.as_mut().poll(cx)
        }
    }
}

/// An answer whose bytes count until they are sent.
struct Counted {
    inner: Body,
    budget: Budget,
    ended: bool,
}

/// Bytes that are given back to the budget when the last reference goes.
struct Unread {
    data: Bytes,
    _taken: crate::budget::Taken,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return Poll::Ready(Some(Ok(frame))),
        };
        let mut taken = self.budget.none();
        if taken.more(data.len()) {
            let data = Bytes::from_owner(Unread { data, _taken: taken });
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        self.ended = true;
        let status =
            Status::resource_exhausted("clients of this server leave too many bytes unread; try again later");
        let mut trailers = HeaderMap::new();
        Poll::Ready(match status.add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(status) => Some(Err(axum::Error::new(status))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::{Response, StatusCode};
    use axum::routing::post;

    use super::*;

    /// A router that answers with as many bytes as it is sent, called once.
    async fn call(limits: &Limits, bytes: usize) -> Response<Body> {
        use tonic::codegen::Service as _;
        let router = axum::Router::new().route("/echo", post(|body: Bytes| async { body }));
        let mut heavy = Limit::of(1 << 20);
        heavy.heavy = true;
        let mut router = limit_messages(router, limits.clone(), Arc::new(move |_, _| heavy));
        let mut message = vec![0];
        message.extend((bytes as u32).to_be_bytes());
        message.resize(bytes + 5, 1);
        let request = Request::post("/echo").body(Body::from(message)).unwrap();
        router.call(request).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn heavy_messages_take_turns() {
        let limits = Limits::new(1 << 20);
        let all = limits.turns.available_permits();
        let turns = limits.turns.clone().acquire_many_owned(all as u32).await.unwrap();
        let own = limits.clone();
        let mut waiting = tokio::spawn(async move { call(&own, 500_000).await.status() });
        // A small one does not wait for the turns, which are all taken; the heavy one does.
        assert_eq!(call(&limits, 1000).await.status(), StatusCode::OK);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(turns);
        assert_eq!(waiting.await.unwrap(), StatusCode::OK);
        assert_eq!(limits.turns.available_permits(), all);
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_bounded() {
        let limits = Limits::new(1 << 20);
        let mut unread = Vec::new();
        for _ in 0..5 {
            let mut body = call(&limits, 250_000).await.into_body();
            let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
            unread.push(frame.unwrap().unwrap());
        }
        assert!(unread.iter().take(4).all(Frame::is_data));
        let refused = unread.pop().unwrap().into_trailers().unwrap();
        assert_eq!(refused["grpc-status"], "8");
        drop(unread);
        let body = call(&limits, 250_000).await.into_body();
        assert_eq!(to_bytes(body, usize::MAX).await.unwrap().len(), 250_005);
    }
}
