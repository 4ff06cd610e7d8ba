//! The machine's words: what it is told and what it tells.

use bytes::Bytes;

use crate::{
    code::{Code, End},
    message::{Role, StreamId, StreamMessage},
};

/// How one side of the session controls the other's sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// So many bytes per stream to begin with, then what Window frames add.
    Counted(u32),
    /// None: what fits into the socket may be sent.
    Auto,
}

impl Credit {
    pub(super) const fn bytes(self) -> Option<u32> {
        match self {
            Self::Counted(bytes) => Some(bytes),
            Self::Auto => None,
        }
    }
}

/// What was agreed in the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Who we are.
    pub role: Role,
    /// Largest payload of one Data frame, both ways.
    pub data_bytes_max: u32,
    /// Streams, flows and detached streams at once; enforced by the daemon's side.
    pub streams_max: u32,
    /// What we may send.
    pub send: Credit,
    /// What the other side may send.
    pub recv: Credit,
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Bytes in Data frames.
    Stream,
    /// Datagrams.
    Flow,
    /// Bytes on a socket of their own; only its opening and its end are told here.
    Detached,
}

/// Why a half is over, told to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{how}: {end}")]
pub struct StreamEnd {
    /// By whom, and how.
    pub how: How,
    /// Why.
    pub end: End,
}

/// The ways in which a half can be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// The other side reads no more of what we write.
    Stopped,
    /// The other side ended the whole stream.
    Reset,
    /// It never came to be.
    Refused,
    /// We ended it ourselves.
    Local,
    /// The session is over.
    Session,
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the other side reads no more",
            Self::Reset => "the other side ended the stream",
            Self::Refused => "the stream was refused",
            Self::Local => "the stream was ended here",
            Self::Session => "the session is over",
        })
    }
}

impl StreamEnd {
    pub(super) const LOCAL: Self = Self { how: How::Local, end: End::new(Code::CANCELLED) };

    pub(super) const fn stopped(end: End) -> Self {
        Self { how: How::Stopped, end }
    }
}

/// Why a stream cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There are as many as the session allows.
    #[error("{max} streams are open, that is the limit")]
    Limit {
        /// How many.
        max: u32,
    },
    /// The session has used up its numbers.
    #[error("the session has no stream numbers left; connect again")]
    Exhausted,
}

/// What became of an id that the other side opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is open; data may come.
    Admitted,
    /// It is not, there are too many: answer 401 STREAM_LIMIT. Its data will be dropped.
    Full,
}

/// Bytes of a Data frame.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// Somebody's buffer; will be copied.
    Slice(&'a [u8]),
    /// A share of a buffer; large ones are kept as they are.
    Shared(Bytes),
}

impl Payload<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Payload::Slice(bytes) => bytes.len(),
            Payload::Shared(bytes) => bytes.len(),
        }
    }
}

/// The next frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Bytes of a stream; the payload stands in the vector given to [`super::Streams::poll_transmit`].
    Data {
        /// Whose.
        stream: StreamId,
        /// How many.
        bytes: usize,
        /// Whether they are the last.
        fin: bool,
    },
    /// Anything else.
    Message(StreamMessage),
}

/// Whom to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The reader of this stream or flow: there is something to read, or it is over.
    Readable(StreamId),
    /// The writer of this stream: there is room again, or it is over.
    Writable(StreamId),
    /// Everybody who waits for anything about it: it was stopped, reset or closed.
    Changed(StreamId),
}

/// Things that happened and that nobody is told, but `p2pos plugins info` can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that had to go because a queue was full.
    pub datagrams_dropped: u64,
    /// Frames for streams that were already over.
    pub frames_late: u64,
}
