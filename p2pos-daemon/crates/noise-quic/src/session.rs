//! The session machine: which bytes may come when, which go out, and when keys change hands with noq.
//!
//! ```text
//! initiator                                       responder
//!   SendFirst       -> message 1                    ReadFirst
//!   ReadReply       <- message 2                    SendReply        -> message 2, Handshake keys
//!   HandshakeKeys   Handshake keys                  OneRttKeys       -> confirmation, 1-RTT keys
//!   ReadConfirmation<- confirmation                 ReadConfirmation <- confirmation
//!   OneRttKeys      -> confirmation, 1-RTT keys     Established
//!   Established
//! ```
//!
//! noq reads a step's input with `read_handshake` and then drains `write_handshake`. The order is TLS's, on purpose:
//! noq's connection machine was built and tested with it, and it establishes a connection only upon CRYPTO bytes in
//! the Handshake space, which is why the confirmations exist. They also end doubt: message 1 alone may be a replay or
//! a forgery (Noise spec s7.7), so before the confirmation a session names no peer and raises no event.
//!
//! Bytes out of turn, wrong or too many fail the session for good; all failures look alike to the peer (`error`).

use std::{any::Any, mem, sync::Arc};

use noq_proto::{
    ConnectionId, Side, TransportError,
    crypto::{ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session},
    transport_parameters::TransportParameters,
};
use subtle::ConstantTimeEq;

use crate::{
    error::HandshakeFailure,
    handshake::{self, Agreed, Initiator, LENGTH_BYTES, MESSAGE_BYTES_MAX, Parties},
    schedule::{self, SECRET_BYTES, Secret},
};

/// One handshake and what it left behind.
pub(crate) struct NoiseSession {
    parties: Arc<Parties>,
    side: Side,
    step: Step,
    /// A message of which some bytes are still missing. At most one message long.
    partial: Vec<u8>,
    agreed: Option<Agreed>,
}

/// Where a session stands; the picture above has the order.
enum Step {
    SendFirst { noise: Initiator, message: Vec<u8> },
    ReadReply { noise: Initiator },
    ReadFirst { own_params: Box<TransportParameters> },
    SendReply { message: Vec<u8> },
    HandshakeKeys,
    OneRttKeys,
    ReadConfirmation,
    Established,
    Failed,
}

impl NoiseSession {
    /// Starts a call, with message 1 ready to be sent.
    ///
    /// # Errors
    /// [`HandshakeFailure::Local`] if this side cannot make it.
    pub(crate) fn initiate(
        parties: Arc<Parties>,
        params: &TransportParameters,
    ) -> Result<Self, HandshakeFailure> {
        let (noise, message) = Initiator::start(&parties, params)?;
        Ok(Self::at(Step::SendFirst { noise, message }, parties, Side::Client))
    }

    /// Waits for a call. Costs nothing until message 1 is there in whole.
    pub(crate) fn answer(parties: Arc<Parties>, params: &TransportParameters) -> Self {
        Self::at(Step::ReadFirst { own_params: Box::new(*params) }, parties, Side::Server)
    }

    fn at(step: Step, parties: Arc<Parties>, side: Side) -> Self {
        Self { parties, side, step, partial: Vec::new(), agreed: None }
    }

    fn read(&mut self, input: &[u8]) -> Result<(), HandshakeFailure> {
        match mem::replace(&mut self.step, Step::Failed) {
            Step::ReadFirst { own_params } => {
                self.step = match self.take_message(input)? {
                    None => Step::ReadFirst { own_params },
                    Some(first) => {
                        let (message, agreed) = handshake::respond(&self.parties, &own_params, &first)?;
                        self.agreed = Some(agreed);
                        Step::SendReply { message }
                    }
                };
            }
            Step::ReadReply { noise } => {
                self.step = match self.take_message(input)? {
                    None => Step::ReadReply { noise },
                    Some(reply) => {
                        self.agreed = Some(noise.finish(&self.parties, &reply)?);
                        Step::HandshakeKeys
                    }
                };
            }
            Step::ReadConfirmation => {
                self.step = if self.take_confirmation(input)? {
                    match self.side {
                        Side::Client => Step::OneRttKeys,
                        Side::Server => Step::Established,
                    }
                } else {
                    Step::ReadConfirmation
                };
            }
            Step::SendFirst { .. }
            | Step::SendReply { .. }
            | Step::HandshakeKeys
            | Step::OneRttKeys
            | Step::Established
            | Step::Failed => return Err(HandshakeFailure::OutOfTurn),
        }
        Ok(())
    }

    /// Adds bytes to the current message; returns it once it is whole. CRYPTO frames cut messages anywhere.
    fn take_message(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, HandshakeFailure> {
        if self.partial.len() + input.len() > LENGTH_BYTES + MESSAGE_BYTES_MAX {
            return Err(HandshakeFailure::Length);
        }
        self.partial.extend_from_slice(input);
        let Some((length, message)) = self.partial.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MESSAGE_BYTES_MAX {
            return Err(HandshakeFailure::Length);
        }
        if message.len() > length {
            return Err(HandshakeFailure::OutOfTurn);
        }
        if message.len() < length {
            return Ok(None);
        }
        let message = message.to_vec();
        self.partial.clear();
        Ok(Some(message))
    }

    /// Adds bytes to the peer's confirmation; returns true once it is whole and right.
    fn take_confirmation(&mut self, input: &[u8]) -> Result<bool, HandshakeFailure> {
        if self.partial.len() + input.len() > SECRET_BYTES {
            return Err(HandshakeFailure::OutOfTurn);
        }
        self.partial.extend_from_slice(input);
        if self.partial.len() < SECRET_BYTES {
            return Ok(false);
        }
        let expected = self.confirmation_of(!self.side).ok_or(HandshakeFailure::OutOfTurn)?;
        let is_right: bool = self.partial.as_slice().ct_eq(expected.as_slice()).into();
        self.partial.clear();
        if is_right { Ok(true) } else { Err(HandshakeFailure::Confirmation) }
    }

    fn confirmation_of(&self, side: Side) -> Option<&Secret> {
        let confirm = &self.agreed.as_ref()?.secrets.confirm;
        Some(match side {
            Side::Client => &confirm.initiator,
            Side::Server => &confirm.responder,
        })
    }

    fn handshake_keys(&self) -> Option<Keys> {
        let agreed = self.agreed.as_ref()?;
        Some(agreed.secrets.handshake.keys(agreed.suite, self.side, self.parties.tuning.limits))
    }

    fn one_rtt_keys(&self) -> Option<Keys> {
        let agreed = self.agreed.as_ref()?;
        Some(agreed.secrets.traffic.keys(agreed.suite, self.side, self.parties.tuning.limits))
    }

    fn established(&self) -> Option<&Agreed> {
        self.agreed.as_ref().filter(|_| matches!(self.step, Step::Established))
    }
}

impl Session for NoiseSession {
    fn initial_keys(&self, dst_cid: ConnectionId, side: Side) -> Keys {
        self.parties.initial.keys(&dst_cid, side)
    }

    /// Never anything: there is nothing to know before the peer is known.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// The peer's [`p2pos_identity::PeerId`], once it is proven.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.established()?.peer))
    }

    /// Never any: early data could be replayed.
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match self.side {
            Side::Client => Some(false),
            Side::Server => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        !matches!(self.step, Step::Established)
    }

    /// Always false on success: a true would raise an event before the peer is proven.
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.read(buf)?;
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.agreed.as_ref().map(|agreed| agreed.params))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match mem::replace(&mut self.step, Step::Failed) {
            Step::SendFirst { noise, message } => {
                buf.extend_from_slice(&message);
                self.step = Step::ReadReply { noise };
                None
            }
            Step::SendReply { message } => {
                buf.extend_from_slice(&message);
                self.step = Step::OneRttKeys;
                self.handshake_keys()
            }
            Step::HandshakeKeys => {
                self.step = Step::ReadConfirmation;
                self.handshake_keys()
            }
            Step::OneRttKeys => {
                buf.extend_from_slice(self.confirmation_of(self.side)?.as_slice());
                self.step = match self.side {
                    Side::Client => Step::Established,
                    Side::Server => Step::ReadConfirmation,
                };
                self.one_rtt_keys()
            }
            waiting @ (Step::ReadFirst { .. }
            | Step::ReadReply { .. }
            | Step::ReadConfirmation
            | Step::Established
            | Step::Failed) => {
                self.step = waiting;
                None
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let agreed = self.agreed.as_mut()?;
        agreed.secrets.traffic.update();
        Some(agreed.secrets.traffic.packet_keys(agreed.suite, self.side, self.parties.tuning.limits))
    }

    fn is_valid_retry(&self, orig_dst_cid: ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.parties.retry.is_valid(&orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let agreed = self.established().ok_or(ExportKeyingMaterialError)?;
        schedule::export(&agreed.secrets.exporter, label, context, output)
            .map_err(|_| ExportKeyingMaterialError)
    }
}
