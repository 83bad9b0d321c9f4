//! The body of a request, let through message by message: each is checked by what its header declares, is held as its bytes
//! arrive, and goes on when it is whole. What decodes it reserves the declared length at once, which then is there.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tonic::Status;

use crate::budget::Taken;
use crate::messages::{Heavy, Limit};

/// A byte that tells of compression, and the length.
const HEADER: usize = 5;
/// Smaller pieces are copied together: one might keep a large read buffer in memory.
const SMALL: usize = 16 << 10;
/// Copied pieces have so many bytes at most.
const PIECE: usize = 64 << 10;
/// A message of so many bytes is heavy, where its method's messages are.
const HEAVY: usize = 256 << 10;

/// A request's body.
pub(crate) struct Frames {
    inner: Body,
    limit: Limit,
    /// Of messages that are not whole; none where they are not counted.
    taken: Option<Taken>,
    /// The message that is not whole.
    held: Held,
    /// What may go on.
    whole: VecDeque<Bytes>,
    /// Set by a heavy message that is whole and has no turn yet.
    waits: bool,
    heavy: Arc<Heavy>,
}

#[derive(Default)]
struct Held {
    header: [u8; HEADER],
    bytes: usize,
    /// Header and message; unknown until the header is whole.
    all: Option<usize>,
    pieces: Vec<Bytes>,
    small: BytesMut,
}

impl Frames {
    pub(crate) fn new(inner: Body, limit: Limit, taken: Option<Taken>, heavy: Arc<Heavy>) -> Self {
        Self {
            inner,
            limit,
            taken,
            held: Held::default(),
            whole: VecDeque::new(),
            waits: false,
            heavy,
        }
    }

    /// Bytes of a message with its header.
    fn declared(&self, header: &[u8]) -> Result<usize, Status> {
        let length = header
            .iter()
            .skip(1)
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > self.limit.bytes {
            return Err(Status::resource_exhausted(format!(
                "a message of {length} bytes is more than the {} that are taken here{}",
                self.limit.bytes, self.limit.hint
            )));
        }
        Ok(HEADER + length)
    }

    fn push(&mut self, mut data: Bytes) -> Result<(), Status> {
        self.go_on(&mut data)?;
        let mut end = 0;
        while let Some(header) = data.get(end..end + HEADER) {
            let all = self.declared(header)?;
            if data.len() - end < all {
                break;
            }
            end += all;
            self.waits |= self.limit.heavy && all >= HEAVY;
        }
        if end > 0 {
            self.whole.push_back(data.split_to(end));
        }
        if !data.is_empty() {
            self.hold(data.split_to(data.len().min(HEADER)))?;
            self.go_on(&mut data)?;
        }
        Ok(())
    }

    /// Takes what belongs to the message that has begun.
    fn go_on(&mut self, data: &mut Bytes) -> Result<(), Status> {
        loop {
            if self.held.all.is_none() && self.held.bytes == HEADER {
                self.held.all = Some(self.declared(&self.held.header)?);
            }
            if self.held.all == Some(self.held.bytes) {
                self.release();
            }
            if self.held.bytes == 0 || data.is_empty() {
                return Ok(());
            }
            let missing = self.held.all.unwrap_or(HEADER) - self.held.bytes;
            self.hold(data.split_to(missing.min(data.len())))?;
        }
    }

    fn hold(&mut self, piece: Bytes) -> Result<(), Status> {
        if self.taken.as_mut().is_some_and(|taken| !taken.more(piece.len())) {
            return Err(Status::resource_exhausted(
                "too many bytes of messages are on their way to this server; try again later",
            ));
        }
        let held = &mut self.held;
        for (own, byte) in held.header.iter_mut().skip(held.bytes).zip(&piece) {
            *own = *byte;
        }
        held.bytes += piece.len();
        if piece.len() < SMALL {
            held.small.extend_from_slice(&piece);
            if held.small.len() >= PIECE {
                held.pieces.push(held.small.split().freeze());
            }
        } else {
            if !held.small.is_empty() {
                held.pieces.push(held.small.split().freeze());
            }
            held.pieces.push(piece);
        }
        Ok(())
    }

    /// The message is whole.
    fn release(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        if !held.small.is_empty() {
            held.pieces.push(held.small.freeze());
        }
        self.waits |= self.limit.heavy && held.bytes >= HEAVY;
        self.whole.extend(held.pieces);
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if this.waits {
                ready!(this.heavy.poll_turn(cx));
                this.waits = false;
                // What decodes it is polled once more, and then as heavy work.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(piece) = this.whole.pop_front() {
                if let (Some(taken), true) = (&mut this.taken, this.whole.is_empty() && this.held.bytes == 0)
                {
                    taken.clear();
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if this.held.bytes > 0 => {
                    this.held = Held::default();
                    let status = Status::internal("the stream ended within a message");
                    return Poll::Ready(Some(Err(status.into())));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Err(status) = this.push(data) {
                        return Poll::Ready(Some(Err(status.into())));
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;

    use super::*;
    use crate::budget::Budget;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend((length as u32).to_be_bytes());
        message.extend((0..length).map(|i| i as u8));
        message
    }

    /// What comes through of a stream that arrives in these pieces, or why it ends.
    async fn through(sent: &[u8], piece: usize, limit: usize, budget: &Budget) -> Result<Vec<Bytes>, String> {
        let pieces: Vec<Result<Bytes, Infallible>> = sent
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = Body::from_stream(futures::stream::iter(pieces));
        let frames = Frames::new(body, Limit::of(limit), Some(budget.none()), Arc::default());
        let mut out = Vec::new();
        let mut stream = Body::new(frames).into_data_stream();
        while let Some(piece) = stream.next().await {
            out.push(piece.map_err(|error| Status::from_error(error.into()).message().to_owned())?);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn messages_come_through_whole_however_they_arrive() {
        let sent = [
            message(0),
            message(3),
            message(100_000),
            message(1),
            message(70_000),
        ]
        .concat();
        let budget = Budget::new(usize::MAX, None);
        for piece in [1, 2, 5, 7, 1000, 16_384, 65_536, 1_000_000] {
            let out = through(&sent, piece, 100_000, &budget).await.unwrap();
            assert!(out.concat() == sent, "pieces of {piece} bytes");
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn a_header_that_declares_too_much_ends_the_stream() {
        let budget = Budget::new(usize::MAX, None);
        let sent = [message(10), vec![0, 0x7f, 0xff, 0xff, 0xff, 1]].concat();
        for piece in [1, 100] {
            let error = through(&sent, piece, 1000, &budget).await.unwrap_err();
            assert!(
                error.contains("2147483647 bytes") && error.contains("1000"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_message_that_is_not_whole_is_never_handed_on() {
        let budget = Budget::new(usize::MAX, None);
        for length in [2, 5, 500_000] {
            let error = through(&message(1_000_000)[..length], 20_000, 1_000_000, &budget).await;
            assert_eq!(error.unwrap_err(), "the stream ended within a message");
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_bounded() {
        let budget = Budget::new(50_000, None);
        let error = through(&message(60_000), 1000, 100_000, &budget)
            .await
            .unwrap_err();
        assert!(error.contains("too many bytes"), "{error}");
        assert_eq!(budget.used(), 0);
        // Messages that come whole hold nothing.
        through(
            &[message(40_000), message(40_000)].concat(),
            200_000,
            100_000,
            &budget,
        )
        .await
        .unwrap();
    }
}
