//! `/p2pos/relay/1`: what a user and a relay say to each other: leases, flows, refusals, the end of both.
//!
//! The user opens one stream to each relay that it uses and keeps it as long as it has anything there. A request bears
//! a number that the user counts up from 1, its answer bears the same. Secrets of a flow travel here, inside the
//! encrypted connection, and are not printed.
//!
//! Refuses to know: what a relay allows, and how packets pass (`relay`, whose types these mirror; its RELAY.md is the
//! specification of both).

use std::{net::SocketAddr, num::NonZeroU32};

use bytes::Bytes;
use p2pos_identity::{BadSignature, PeerId, SecretKey};

use crate::{
    Hidden, MessageError, RETRY_AFTER_MS_MAX,
    pb::peer_v1 as pb,
    wire::{address, address_bytes, bad, fixed, peer, peer_bytes, small},
};

/// The ProtocolName of the stream.
pub const RELAY_PROTOCOL: &str = "/p2pos/relay/1";

/// The longest lease that is believed, a day in seconds: more is taken as this much, so that a relay cannot make us
/// forget to renew.
pub const LEASE_S_MAX: u32 = 24 * 3600;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayMessage {
    /// A user asks, or a relay answers.
    Numbered {
        /// The request's number; never 0.
        request: NonZeroU32,
        /// What is asked or answered.
        body: RelayExchange,
    },
    /// What nobody asked for.
    Notice(RelayNotice),
    /// Something of a newer version: pass it over, and answer a request with nothing.
    Unknown,
}

/// Requests and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayExchange {
    /// User: a lease, please, or more time.
    Reserve {
        /// What callers must show; chosen by the user.
        token: Hidden<16>,
        /// The work that the relay asked for.
        stamp: Option<RelayStamp>,
    },
    /// Relay: here it is.
    Lease(RelayLease),
    /// User: a flow to somebody who has a lease here.
    Connect {
        /// Who.
        peer: PeerId,
        /// The token of that lease.
        token: Hidden<16>,
    },
    /// Relay: your half of it.
    Flow(RelayFlow),
    /// Relay: no.
    Refuse(RelayRefusal),
}

/// Messages without a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayNotice {
    /// Relay: somebody calls.
    Incoming {
        /// Who, as proven to the relay; the connection through the flow proves it again.
        from: PeerId,
        /// Your half of the flow.
        flow: RelayFlow,
    },
    /// User: I do not want this flow, or no longer.
    HangUp {
        /// The user's number of the flow.
        vni: NonZeroU32,
    },
    /// Relay: a flow is no more.
    Ended {
        /// Your number of the flow.
        vni: NonZeroU32,
        /// Why.
        why: RelayEnding,
    },
    /// Relay: go elsewhere; forwarding ends after the grace.
    Drain {
        /// Milliseconds, at most an hour.
        grace_ms: u32,
    },
    /// Relay: what you may send has changed.
    Limits(RelayLimits),
    /// What a relay carried for the signer.
    Receipt(Box<Receipt>),
}

/// Work done for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayStamp {
    /// What was to be hashed.
    pub challenge: [u8; 8],
    /// What was found.
    pub nonce: u64,
}

/// What a user may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// Sustained, for each flow and direction.
    pub flow_bytes_per_s: u64,
    /// At once, after a rest.
    pub flow_burst_bytes: u64,
    /// Sustained, for all flows of the user.
    pub source_bytes_per_s: u64,
    /// What is left of today; `None` is without end.
    pub day_bytes_left: Option<u64>,
    /// Flows at the same time.
    pub flows_max: u16,
    /// Only signalling passes.
    pub is_introduction_only: bool,
}

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLease {
    /// Seconds from now, at most [`LEASE_S_MAX`].
    pub lasts_s: u32,
    /// What it allows.
    pub limits: RelayLimits,
    /// The user's address as the relay sees it.
    pub seen: SocketAddr,
}

/// One side's half of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayFlow {
    /// The side's number of the flow.
    pub vni: NonZeroU32,
    /// Signs the side's frames.
    pub key: Hidden<16>,
    /// Marks the relay's frames.
    pub accept: Hidden<8>,
    /// What it may carry.
    pub limits: RelayLimits,
}

/// Why a relay says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayRefusal {
    /// The owner does not relay for this user.
    NotServed,
    /// The connection to the relay runs over a relay.
    OverARelay,
    /// The user's address is none that a relay sends to.
    Address,
    /// No place is left.
    Full {
        /// When to ask again, in milliseconds, at most an hour.
        retry_after_ms: u32,
    },
    /// As many flows as one user may have.
    TooManyFlows,
    /// Work is asked for.
    StampNeeded {
        /// What to hash.
        challenge: [u8; 8],
        /// How many leading zero bits; the asker decides whether that is too many.
        bits: u8,
    },
    /// Nobody of that name can be called here.
    NoLease,
    /// The relay is going down.
    Draining,
    /// No such flow.
    NoFlow,
    /// A reason of a newer version.
    Other,
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEnding {
    /// The other side did not want it.
    HungUp,
    /// Nothing passed for too long.
    Idle,
    /// The relay went down.
    Drained,
    /// The caller made a new one.
    Replaced,
    /// One of the two is no longer served.
    NotServed,
    /// A reason of a newer version.
    Other,
}

/// "This relay carried so many bytes for me on this day."
///
/// It is worth something only to who trusts the signer: a relay can make up users, and they sign what it wants. So a
/// receipt counts if we signed it, or one of our contacts did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    relay: PeerId,
    user: PeerId,
    bytes: u64,
    day: u32,
    signature: [u8; 64],
}

impl Receipt {
    /// Signs a receipt for a relay. `day` counts from 1970-01-01 UTC.
    #[must_use]
    pub fn sign(user: &SecretKey, relay: PeerId, bytes: u64, day: u32) -> Self {
        let mut receipt = Self { relay, user: user.peer_id(), bytes, day, signature: [0; 64] };
        receipt.signature = user.sign(&receipt.signed_bytes());
        receipt
    }

    /// Checks the signature. Whether the signer means anything to us is another question.
    ///
    /// # Errors
    /// [`BadSignature`] if the user did not sign it.
    pub fn verify(&self) -> Result<(), BadSignature> {
        self.user.verify(&self.signed_bytes(), &self.signature)
    }

    /// Returns the relay that carried.
    #[must_use]
    pub fn relay(&self) -> PeerId {
        self.relay
    }

    /// Returns who signed.
    #[must_use]
    pub fn user(&self) -> PeerId {
        self.user
    }

    /// Returns the bytes carried.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the day, counted from 1970-01-01 UTC.
    #[must_use]
    pub fn day(&self) -> u32 {
        self.day
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let (relay, user) = (self.relay.as_bytes(), self.user.as_bytes());
        [b"p2pos relay receipt 1", &relay[..], user, &self.bytes.to_be_bytes(), &self.day.to_be_bytes()]
            .concat()
    }
}

impl TryFrom<pb::Relay> for RelayMessage {
    type Error = MessageError;

    fn try_from(message: pb::Relay) -> Result<Self, MessageError> {
        use pb::relay::Body;
        let Some(body) = message.body else { return Ok(Self::Unknown) };
        let request = NonZeroU32::new(message.request);
        let numbered = |body| Ok(Self::Numbered { request: request.ok_or_else(|| bad("request"))?, body });
        match body {
            Body::Reserve(reserve) => numbered(RelayExchange::Reserve {
                token: Hidden(fixed(&reserve.token, "reserve.token")?),
                stamp: reserve.stamp.map(stamp).transpose()?,
            }),
            Body::Lease(body) => numbered(RelayExchange::Lease(lease(body)?)),
            Body::Connect(connect) => numbered(RelayExchange::Connect {
                peer: peer(&connect.peer, "connect.peer")?,
                token: Hidden(fixed(&connect.token, "connect.token")?),
            }),
            Body::Flow(body) => numbered(RelayExchange::Flow(flow(body)?)),
            Body::Refuse(body) => numbered(RelayExchange::Refuse(refusal(&body)?)),
            Body::Incoming(incoming) => Ok(Self::Notice(RelayNotice::Incoming {
                from: peer(&incoming.from, "incoming.from")?,
                flow: flow(incoming.flow.ok_or_else(|| bad("incoming.flow"))?)?,
            })),
            Body::HangUp(hang_up) => Ok(Self::Notice(RelayNotice::HangUp { vni: vni(hang_up.vni)? })),
            Body::Ended(ended) => {
                Ok(Self::Notice(RelayNotice::Ended { vni: vni(ended.vni)?, why: ending(ended.why) }))
            }
            Body::Drain(drain) => {
                Ok(Self::Notice(RelayNotice::Drain { grace_ms: drain.grace_ms.min(RETRY_AFTER_MS_MAX) }))
            }
            Body::Limits(body) => Ok(Self::Notice(RelayNotice::Limits(limits(Some(body))?))),
            Body::Receipt(body) => Ok(Self::Notice(RelayNotice::Receipt(Box::new(receipt(&body)?)))),
        }
    }
}

impl From<&RelayMessage> for pb::Relay {
    fn from(message: &RelayMessage) -> Self {
        match message {
            RelayMessage::Numbered { request, body } => {
                Self { request: request.get(), body: Some(pb_exchange(body)) }
            }
            RelayMessage::Notice(notice) => Self { request: 0, body: Some(pb_notice(notice)) },
            RelayMessage::Unknown => Self { request: 0, body: None },
        }
    }
}

fn pb_exchange(body: &RelayExchange) -> pb::relay::Body {
    use pb::relay::Body;
    match body {
        RelayExchange::Reserve { token, stamp } => {
            let stamp = stamp.map(|stamp| pb::Stamp {
                challenge: Bytes::copy_from_slice(&stamp.challenge),
                nonce: stamp.nonce,
            });
            Body::Reserve(pb::Reserve { stamp, token: token.to_bytes() })
        }
        RelayExchange::Lease(lease) => Body::Lease(pb::Lease {
            lasts_s: lease.lasts_s,
            limits: Some(pb_limits(&lease.limits)),
            seen: address_bytes(lease.seen),
        }),
        RelayExchange::Connect { peer, token } => {
            Body::Connect(pb::Connect { peer: peer_bytes(*peer), token: token.to_bytes() })
        }
        RelayExchange::Flow(flow) => Body::Flow(pb_flow(flow)),
        RelayExchange::Refuse(refusal) => Body::Refuse(pb_refusal(refusal)),
    }
}

fn pb_notice(notice: &RelayNotice) -> pb::relay::Body {
    use pb::relay::Body;
    match notice {
        RelayNotice::Incoming { from, flow } => {
            Body::Incoming(pb::Incoming { from: peer_bytes(*from), flow: Some(pb_flow(flow)) })
        }
        RelayNotice::HangUp { vni } => Body::HangUp(pb::HangUp { vni: vni.get() }),
        RelayNotice::Ended { vni, why } => {
            Body::Ended(pb::Ended { vni: vni.get(), why: pb_ending(*why).into() })
        }
        RelayNotice::Drain { grace_ms } => Body::Drain(pb::Drain { grace_ms: *grace_ms }),
        RelayNotice::Limits(limits) => Body::Limits(pb_limits(limits)),
        RelayNotice::Receipt(receipt) => Body::Receipt(pb::Receipt {
            relay: peer_bytes(receipt.relay),
            user: peer_bytes(receipt.user),
            bytes: receipt.bytes,
            day: receipt.day,
            signature: Bytes::copy_from_slice(&receipt.signature),
        }),
    }
}

fn stamp(stamp: pb::Stamp) -> Result<RelayStamp, MessageError> {
    Ok(RelayStamp { challenge: fixed(&stamp.challenge, "stamp.challenge")?, nonce: stamp.nonce })
}

fn lease(lease: pb::Lease) -> Result<RelayLease, MessageError> {
    Ok(RelayLease {
        lasts_s: lease.lasts_s.min(LEASE_S_MAX),
        limits: limits(lease.limits)?,
        seen: address(&lease.seen, "lease.seen")?,
    })
}

fn flow(flow: pb::Flow) -> Result<RelayFlow, MessageError> {
    Ok(RelayFlow {
        vni: vni(flow.vni)?,
        key: Hidden(fixed(&flow.key, "flow.key")?),
        accept: Hidden(fixed(&flow.accept, "flow.accept")?),
        limits: limits(flow.limits)?,
    })
}

fn pb_flow(flow: &RelayFlow) -> pb::Flow {
    pb::Flow {
        vni: flow.vni.get(),
        key: flow.key.to_bytes(),
        accept: flow.accept.to_bytes(),
        limits: Some(pb_limits(&flow.limits)),
    }
}

fn limits(limits: Option<pb::Limits>) -> Result<RelayLimits, MessageError> {
    let limits = limits.ok_or_else(|| bad("limits"))?;
    Ok(RelayLimits {
        flow_bytes_per_s: limits.flow_bytes_per_s,
        flow_burst_bytes: limits.flow_burst_bytes,
        source_bytes_per_s: limits.source_bytes_per_s,
        day_bytes_left: limits.day_bytes_left_plus_1.checked_sub(1),
        flows_max: small(limits.flows_max, "limits.flows_max")?,
        is_introduction_only: limits.is_introduction_only,
    })
}

fn pb_limits(limits: &RelayLimits) -> pb::Limits {
    pb::Limits {
        flow_bytes_per_s: limits.flow_bytes_per_s,
        flow_burst_bytes: limits.flow_burst_bytes,
        source_bytes_per_s: limits.source_bytes_per_s,
        day_bytes_left_plus_1: limits.day_bytes_left.map_or(0, |left| left.saturating_add(1)),
        flows_max: limits.flows_max.into(),
        is_introduction_only: limits.is_introduction_only,
    }
}

fn refusal(refusal: &pb::Refuse) -> Result<RelayRefusal, MessageError> {
    Ok(match pb::RefuseReason::try_from(refusal.reason) {
        Ok(pb::RefuseReason::NotServed) => RelayRefusal::NotServed,
        Ok(pb::RefuseReason::OverARelay) => RelayRefusal::OverARelay,
        Ok(pb::RefuseReason::Address) => RelayRefusal::Address,
        Ok(pb::RefuseReason::Full) => {
            RelayRefusal::Full { retry_after_ms: refusal.retry_after_ms.min(RETRY_AFTER_MS_MAX) }
        }
        Ok(pb::RefuseReason::TooManyFlows) => RelayRefusal::TooManyFlows,
        Ok(pb::RefuseReason::StampNeeded) => RelayRefusal::StampNeeded {
            challenge: fixed(&refusal.challenge, "refuse.challenge")?,
            bits: u8::try_from(refusal.bits).map_err(|_| bad("refuse.bits"))?,
        },
        Ok(pb::RefuseReason::NoLease) => RelayRefusal::NoLease,
        Ok(pb::RefuseReason::Draining) => RelayRefusal::Draining,
        Ok(pb::RefuseReason::NoFlow) => RelayRefusal::NoFlow,
        Ok(pb::RefuseReason::RefuseUnspecified) | Err(_) => RelayRefusal::Other,
    })
}

fn pb_refusal(refusal: &RelayRefusal) -> pb::Refuse {
    let of = |reason: pb::RefuseReason| pb::Refuse { reason: reason.into(), ..pb::Refuse::default() };
    match *refusal {
        RelayRefusal::NotServed => of(pb::RefuseReason::NotServed),
        RelayRefusal::OverARelay => of(pb::RefuseReason::OverARelay),
        RelayRefusal::Address => of(pb::RefuseReason::Address),
        RelayRefusal::Full { retry_after_ms } => pb::Refuse { retry_after_ms, ..of(pb::RefuseReason::Full) },
        RelayRefusal::TooManyFlows => of(pb::RefuseReason::TooManyFlows),
        RelayRefusal::StampNeeded { challenge, bits } => pb::Refuse {
            challenge: Bytes::copy_from_slice(&challenge),
            bits: bits.into(),
            ..of(pb::RefuseReason::StampNeeded)
        },
        RelayRefusal::NoLease => of(pb::RefuseReason::NoLease),
        RelayRefusal::Draining => of(pb::RefuseReason::Draining),
        RelayRefusal::NoFlow => of(pb::RefuseReason::NoFlow),
        RelayRefusal::Other => of(pb::RefuseReason::RefuseUnspecified),
    }
}

fn ending(number: i32) -> RelayEnding {
    match pb::EndReason::try_from(number) {
        Ok(pb::EndReason::HungUp) => RelayEnding::HungUp,
        Ok(pb::EndReason::Idle) => RelayEnding::Idle,
        Ok(pb::EndReason::Drained) => RelayEnding::Drained,
        Ok(pb::EndReason::Replaced) => RelayEnding::Replaced,
        Ok(pb::EndReason::NoLongerServed) => RelayEnding::NotServed,
        Ok(pb::EndReason::EndUnspecified) | Err(_) => RelayEnding::Other,
    }
}

fn pb_ending(ending: RelayEnding) -> pb::EndReason {
    match ending {
        RelayEnding::HungUp => pb::EndReason::HungUp,
        RelayEnding::Idle => pb::EndReason::Idle,
        RelayEnding::Drained => pb::EndReason::Drained,
        RelayEnding::Replaced => pb::EndReason::Replaced,
        RelayEnding::NotServed => pb::EndReason::NoLongerServed,
        RelayEnding::Other => pb::EndReason::EndUnspecified,
    }
}

fn receipt(receipt: &pb::Receipt) -> Result<Receipt, MessageError> {
    Ok(Receipt {
        relay: peer(&receipt.relay, "receipt.relay")?,
        user: peer(&receipt.user, "receipt.user")?,
        bytes: receipt.bytes,
        day: receipt.day,
        signature: fixed(&receipt.signature, "receipt.signature")?,
    })
}

fn vni(number: u32) -> Result<NonZeroU32, MessageError> {
    NonZeroU32::new(number).ok_or_else(|| bad("vni"))
}
