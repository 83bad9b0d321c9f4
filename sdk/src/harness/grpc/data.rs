//! Data streams: elements and timers, told apart by their instruction.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use purlin_net::MAX_MESSAGE_BYTES;
use purlin_proto::fn_execution::beam_fn_data_client::BeamFnDataClient;
use purlin_proto::fn_execution::{Elements, elements};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::connect::{WorkerChannel, while_reading};

/// A bundle's input that waits for it. When there is more, the stream is not read on: the runner waits.
const WAITING_BYTES: usize = 32 << 20;
/// Messages that may wait to be sent on a data stream.
const OUTBOUND_MESSAGES: usize = 4;
/// So many ended bundles are remembered: what still comes for them is dropped.
const REMEMBERED: usize = 4096;

/// A piece of a bundle's input.
#[derive(Debug)]
pub(super) enum Piece {
    Data(elements::Data),
    Timers(elements::Timers),
}

impl Piece {
    fn bytes(&self) -> &Bytes {
        match self {
            Piece::Data(data) => &data.data,
            Piece::Timers(timers) => &timers.timers,
        }
    }

    fn instruction(&self) -> &str {
        match self {
            Piece::Data(data) => &data.instruction_id,
            Piece::Timers(timers) => &timers.instruction_id,
        }
    }
}

/// A bundle's input, in order of arrival.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Something was taken, or the bundle has ended.
    room: Notify,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// The bundle itself has come, so that pieces are being taken.
    wanted: bool,
    broken: Option<String>,
    over: bool,
}

impl Queue {
    /// Waits for the next piece. Blocks the thread.
    ///
    /// # Errors
    /// Why no more will come.
    pub fn next(&self) -> Result<Piece, String> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(piece) = waiting.pieces.pop_front() {
                waiting.bytes -= piece.bytes().len();
                drop(waiting);
                self.room.notify_waiters();
                return Ok(piece);
            }
            if let Some(reason) = &waiting.broken {
                return Err(reason.clone());
            }
            self.arrived.wait(&mut waiting);
        }
    }

    /// The next piece, if it is there.
    pub fn take(&self) -> Option<Piece> {
        self.waiting.lock().pieces.pop_front()
    }

    /// Adds a piece.
    pub fn push(&self, piece: Piece) {
        let mut waiting = self.waiting.lock();
        if !waiting.over {
            waiting.bytes += piece.bytes().len();
            waiting.pieces.push_back(piece);
            self.arrived.notify_one();
        }
    }

    /// Waits until more may be added.
    async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            {
                let waiting = self.waiting.lock();
                // Input that came before its bundle is not waited for: the bundle may be behind it.
                if waiting.bytes < WAITING_BYTES
                    || !waiting.wanted
                    || waiting.over
                    || waiting.broken.is_some()
                {
                    return;
                }
            }
            room.await;
        }
    }

    fn fail(&self, reason: &str) {
        self.waiting
            .lock()
            .broken
            .get_or_insert_with(|| reason.to_owned());
        self.arrived.notify_all();
        self.room.notify_waiters();
    }
}

/// Brings what data streams carry to the bundles.
#[derive(Default)]
pub(super) struct Router {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    queues: HashMap<String, Arc<Queue>>,
    ended: HashSet<String>,
    ended_order: VecDeque<String>,
    broken: Option<String>,
}

impl Router {
    /// The queue of a bundle that has come.
    pub fn open(&self, instruction: &str) -> Arc<Queue> {
        let queue = {
            let mut table = self.table.lock();
            // An instruction id that is used again is a new bundle.
            table.ended.remove(instruction);
            let queue = table.queues.entry(instruction.to_owned()).or_default().clone();
            if let Some(reason) = &table.broken {
                queue.fail(reason);
            }
            queue
        };
        queue.waiting.lock().wanted = true;
        queue
    }

    /// The bundle has ended: what still comes for it is dropped.
    pub fn close(&self, instruction: &str) {
        let queue = {
            let mut table = self.table.lock();
            if table.ended.insert(instruction.to_owned()) {
                table.ended_order.push_back(instruction.to_owned());
            }
            if table.ended_order.len() > REMEMBERED
                && let Some(oldest) = table.ended_order.pop_front()
            {
                table.ended.remove(&oldest);
            }
            table.queues.remove(instruction)
        };
        if let Some(queue) = queue {
            let mut waiting = queue.waiting.lock();
            waiting.over = true;
            waiting.pieces.clear();
            waiting.bytes = 0;
            drop(waiting);
            queue.room.notify_waiters();
        }
    }

    /// Nothing more will come, for any bundle.
    pub fn fail(&self, reason: &str) {
        let queues: Vec<Arc<Queue>> = {
            let mut table = self.table.lock();
            table.broken.get_or_insert_with(|| reason.to_owned());
            table.queues.values().cloned().collect()
        };
        queues.iter().for_each(|queue| queue.fail(reason));
    }

    /// Takes one message of a data stream.
    pub async fn route(&self, message: Elements) {
        let data = message.data.into_iter().map(Piece::Data);
        for piece in data.chain(message.timers.into_iter().map(Piece::Timers)) {
            let queue = {
                let mut table = self.table.lock();
                if table.ended.contains(piece.instruction()) {
                    continue;
                }
                table
                    .queues
                    .entry(piece.instruction().to_owned())
                    .or_default()
                    .clone()
            };
            queue.push(piece);
            queue.has_room().await;
        }
    }
}

/// The sending side of a data stream.
#[derive(Clone)]
pub(super) struct DataSender {
    address: String,
    messages: mpsc::Sender<Elements>,
}

impl DataSender {
    /// Sends a message; waits while too many wait already. Blocks the thread.
    pub fn send(&self, message: Elements) -> Result<(), String> {
        self.messages
            .blocking_send(message)
            .map_err(|_| format!("the data stream to the runner at {} has ended", self.address))
    }
}

/// Opens a data stream. Its inbound side goes to the router until the stream ends.
pub(super) fn open(address: &str, channel: WorkerChannel, router: Arc<Router>) -> DataSender {
    let (messages, outbound) = mpsc::channel(OUTBOUND_MESSAGES);
    let sender = DataSender {
        address: address.to_owned(),
        messages,
    };
    let address = address.to_owned();
    tokio::spawn(async move {
        let mut client = BeamFnDataClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (outbound, reading) = while_reading(ReceiverStream::new(outbound));
        // Some runners answer the call only with their first message; ours flow meanwhile.
        let reason = match client.data(outbound).await {
            Err(status) => status.message().to_owned(),
            Ok(response) => {
                let mut inbound = response.into_inner();
                loop {
                    match inbound.message().await {
                        Ok(Some(message)) => router.route(message).await,
                        Ok(None) => break "the runner closed it".to_owned(),
                        Err(status) => break status.message().to_owned(),
                    }
                }
            }
        };
        drop(reading);
        router.fail(&format!(
            "the data stream to the runner at {address} ended: {reason}"
        ));
    });
    sender
}

/// Output of a bundle for one data service, put into messages.
pub(super) struct Output {
    sender: DataSender,
    instruction: String,
    message: Elements,
    bytes: usize,
    sent: bool,
}

/// A message is sent before it would hold more than this; a single piece may be larger.
const MESSAGE_BYTES: usize = 4 << 20;

impl Output {
    pub fn new(sender: DataSender, instruction: &str) -> Output {
        Output {
            sender,
            instruction: instruction.to_owned(),
            message: Elements::default(),
            bytes: 0,
            sent: false,
        }
    }

    /// Elements of a sink: whole ones.
    pub fn data(&mut self, transform: &str, data: Bytes, is_last: bool) -> Result<(), String> {
        self.reserve(data.len())?;
        self.message.data.push(elements::Data {
            instruction_id: self.instruction.clone(),
            transform_id: transform.to_owned(),
            data,
            is_last,
        });
        Ok(())
    }

    /// Timers of a family: whole ones.
    pub fn timers(
        &mut self,
        transform: &str,
        family: &str,
        timers: Bytes,
        is_last: bool,
    ) -> Result<(), String> {
        self.reserve(timers.len())?;
        self.message.timers.push(elements::Timers {
            instruction_id: self.instruction.clone(),
            transform_id: transform.to_owned(),
            timer_family_id: family.to_owned(),
            timers,
            is_last,
        });
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), String> {
        if self.bytes > 0 && self.bytes + bytes > MESSAGE_BYTES {
            self.flush()?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> Result<(), String> {
        if !self.message.data.is_empty() || !self.message.timers.is_empty() {
            self.sent = true;
            self.bytes = 0;
            self.sender.send(std::mem::take(&mut self.message))?;
        }
        Ok(())
    }

    /// How many bytes wait, if nothing was sent yet.
    pub fn unsent(&self) -> Option<usize> {
        (!self.sent).then_some(self.bytes)
    }

    /// What waits, for the response.
    pub fn into_message(self) -> Elements {
        self.message
    }
}
