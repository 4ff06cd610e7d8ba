//! How things end: connections, streams, datagrams, and the attempt to bind. One family each, in the words of floor 3.

use std::net::SocketAddr;

use p2pos_peer_protocol::EndCode;

/// Why no socket could be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP {local} is taken by another program")]
    PortTaken {
        /// The wanted address.
        local: SocketAddr,
    },
    /// Neither IPv4 nor IPv6 can be used.
    #[error("no UDP socket could be opened, neither for IPv4 nor for IPv6")]
    NoFamily,
    /// noq refused the socket.
    #[error("the QUIC endpoint could not start: {0}")]
    Endpoint(#[from] std::io::Error),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The peer closed it and said why.
    #[error("the peer closed the connection with code {}", .0.code)]
    Closed(EndCode),
    /// The peer does not know the connection any more: it was restarted.
    #[error("the peer was restarted")]
    Restarted,
    /// Nothing was heard for longer than the idle timeout.
    #[error("the peer fell silent")]
    TimedOut,
    /// We closed it.
    #[error("the connection was closed on this side")]
    Local,
    /// One side broke the protocol, or could not go on.
    #[error("the connection broke: {0}")]
    Protocol(String),
}

impl From<noq::ConnectionError> for Lost {
    fn from(error: noq::ConnectionError) -> Self {
        use noq::ConnectionError as Error;
        match error {
            Error::ApplicationClosed(close) => {
                Self::Closed(EndCode::from_quic(close.error_code.into_inner()))
            }
            Error::Reset => Self::Restarted,
            Error::TimedOut => Self::TimedOut,
            Error::LocallyClosed => Self::Local,
            Error::ConnectionClosed(_)
            | Error::TransportError(_)
            | Error::VersionMismatch
            | Error::CidsExhausted => Self::Protocol(error.to_string()),
        }
    }
}

/// How a stream ended before its natural end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The peer gave up sending.
    #[error("the peer reset the stream with code {}", .0.code)]
    Reset(EndCode),
    /// The peer does not want more of what we send.
    #[error("the peer stopped the stream with code {}", .0.code)]
    Stopped(EndCode),
    /// The connection under it is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// We used it after we had ended it.
    #[error("the stream had ended on this side")]
    Closed,
}

impl StreamEnd {
    /// The code to tell whoever uses the stream; a lost connection is 404 PATH_LOST.
    #[must_use]
    pub fn code(&self) -> EndCode {
        match self {
            Self::Reset(code) | Self::Stopped(code) => *code,
            Self::Lost(_) => EndCode::PATH_LOST,
            Self::Closed => EndCode::INTERNAL,
        }
    }
}

impl From<noq::WriteError> for StreamEnd {
    fn from(error: noq::WriteError) -> Self {
        match error {
            noq::WriteError::Stopped(code) => Self::Stopped(EndCode::from_quic(code.into_inner())),
            noq::WriteError::ConnectionLost(error) => Self::Lost(error.into()),
            noq::WriteError::ClosedStream | noq::WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<noq::ReadError> for StreamEnd {
    fn from(error: noq::ReadError) -> Self {
        match error {
            noq::ReadError::Reset(code) => Self::Reset(EndCode::from_quic(code.into_inner())),
            noq::ReadError::ConnectionLost(error) => Self::Lost(error.into()),
            noq::ReadError::ClosedStream | noq::ReadError::ZeroRttRejected => Self::Closed,
        }
    }
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendDatagramError {
    /// It does not fit one packet of the path; never fragmented silently.
    #[error("the datagram has {size} bytes, the path takes {max}")]
    TooBig {
        /// Bytes offered.
        size: usize,
        /// Bytes that fit now.
        max: usize,
    },
    /// The flow or its connection has ended.
    #[error("the flow has ended: {0}")]
    Ended(#[from] Lost),
}
