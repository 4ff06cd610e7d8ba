//! One stream's bytes, both ways, between a plugin and a peer, with backpressure from end to end.
//!
//! Outbound (plugin to peer): chunks leave the plugin's queue, QUIC takes them when it has credit from the peer's
//! daemon, and only then does the plugin get its credit back. Inbound (peer to plugin): a batch is read from QUIC, which
//! gives credit to the peer's daemon, only when the plugin took the batch before. So a plugin that stops reading stops
//! the remote plugin within the two windows and one batch, and nobody else. Chunks are reference-counted slices from one
//! socket to the other: no payload is copied here.
//!
//! The task ends when both directions did; `Ended` then tells the plugin the truth (SPEC: StreamClosed).

use bytes::Bytes;
use p2pos_host::{Code, End, Ended, PluginReader, PluginStream, PluginWriter};
use p2pos_node::{RecvHalf, SendEnd, SendHalf, Stopped, StreamEnd};

use super::words::{end_from_peer, end_to_peer};
use crate::vigil::Pulse;

/// Chunks moved at once. QUIC hands out one chunk per packet, so this is 46 KiB at the usual packet size and 286 KiB at
/// the largest: enough to fill a Data frame or a burst of segments. Half would double the wake-ups of a bulk stream,
/// double would only hold more memory per stream.
const BATCH_CHUNKS: usize = 32;

type Batch = [Bytes; BATCH_CHUNKS];

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Every byte was handed over, then the end of the stream.
    Finished,
    /// The plugin reset the stream, or left.
    Plugin(End),
    /// The peer reset or stopped it, or the path was lost.
    Remote(End),
}

/// Carries one stream until it has ended both ways, or until `forbidden` comes: then, for both sides, the path is lost.
/// Either way may be under way already.
pub(super) async fn pump(
    plugin: PluginStream,
    mut outbound: Outbound,
    (mut recv, mut inbound): (RecvHalf, Inbound),
    forbidden: impl Future<Output = ()>,
) {
    let (mut reader, mut writer, closer) = plugin.split();
    let carried = async { tokio::join!(outbound.run(&mut reader), inbound.run(&mut recv, &mut writer)) };
    let carried = tokio::select! {
        biased;
        carried = carried => Some(carried),
        () = forbidden => None,
    };
    let Some((out, back)) = carried else {
        let lost = End::new(Code::PATH_LOST);
        outbound.reset(lost);
        recv.stop(end_to_peer(lost));
        return closer.close(Ended::ResetByRemote(lost));
    };
    // A reset by the remote side outweighs one by the plugin: it is what the plugin does not know yet.
    closer.close(match (out, back) {
        (Direction::Remote(end), _) | (_, Direction::Remote(end)) => Ended::ResetByRemote(end),
        (Direction::Plugin(end), _) | (_, Direction::Plugin(end)) => Ended::ResetByPlugin(end),
        (Direction::Finished, Direction::Finished) => Ended::Finished,
    });
}

/// The way from the plugin to the peer. It can be interrupted and taken up again with the same plugin's reader: that is
/// how bytes travel before the peer has answered.
pub(super) struct Outbound {
    send: SendHalf,
    /// What becomes of the half at the peer.
    stopped: Stopped,
    batch: Batch,
    /// Chunks of the batch, and their bytes, that QUIC has not been seen to take.
    waiting: usize,
    waiting_bytes: usize,
    /// The plugin's end of writing was passed on.
    is_finished: bool,
    ended: Option<Direction>,
    pulse: Pulse,
}

impl Outbound {
    pub(super) fn new(send: SendHalf, pulse: Pulse) -> Self {
        let stopped = send.stopped();
        let batch = [const { Bytes::new() }; BATCH_CHUNKS];
        Self { send, stopped, batch, waiting: 0, waiting_bytes: 0, is_finished: false, ended: None, pulse }
    }

    /// Carries the plugin's bytes to the peer until the direction has ended.
    ///
    /// Cancel-safe: what QUIC has not taken stays in the batch.
    pub(super) async fn run(&mut self, reader: &mut PluginReader) -> Direction {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = loop {
            let step = if self.is_finished {
                self.drain(reader).await
            } else if self.waiting > 0 {
                self.write(reader).await
            } else {
                self.read(reader).await
            };
            if let Some(ended) = step {
                break ended;
            }
        };
        self.ended = Some(ended);
        ended
    }

    /// Gives up: the peer hears `end`.
    pub(super) fn reset(&mut self, end: End) {
        self.send.reset(end_to_peer(end));
    }

    async fn read(&mut self, reader: &mut PluginReader) -> Option<Direction> {
        tokio::select! {
            biased;
            got = reader.read_chunks(&mut self.batch) => match got {
                Ok(Some(count)) => {
                    self.pulse.beat();
                    self.waiting = count;
                    self.waiting_bytes = self.batch[..count].iter().map(Bytes::len).sum();
                }
                Ok(None) => {
                    self.send.finish();
                    self.is_finished = true;
                }
                Err(end) => return Some(self.given_up(end)),
            },
            how = &mut self.stopped => return Some(self.stop(reader, &how)),
        }
        None
    }

    async fn write(&mut self, reader: &mut PluginReader) -> Option<Direction> {
        let written = tokio::select! {
            biased;
            written = self.send.write_chunks(&mut self.batch[..self.waiting]) => written,
            // A peer that gives no credit must not hide from us that the plugin has given up.
            end = reader.lost() => return Some(self.given_up(end)),
        };
        match written {
            Ok(()) => {
                reader.consumed(self.waiting_bytes);
                (self.waiting, self.waiting_bytes) = (0, 0);
                None
            }
            Err(end) => Some(self.cut_off(reader, &end)),
        }
    }

    /// The plugin is done writing: the direction has ended well when the peer's daemon has every byte.
    async fn drain(&mut self, reader: &mut PluginReader) -> Option<Direction> {
        let how = (&mut self.stopped).await;
        Some(match how {
            SendEnd::Delivered => Direction::Finished,
            SendEnd::Stopped(_) | SendEnd::Lost(_) => self.stop(reader, &how),
        })
    }

    fn given_up(&mut self, end: End) -> Direction {
        self.reset(end);
        Direction::Plugin(end)
    }

    fn cut_off(&mut self, reader: &mut PluginReader, end: &StreamEnd) -> Direction {
        let end = end_from_peer(end.code());
        self.reset(end);
        reader.stop(end);
        Direction::Remote(end)
    }

    fn stop(&mut self, reader: &mut PluginReader, how: &SendEnd) -> Direction {
        let end = match how {
            SendEnd::Stopped(code) => end_from_peer(*code),
            SendEnd::Lost(_) => End::new(Code::PATH_LOST),
            SendEnd::Delivered => return Direction::Finished,
        };
        self.reset(end);
        reader.stop(end);
        Direction::Remote(end)
    }
}

/// The way from the peer to the plugin. It can be interrupted and taken up again with the same two ends: that is how bytes
/// travel before the plugin has answered.
pub(super) struct Inbound {
    batch: Batch,
    /// Chunks of the batch that the plugin has not been seen to take.
    waiting: usize,
    ended: Option<Direction>,
    pulse: Pulse,
}

impl Inbound {
    pub(super) fn new(pulse: Pulse) -> Self {
        Self { batch: [const { Bytes::new() }; BATCH_CHUNKS], waiting: 0, ended: None, pulse }
    }

    /// Carries the peer's bytes to the plugin until the direction has ended.
    ///
    /// Cancel-safe: what the plugin has not taken stays in the batch.
    pub(super) async fn run(&mut self, recv: &mut RecvHalf, writer: &mut PluginWriter) -> Direction {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = loop {
            if let Some(ended) = self.step(recv, writer).await {
                break ended;
            }
        };
        self.ended = Some(ended);
        ended
    }

    async fn step(&mut self, recv: &mut RecvHalf, writer: &mut PluginWriter) -> Option<Direction> {
        if self.waiting == 0 {
            self.waiting = tokio::select! {
                biased;
                got = recv.read_chunks(&mut self.batch) => match got {
                    Ok(Some(count)) => count,
                    Ok(None) => return Some(match writer.finish().await {
                        Ok(()) => Direction::Finished,
                        Err(end) => Direction::Plugin(end),
                    }),
                    Err(end) => {
                        let end = end_from_peer(end.code());
                        writer.reset(end);
                        return Some(Direction::Remote(end));
                    }
                },
                end = writer.stopped() => return Some(stop_peer(recv, end)),
            };
            self.pulse.beat();
        }
        let written = writer.write_chunks(&mut self.batch[..self.waiting]).await;
        self.waiting = 0;
        written.err().map(|end| stop_peer(recv, end))
    }
}

fn stop_peer(recv: &mut RecvHalf, end: End) -> Direction {
    recv.stop(end_to_peer(end));
    Direction::Plugin(end)
}
