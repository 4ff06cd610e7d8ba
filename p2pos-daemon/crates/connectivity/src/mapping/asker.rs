//! One router asked by one protocol: obtaining a mapping, renewing it, giving it back.
//!
//! The three protocols differ in bytes and in what must be remembered between questions (a nonce, a found device); here they
//! get one shape. The port asked for outside is our own at first, so that a manual forward and a mapping agree, and after
//! that the one that was granted, so that a renewal renews.
//!
//! Refuses to know: when to ask (`keeper` does).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    ask::{AskError, ask, local_toward},
    grant::{Denied, Grant, MappingProtocol, Question},
    igd::Igd,
    natpmp, pcp,
};

/// Asks one question as often as told.
#[derive(Debug)]
pub(crate) struct Asker {
    question: Question,
    /// Our UDP port, or the inner router's where we ask on its behalf.
    port: u16,
    /// For how long at a time.
    lease: Duration,
    nonce: pcp::Nonce,
    granted: Option<SocketAddr>,
    igd: Option<Igd>,
}

impl Asker {
    /// An asker for a mapping to UDP `port` of ours, for `lease` at a time. The nonce must be random: whoever knows it can delete the mapping.
    pub(crate) fn new(question: Question, port: u16, lease: Duration, nonce: pcp::Nonce) -> Self {
        let port = question.on_behalf_of.map_or(port, |inner| inner.port());
        Self { question, port, lease, nonce, granted: None, igd: None }
    }

    /// Asks for the mapping, or for more time for it.
    ///
    /// # Errors
    /// [`Denied`], within some 10 s. Cancel-safe but for UPnP, where a mapping may then stand until its lease ends.
    pub(crate) async fn obtain(&mut self) -> Result<Grant, Denied> {
        let lease_s = u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX);
        let grant = match self.question.protocol {
            MappingProtocol::NatPmp => self.nat_pmp(lease_s).await?,
            MappingProtocol::Pcp => self.pcp(lease_s).await?,
            MappingProtocol::UpnpIgd => self.upnp(lease_s).await?,
        };
        self.granted = Some(grant.external);
        Ok(grant)
    }

    /// Gives the mapping back, if there is one. An answer is awaited, but not insisted on.
    pub(crate) async fn release(&mut self) {
        let Some(external) = self.granted.take() else { return };
        let released = match self.question.protocol {
            MappingProtocol::NatPmp => self.nat_pmp_release().await,
            MappingProtocol::Pcp => self.pcp_release(external).await,
            MappingProtocol::UpnpIgd => match &self.igd {
                Some(igd) => igd.remove(external.port()).await,
                None => Ok(()),
            },
        };
        if let Err(error) = released {
            tracing::debug!(%error, protocol = self.question.protocol.name(), "a port mapping was not given back; its lease ends it");
        }
    }

    fn server(&self) -> SocketAddr {
        self.question.gateway.at(natpmp::SERVER_PORT)
    }

    /// The port to ask for outside.
    fn wanted_port(&self) -> u16 {
        self.granted.map_or(self.port, |external| external.port())
    }

    async fn nat_pmp(&self, lease_s: u32) -> Result<Grant, Denied> {
        let IpAddr::V4(_) = self.question.gateway.ip else {
            // RFC 6886 knows no IPv6.
            return Err(AskError::Silent.into());
        };
        let answer = ask(self.server(), &natpmp::ADDRESS_REQUEST, |bytes| match natpmp::decode(bytes)? {
            natpmp::Answer::Address { external, .. } => Some(Ok(external)),
            natpmp::Answer::Refused(refusal) => Some(Err(refusal)),
            natpmp::Answer::Mapped { .. } => None,
        });
        let external = answer.await?.map_err(Denied::NatPmp)?;
        let (epoch_s, port, lifetime_s) = self.nat_pmp_map(self.wanted_port(), lease_s).await?;
        Grant::checked(SocketAddr::new(external.into(), port), lifetime_s, Some(epoch_s), self.lease)
    }

    async fn nat_pmp_map(&self, suggested_port: u16, lifetime_s: u32) -> Result<(u32, u16, u32), Denied> {
        let request = natpmp::MapRequest { internal_port: self.port, suggested_port, lifetime_s };
        let bytes = request.encode();
        let answer = ask(self.server(), &bytes, |bytes| match natpmp::decode(bytes)? {
            natpmp::Answer::Mapped { epoch_s, internal_port, external_port, lifetime_s } => {
                (internal_port == request.internal_port).then_some(Ok((epoch_s, external_port, lifetime_s)))
            }
            natpmp::Answer::Refused(refusal) => Some(Err(refusal)),
            natpmp::Answer::Address { .. } => None,
        });
        answer.await?.map_err(Denied::NatPmp)
    }

    async fn nat_pmp_release(&self) -> Result<(), Denied> {
        self.nat_pmp_map(0, 0).await.map(drop)
    }

    async fn pcp(&self, lifetime_s: u32) -> Result<Grant, Denied> {
        let suggested = SocketAddr::new(pcp::any_of(self.question.gateway.ip), self.wanted_port());
        let request = self.pcp_request(self.granted.unwrap_or(suggested), lifetime_s).await?;
        match self.pcp_ask(&request).await? {
            pcp::Answer::Mapped { epoch_s, external, lifetime_s } => {
                Grant::checked(external, lifetime_s, Some(epoch_s), self.lease)
            }
            pcp::Answer::Refused { refusal, holds_s } => Err(Denied::Pcp { refusal, holds_s }),
        }
    }

    async fn pcp_release(&self, external: SocketAddr) -> Result<(), Denied> {
        let request = self.pcp_request(external, 0).await?;
        self.pcp_ask(&request).await.map(drop)
    }

    async fn pcp_request(&self, suggested: SocketAddr, lifetime_s: u32) -> Result<pcp::MapRequest, Denied> {
        let client = match self.question.on_behalf_of {
            Some(inner) => inner.ip(),
            None => local_toward(self.server()).await?,
        };
        let (nonce, internal_port) = (self.nonce, self.port);
        Ok(pcp::MapRequest { client, nonce, internal_port, suggested, lifetime_s })
    }

    async fn pcp_ask(&self, request: &pcp::MapRequest) -> Result<pcp::Answer, Denied> {
        Ok(ask(self.server(), &request.encode(), |bytes| pcp::decode(bytes, request)).await?)
    }

    async fn upnp(&mut self, lease_s: u32) -> Result<Grant, Denied> {
        let client = match self.question.on_behalf_of {
            Some(inner) => inner.ip(),
            None => local_toward(self.server()).await?,
        };
        let igd = match self.igd.take() {
            Some(igd) => igd,
            None => Igd::find(self.question.gateway).await?,
        };
        let obtained = igd.obtain(SocketAddr::new(client, self.port), self.wanted_port(), lease_s).await;
        if obtained.is_ok() {
            // A device that refused may have restarted at another port: it is sought anew next time.
            self.igd = Some(igd);
        }
        let (external, lifetime_s) = obtained?;
        Grant::checked(external, lifetime_s, None, self.lease)
    }
}
