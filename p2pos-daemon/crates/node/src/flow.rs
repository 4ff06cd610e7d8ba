//! Datagram flows: unreliable messages beside a stream that stands for the flow's life.
//!
//! A flow's id is the id of its stream (DESIGN s6). Datagrams of a connection are sorted into bounded queues, one per flow,
//! where the oldest makes room for the newest; one slow flow cannot hold up another.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use p2pos_peer_protocol::{
    EndCode,
    datagram::{self, FlowId},
};
use p2pos_transport::{Connection, Lost, RecvStream, SendDatagramError, SendStream, StreamEnd};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use crate::{
    lease::Lease,
    limits::{DATAGRAM_BATCH, FLOW_QUEUE_BYTES, FLOW_QUEUE_DATAGRAMS},
};

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEnd {
    /// The peer closed it in good order.
    Finished,
    /// The peer gave it up.
    Reset(EndCode),
    /// The connection under it is gone.
    Lost(Lost),
}

/// A datagram flow. Dropped without [`Flow::close`], it tells the peer 403 PLUGIN_GONE.
pub struct Flow {
    connection: Connection,
    id: FlowId,
    queue: Arc<Queue>,
    table: Arc<FlowTable>,
    send: SendStream,
    ended: watch::Receiver<Option<FlowEnd>>,
    watcher: AbortHandle,
    _lease: Lease,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Flow {
    /// Builds the flow whose stream has been agreed on. Its id must be in `table` already, so that no datagram is lost.
    pub(crate) fn new(
        connection: Connection,
        registered: Registered,
        send: SendStream,
        recv: RecvStream,
        lease: Lease,
    ) -> Self {
        let (table, id, queue) = registered.into_parts();
        let (sender, ended) = watch::channel(None);
        let watcher = tokio::spawn(watch_end(recv, sender, queue.clone())).abort_handle();
        Self { connection, id, queue, table, send, ended, watcher, _lease: lease }
    }

    /// Sends a datagram, or drops the oldest one that waits. Never waits itself, and never cuts one in pieces.
    ///
    /// # Errors
    /// [`SendDatagramError::TooBig`] if it does not fit one packet of the path.
    pub fn send(&self, payload: &[u8]) -> Result<(), SendDatagramError> {
        let max = self.bytes_max();
        if payload.len() > max {
            return Err(SendDatagramError::TooBig { size: payload.len(), max });
        }
        self.connection.send_datagram(datagram::encode(self.id, payload))
    }

    /// Largest payload that fits one packet of the path now, bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.connection.datagram_bytes_max().saturating_sub(self.id.encoded_bytes())
    }

    /// Waits for the next datagram; `None` once the flow has ended and all were read. Cancel-safe.
    pub async fn recv(&self) -> Option<Bytes> {
        loop {
            let arrived = self.queue.arrived.notified();
            if let Some(payload) = self.queue.pop() {
                return Some(payload);
            }
            if self.ended.borrow().is_some() {
                return None;
            }
            arrived.await;
        }
    }

    /// Datagrams that were dropped here because nobody read in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Waits for the end of the flow. Cancel-safe.
    pub async fn ended(&self) -> FlowEnd {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        end.unwrap_or(FlowEnd::Lost(Lost::Local))
    }

    /// Ends the flow: in good order with `None`, otherwise with a code.
    pub fn close(mut self, code: Option<EndCode>) {
        match code {
            None => self.send.finish(),
            Some(code) => self.send.reset(code),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.watcher.abort();
        self.table.remove(self.id);
    }
}

/// Reads the flow's stream, on which nothing more comes than its end.
async fn watch_end(mut recv: RecvStream, ended: watch::Sender<Option<FlowEnd>>, queue: Arc<Queue>) {
    let end = match recv.read_chunk().await {
        Ok(None) => FlowEnd::Finished,
        Ok(Some(_)) => {
            recv.stop(EndCode::PROTOCOL);
            FlowEnd::Reset(EndCode::PROTOCOL)
        }
        Err(StreamEnd::Reset(code) | StreamEnd::Stopped(code)) => FlowEnd::Reset(code),
        Err(StreamEnd::Lost(lost)) => FlowEnd::Lost(lost),
        Err(StreamEnd::Closed) => FlowEnd::Lost(Lost::Local),
    };
    ended.send_replace(Some(end));
    queue.arrived.notify_one();
}

/// The datagrams of one flow that wait to be read.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Adds a datagram; the oldest make room.
    fn push(&self, payload: Bytes) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += payload.len();
        waiting.datagrams.push_back(payload);
        while waiting.datagrams.len() > FLOW_QUEUE_DATAGRAMS || waiting.bytes > FLOW_QUEUE_BYTES {
            let Some(oldest) = waiting.datagrams.pop_front() else { break };
            waiting.bytes -= oldest.len();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Bytes> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let payload = waiting.datagrams.pop_front()?;
        waiting.bytes -= payload.len();
        Some(payload)
    }
}

/// The flows of one connection.
#[derive(Debug, Default)]
pub(crate) struct FlowTable {
    flows: Mutex<BTreeMap<FlowId, Arc<Queue>>>,
    is_sorting: AtomicBool,
}

/// A flow's place in the table, not yet a flow.
#[derive(Debug)]
pub(crate) struct Registered {
    table: Arc<FlowTable>,
    id: FlowId,
    queue: Option<Arc<Queue>>,
}

impl FlowTable {
    /// Makes a place for a flow, and starts to sort the connection's datagrams with the first one.
    pub(crate) fn register(self: &Arc<Self>, connection: &Connection, stream_id: u64) -> Option<Registered> {
        let id = FlowId::new(stream_id)?;
        let queue = Arc::new(Queue::default());
        self.flows().insert(id, queue.clone());
        if !self.is_sorting.swap(true, Ordering::Relaxed) {
            tokio::spawn(sort_datagrams(connection.clone(), self.clone()));
        }
        Some(Registered { table: self.clone(), id, queue: Some(queue) })
    }

    fn remove(&self, id: FlowId) {
        self.flows().remove(&id);
    }

    fn flows(&self) -> MutexGuard<'_, BTreeMap<FlowId, Arc<Queue>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    fn into_parts(mut self) -> (Arc<FlowTable>, FlowId, Arc<Queue>) {
        let queue = self.queue.take().unwrap_or_default();
        (self.table.clone(), self.id, queue)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.queue.is_some() {
            self.table.remove(self.id);
        }
    }
}

/// Sorts the datagrams of a connection into its flows, until the connection ends. Those of unknown flows are dropped.
async fn sort_datagrams(connection: Connection, table: Arc<FlowTable>) {
    let mut datagrams = vec![Bytes::new(); DATAGRAM_BATCH];
    while let Ok(count) = connection.read_datagrams(&mut datagrams).await {
        for datagram in &mut datagrams[..count] {
            let Ok((id, payload)) = datagram::decode(std::mem::take(datagram)) else { continue };
            let queue = table.flows().get(&id).cloned();
            if let Some(queue) = queue {
                queue.push(payload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_datagrams_make_room_by_number_and_by_bytes() {
        let queue = Queue::default();
        for number in 0..FLOW_QUEUE_DATAGRAMS + 3 {
            queue.push(Bytes::from(number.to_be_bytes().to_vec()));
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(queue.pop().unwrap(), 3usize.to_be_bytes().to_vec());

        let queue = Queue::default();
        for _ in 0..5 {
            queue.push(Bytes::from(vec![0; FLOW_QUEUE_BYTES / 4]));
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 1);
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 4);
        assert_eq!(queue.waiting.lock().unwrap().bytes, 0);
    }
}
