//! The plugin's end of a stream, as the bridge sees it. Owns the one set of calls behind which three ways of carrying
//! the bytes hide: Data frames in the plugin's session, a socket of the stream's own, the pipes of a stream command.
//!
//! Credit is end to end: a writer waits until the plugin has room, and what a reader hands out counts as consumed only
//! when the bridge says so ([`PluginReader::consumed`]). For sockets and pipes the kernel's buffers play that part.
//! Refuses to know: QUIC, PeerIds, who opened the stream.

mod raw;
mod vitality;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use p2pos_plugin_protocol::{
    code::{Code, End},
    driver::{Flow, RecvHalf, SendHalf},
    streams::StreamEnd,
};

pub(crate) use self::raw::{Closed, Fate, RawEnd, RawIo};
use self::raw::{RawReader, RawWriter};
use crate::directory::Slot;

/// What a plugin gave for an open or an offer.
#[derive(Debug)]
pub enum PluginEnd {
    /// For [`p2pos_plugin_protocol::message::Kind::Stream`].
    Stream(PluginStream),
    /// For [`p2pos_plugin_protocol::message::Kind::Datagram`].
    Flow(PluginFlow),
}

/// How a stream ended, for the plugin to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both directions by fin, all bytes handed over.
    Finished,
    /// The plugin itself ended it.
    ResetByPlugin(End),
    /// The other plugin, its daemon or the network ended it.
    ResetByRemote(End),
}

/// The plugin's end of a stream.
#[derive(Debug)]
pub struct PluginStream {
    reader: PluginReader,
    writer: PluginWriter,
    closer: PluginCloser,
}

impl PluginStream {
    pub(crate) fn mux(recv: RecvHalf, send: SendHalf) -> Self {
        Self {
            reader: PluginReader::mux(recv),
            writer: PluginWriter(Writer::Mux(send)),
            closer: PluginCloser { raw: None, slot: None },
        }
    }

    pub(crate) fn raw(end: RawEnd) -> Self {
        let (reader, writer, closing) = end.split();
        Self {
            reader: PluginReader(Reader::Raw(reader)),
            writer: PluginWriter(Writer::Raw(writer)),
            closer: PluginCloser { raw: Some(closing), slot: None },
        }
    }

    pub(crate) fn from_parts(reader: PluginReader, send: SendHalf) -> Self {
        Self {
            reader,
            writer: PluginWriter(Writer::Mux(send)),
            closer: PluginCloser { raw: None, slot: None },
        }
    }

    /// Keeps a place in the registration's count until the stream is closed.
    pub(crate) fn hold(mut self, slot: Slot) -> Self {
        self.closer.slot = Some(slot);
        self
    }

    /// The writing direction, before it is split off.
    pub(crate) fn writer(&mut self) -> &mut PluginWriter {
        &mut self.writer
    }

    /// Gives the two directions to two owners, and the last word to a third.
    #[must_use]
    pub fn split(self) -> (PluginReader, PluginWriter, PluginCloser) {
        (self.reader, self.writer, self.closer)
    }
}

/// What the plugin writes.
#[derive(Debug)]
pub struct PluginReader(Reader);

#[derive(Debug)]
enum Reader {
    Mux(RecvHalf),
    Raw(RawReader),
}

impl PluginReader {
    pub(crate) fn mux(mut recv: RecvHalf) -> Self {
        recv.set_manual_credit();
        Self(Reader::Mux(recv))
    }

    /// Reads at least one chunk into the front of `chunks` and tells how many; `None` when the plugin has finished.
    /// Cancel-safe.
    ///
    /// # Errors
    /// How the plugin's side ended otherwise: its reset, or 403 when it is gone.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, End> {
        match &mut self.0 {
            Reader::Mux(recv) => recv.read_chunks(chunks).await.map_err(|ended: StreamEnd| ended.end),
            Reader::Raw(raw) => raw.read_chunks(chunks).await,
        }
    }

    /// Resolves when the plugin has reset the stream or is gone, also while what it wrote before waits unread. Cancel-safe.
    pub async fn lost(&mut self) -> End {
        match &mut self.0 {
            Reader::Mux(recv) => recv.lost().await.end,
            Reader::Raw(raw) => raw.lost().await,
        }
    }

    /// Gives the plugin credit for bytes that are out of our hands.
    pub fn consumed(&mut self, bytes: usize) {
        match &mut self.0 {
            Reader::Mux(recv) => recv.consumed(bytes),
            Reader::Raw(_) => {}
        }
    }

    /// Tells the plugin that nobody reads any more.
    pub fn stop(&mut self, end: End) {
        match &mut self.0 {
            Reader::Mux(recv) => recv.stop(end),
            Reader::Raw(raw) => raw.stop(),
        }
    }
}

/// What the plugin reads.
#[derive(Debug)]
pub struct PluginWriter(Writer);

#[derive(Debug)]
enum Writer {
    Mux(SendHalf),
    Raw(RawWriter),
}

impl PluginWriter {
    /// Writes all chunks, waiting for the plugin's credit. What was taken is gone from `chunks`, so a call that was
    /// dropped half-way can be repeated with the same slice.
    ///
    /// # Errors
    /// The plugin reads no more: its stop or reset, or 403 when it is gone.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), End> {
        match &mut self.0 {
            Writer::Mux(send) => {
                let mut first = 0;
                loop {
                    while chunks.get(first).is_some_and(Bytes::is_empty) {
                        first += 1;
                    }
                    if first == chunks.len() {
                        return Ok(());
                    }
                    send.write_chunks(&mut chunks[first..]).await.map_err(|ended: StreamEnd| ended.end)?;
                }
            }
            Writer::Raw(raw) => raw.write_chunks(chunks).await,
        }
    }

    /// Tells the plugin that no more comes.
    ///
    /// # Errors
    /// As [`PluginWriter::write_chunks`].
    pub async fn finish(&mut self) -> Result<(), End> {
        match &mut self.0 {
            Writer::Mux(send) => send.finish().map_err(|ended: StreamEnd| ended.end),
            Writer::Raw(raw) => raw.finish().await,
        }
    }

    /// Ends the stream for the plugin at once, both ways.
    pub fn reset(&mut self, end: End) {
        match &mut self.0 {
            Writer::Mux(send) => send.reset(end),
            Writer::Raw(raw) => raw.drop_socket(),
        }
    }

    /// Resolves when the plugin reads no more. Cancel-safe.
    pub async fn stopped(&mut self) -> End {
        match &mut self.0 {
            Writer::Mux(send) => send.stopped().await.end,
            Writer::Raw(raw) => raw.stopped().await,
        }
    }
}

/// The last word about a stream. Dropped without being used it says 404 PATH_LOST.
#[derive(Debug)]
pub struct PluginCloser {
    raw: Option<raw::Closing>,
    slot: Option<Slot>,
}

impl PluginCloser {
    /// Tells the plugin how the stream ended, and frees its place. For streams in Data frames the session has told it
    /// already.
    pub fn close(mut self, ended: Ended) {
        self.slot = None;
        if let Some(raw) = self.raw.take() {
            raw.close(ended);
        }
    }
}

/// The plugin's end of a datagram flow.
#[derive(Debug)]
pub struct PluginFlow {
    flow: Arc<Flow>,
    slot: Option<Slot>,
}

impl PluginFlow {
    pub(crate) fn new(flow: Flow) -> Self {
        Self { flow: Arc::new(flow), slot: None }
    }

    pub(crate) fn hold(mut self, slot: Slot) -> Self {
        self.slot = Some(slot);
        self
    }

    /// Gives the two directions to two owners, and the last word to a third.
    #[must_use]
    pub fn split(self) -> (PluginFlowReader, PluginFlowWriter, PluginFlowCloser) {
        let Self { flow, slot } = self;
        (
            PluginFlowReader { flow: flow.clone() },
            PluginFlowWriter { flow: flow.clone() },
            PluginFlowCloser { flow: Some(flow), slot },
        )
    }
}

/// Datagrams from the plugin.
#[derive(Debug)]
pub struct PluginFlowReader {
    flow: Arc<Flow>,
}

impl PluginFlowReader {
    /// The next datagram of the plugin. Cancel-safe.
    ///
    /// # Errors
    /// How the flow ended.
    pub async fn recv(&self) -> Result<Bytes, End> {
        self.flow.recv().await.map_err(|ended: StreamEnd| ended.end)
    }
}

/// Datagrams to the plugin.
#[derive(Clone, Debug)]
pub struct PluginFlowWriter {
    flow: Arc<Flow>,
}

impl PluginFlowWriter {
    /// Hands a datagram to the plugin. Never waits: over 256 KiB the oldest go, and the session counts them.
    ///
    /// # Errors
    /// How the flow ended.
    pub fn send(&self, datagram: Bytes) -> Result<(), End> {
        self.flow.send(datagram).map_err(|ended: StreamEnd| ended.end)
    }

    /// Tells the plugin that a datagram of its own was dropped because the path carries only `max` bytes (210 TOO_BIG).
    pub fn too_big(&self, size: usize, max: usize) {
        self.flow
            .complain(Code::TOO_BIG, format!("a datagram has {size} bytes, the path carries {max} bytes"));
    }
}

/// The last word about a flow. Dropped without being used it says 404 PATH_LOST.
pub struct PluginFlowCloser {
    flow: Option<Arc<Flow>>,
    slot: Option<Slot>,
}

impl PluginFlowCloser {
    /// Tells the plugin how the flow ended, and frees its place.
    pub fn close(mut self, ended: Ended) {
        let end = match ended {
            Ended::Finished => End::app(0),
            Ended::ResetByPlugin(end) | Ended::ResetByRemote(end) => end,
        };
        self.slot = None;
        if let Some(flow) = self.flow.take() {
            flow.reset(end);
        }
    }
}

impl Drop for PluginFlowCloser {
    fn drop(&mut self) {
        if let Some(flow) = self.flow.take() {
            flow.reset(End::new(Code::PATH_LOST));
        }
    }
}

impl fmt::Debug for PluginFlowCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginFlowCloser").field("flow", &self.flow).finish_non_exhaustive()
    }
}
