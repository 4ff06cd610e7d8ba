//! `/p2pos/measure/1`: what one daemon asks of another to learn about its own NAT.
//!
//! One question and one answer; what was promised then happens in small packets beside QUIC (`traversal::probe`). The asked
//! side sends nothing but to addresses that the asker proved to be its own: where its pings come from, or the address of the
//! connection.
//!
//! Refuses to know: how often somebody may ask, and streams.

use crate::{
    MessageError,
    pb::peer_v1 as pb,
    wire::{bad, small},
};

/// The ProtocolName of the stream.
pub const MEASURE_PROTOCOL: &str = "/p2pos/measure/1";

/// Tokens of one measurement: each is a throw-away socket of the asker.
pub const MEASURE_TOKENS_MAX: u8 = 8;

/// What the asker wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasureQuestion {
    /// "Remember from where these tokens ping you, and knock there when I ask."
    Lifetime {
        /// The tokens are this number and those after it.
        first_token: u64,
        /// How many: 1 to [`MEASURE_TOKENS_MAX`].
        count: u8,
    },
    /// "Knock at this port of the address that you see me at, from a socket that I have never sent to."
    DialBack {
        /// In the knock.
        token: u64,
        /// Never 0.
        port: u16,
    },
    /// Something of a newer version: refuse it.
    Unknown,
}

/// Whether it will be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasureAnswer {
    /// It will.
    pub is_granted: bool,
}

impl TryFrom<pb::MeasureQuestion> for MeasureQuestion {
    type Error = MessageError;

    fn try_from(question: pb::MeasureQuestion) -> Result<Self, MessageError> {
        use pb::measure_question::Body;
        Ok(match question.body {
            None => Self::Unknown,
            Some(Body::Lifetime(lifetime)) => {
                let count = u8::try_from(lifetime.count).ok();
                let count = count.filter(|count| (1..=MEASURE_TOKENS_MAX).contains(count));
                Self::Lifetime {
                    first_token: lifetime.first_token,
                    count: count.ok_or_else(|| bad("lifetime.count"))?,
                }
            }
            Some(Body::DialBack(dial_back)) => {
                let port = Some(small(dial_back.port, "dial_back.port")?).filter(|port| *port != 0);
                Self::DialBack { token: dial_back.token, port: port.ok_or_else(|| bad("dial_back.port"))? }
            }
        })
    }
}

impl From<&MeasureQuestion> for pb::MeasureQuestion {
    fn from(question: &MeasureQuestion) -> Self {
        use pb::measure_question::Body;
        let body = match *question {
            MeasureQuestion::Lifetime { first_token, count } => {
                Some(Body::Lifetime(pb::MeasureLifetime { first_token, count: count.into() }))
            }
            MeasureQuestion::DialBack { token, port } => {
                Some(Body::DialBack(pb::MeasureDialBack { token, port: port.into() }))
            }
            MeasureQuestion::Unknown => None,
        };
        Self { body }
    }
}
