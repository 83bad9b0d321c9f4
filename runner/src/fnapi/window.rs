//! The way of elements to a worker: bounded by bytes, in turns.
//!
//! Bundles of a worker share its one data stream. What is on its way there, but not taken by the connection yet, is
//! at most [`WINDOW_BYTES`] (or one message that is larger): a bundle whose worker does not read waits, the others wait
//! in line behind it, and nothing piles up. Reading from the worker goes on meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use purlin_proto::fn_execution as fnapi;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::Status;

use super::send;

/// Bytes on their way to one worker.
pub(crate) const WINDOW_BYTES: usize = 8 << 20;

/// The runner's end of a worker's data stream.
#[derive(Clone, Debug)]
pub(crate) struct DataSender {
    messages: mpsc::UnboundedSender<(fnapi::Elements, OwnedSemaphorePermit)>,
    window: Arc<Semaphore>,
}

/// The stream's end: yields the messages to the connection.
#[derive(Debug)]
pub(crate) struct Outbound {
    messages: mpsc::UnboundedReceiver<(fnapi::Elements, OwnedSemaphorePermit)>,
    /// Of the message that the connection has taken last; it asks for another one when it has passed that on.
    taken: Option<OwnedSemaphorePermit>,
    window: Arc<Semaphore>,
}

/// The stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

pub(crate) fn channel() -> (DataSender, Outbound) {
    let (sender, messages) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(WINDOW_BYTES));
    let sender = DataSender {
        messages: sender,
        window: window.clone(),
    };
    let outbound = Outbound {
        messages,
        taken: None,
        window,
    };
    (sender, outbound)
}

impl DataSender {
    /// Sends a message when it is its turn and there is room.
    pub(crate) async fn send(&self, message: fnapi::Elements) -> Result<(), Closed> {
        let bytes = send::size(&message).clamp(1, WINDOW_BYTES) as u32;
        let permit = self.window.clone().acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| Closed)?;
        self.messages.send((message, permit)).map_err(|_| Closed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }
}

impl Stream for Outbound {
    type Item = Result<fnapi::Elements, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken = None;
        self.messages.poll_recv(context).map(|next| {
            let (message, permit) = next?;
            self.taken = Some(permit);
            Some(Ok(message))
        })
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.window.close();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use tokio_stream::StreamExt as _;

    use super::super::collector::data_entry;
    use super::*;

    fn message(bytes: usize) -> fnapi::Elements {
        fnapi::Elements {
            data: vec![data_entry("i", "t", Bytes::from(vec![0; bytes]), false)],
            timers: vec![],
        }
    }

    #[tokio::test]
    async fn what_is_not_taken_is_bounded() {
        let (sender, mut outbound) = channel();
        let mut sent = 0;
        while sender.send(message(1 << 20)).now_or_never().is_some() {
            sent += 1;
        }
        assert_eq!(sent, WINDOW_BYTES >> 20);
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(message(3 << 20)).await }
        });
        for _ in 0..3 {
            outbound.next().await.unwrap().unwrap();
            assert!(!waiting.is_finished());
        }
        // The third message is on its way when the fourth is asked for.
        outbound.next().await.unwrap().unwrap();
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_message_larger_than_the_window_goes_alone() {
        let (sender, mut outbound) = channel();
        sender.send(message(3 * WINDOW_BYTES)).await.unwrap();
        assert!(sender.send(message(1)).now_or_never().is_none());
        outbound.next().await.unwrap().unwrap();
        assert!(outbound.next().now_or_never().is_none());
        sender.send(message(1)).await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_stream_lets_nobody_wait() {
        let (sender, outbound) = channel();
        sender.send(message(WINDOW_BYTES)).await.unwrap();
        let waiting = tokio::spawn(async move { sender.send(message(1)).await });
        tokio::task::yield_now().await;
        drop(outbound);
        assert_eq!(waiting.await.unwrap(), Err(Closed));
    }
}
