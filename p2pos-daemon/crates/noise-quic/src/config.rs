//! What noq asks a crypto layer for: a configuration per called peer, and one for everyone who calls us.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use noq_proto::{
    ConnectError, ConnectionId, Side,
    crypto::{ClientConfig, Keys, ServerConfig, Session, UnsupportedVersion},
    transport_parameters::TransportParameters,
};
use p2pos_identity::{PeerId, SecretKey};

use crate::{
    QUIC_VERSION,
    handshake::{Parties, Tuning},
    local::LocalKeys,
    retry::RETRY_TAG_BYTES,
    session::NoiseSession,
};

/// All handshakes of one identity: what they share, and what noq needs for each.
pub struct Handshakes {
    local: Arc<LocalKeys>,
    tuning: Tuning,
    /// Configurations for calling those whom we expect.
    callers: Mutex<BTreeMap<PeerId, Arc<dyn ClientConfig>>>,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes").finish_non_exhaustive()
    }
}

impl Handshakes {
    /// Prepares the handshakes of one identity.
    #[must_use]
    pub fn new(local: &SecretKey) -> Self {
        Self::tuned(local, Tuning::default())
    }

    pub(crate) fn tuned(local: &SecretKey, tuning: Tuning) -> Self {
        Self { local: Arc::new(LocalKeys::of(local)), tuning, callers: Mutex::default() }
    }

    /// Works out beforehand what every handshake with this peer needs, whoever calls. Costs some 50 us once; then each
    /// handshake costs the called side 150 us less, and the calling side 60. Kept until the end, for a bounded number of peers: for contacts only.
    pub fn expect(&self, peer: &PeerId) {
        if self.local.expect(peer) {
            let caller = self.caller(peer);
            self.callers.lock().unwrap_or_else(PoisonError::into_inner).insert(*peer, caller);
        }
    }

    /// Returns the configuration for calling one peer. It may serve several dials, also at the same time.
    ///
    /// Set [`QUIC_VERSION`] on the [`noq_proto::ClientConfig`] that it goes into: any other version is refused at the dial.
    #[must_use]
    pub fn client(&self, remote: &PeerId) -> Arc<dyn ClientConfig> {
        let known = self.callers.lock().unwrap_or_else(PoisonError::into_inner).get(remote).cloned();
        known.unwrap_or_else(|| self.caller(remote))
    }

    /// Returns the configuration for being called, for the lifetime of the endpoint.
    #[must_use]
    pub fn server(&self) -> Arc<dyn ServerConfig> {
        Arc::new(Called(self.with(self.local.peer_id)))
    }

    fn caller(&self, remote: &PeerId) -> Arc<dyn ClientConfig> {
        Arc::new(Caller(self.with(*remote)))
    }

    fn with(&self, responder: PeerId) -> Arc<Parties> {
        Arc::new(Parties::new(self.local.clone(), responder, self.tuning.clone()))
    }
}

/// Returns who is at the other end, given what noq's `peer_identity()` returned for an established connection.
#[must_use]
pub fn peer_of(identity: Box<dyn Any>) -> Option<PeerId> {
    identity.downcast::<PeerId>().ok().map(|peer| *peer)
}

struct Caller(Arc<Parties>);

impl ClientConfig for Caller {
    /// The server name says nothing here; whom we call is part of the keys.
    fn start_session(
        &self,
        version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        if version != QUIC_VERSION {
            return Err(ConnectError::UnsupportedVersion);
        }
        // The only failures here are ours (no randomness), and this is noq's error for "this endpoint cannot dial".
        let session = NoiseSession::initiate(Arc::clone(&self.0), params);
        session
            .map(|session| -> Box<dyn Session> { Box::new(session) })
            .map_err(|_| ConnectError::EndpointStopping)
    }
}

struct Called(Arc<Parties>);

impl ServerConfig for Called {
    fn initial_keys(&self, version: u32, dst_cid: ConnectionId) -> Result<Keys, UnsupportedVersion> {
        if version != QUIC_VERSION {
            return Err(UnsupportedVersion);
        }
        Ok(self.0.initial.keys(&dst_cid, Side::Server))
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: ConnectionId, packet: &[u8]) -> [u8; RETRY_TAG_BYTES] {
        self.0.retry.tag(&orig_dst_cid, &[packet])
    }

    fn start_session(&self, _version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(NoiseSession::answer(Arc::clone(&self.0), params))
    }
}
