//! UPnP Internet Gateway Device 1 and 2, by igd-next: finding the device of one gateway, mapping a port, removing it.
//!
//! The search goes to the gateway itself and to the multicast group at once: some routers answer only one of them, and a
//! router behind our router can be asked only directly. Of multicast answers only that of the gateway counts, since
//! anybody in the network may answer (igd-next takes device URLs only of the host that answered).
//!
//! Refuses to know: which gateways there are, when to ask again.

use std::{net::SocketAddr, time::Duration};

use igd_next::{
    AddPortError, PortMappingProtocol, SearchError, SearchOptions,
    aio::{Gateway as Device, tokio::Tokio},
};
use tokio::time;

use super::{ask::AskError, grant::Denied};
use crate::gateways::Gateway;

/// SSDP's port (UPnP Device Architecture 1.1 s1.3).
const SSDP_PORT: u16 = 1900;
/// How long a device may take to answer the search. UPnP lets devices wait up to MX seconds, which igd-next sets to 3.
const SEARCH_WAIT: Duration = Duration::from_secs(5);
/// How long a device may take for one command. Old routers need seconds for a mapping.
const COMMAND_WAIT: Duration = Duration::from_secs(8);
/// What routers show as the owner of the mapping.
const DESCRIPTION: &str = "p2pOS";

/// A found device.
#[derive(Debug)]
pub(crate) struct Igd {
    device: Device<Tokio>,
}

impl Igd {
    /// Seeks the device that is `gateway`.
    ///
    /// # Errors
    /// [`Denied`] if none answers within 5 s.
    pub(crate) async fn find(gateway: Gateway) -> Result<Self, Denied> {
        let direct = search(gateway.at(SSDP_PORT));
        let multicast = async {
            let device = search(SearchOptions::default().broadcast_address).await?;
            if device.addr.ip() == gateway.ip {
                Ok(device)
            } else {
                Err(SearchError::NoResponseWithinTimeout)
            }
        };
        tokio::pin!(direct, multicast);
        let found = tokio::select! {
            Ok(device) = &mut direct => Ok(device),
            Ok(device) = &mut multicast => Ok(device),
            else => Err(AskError::Silent),
        };
        Ok(Self { device: found? })
    }

    /// Maps `wanted_port`, or another one if that is taken, to `client`: where packets come in, and for how long.
    ///
    /// # Errors
    /// [`Denied`] with the router's own words.
    pub(crate) async fn obtain(
        &self,
        client: SocketAddr,
        wanted_port: u16,
        lease_s: u32,
    ) -> Result<(SocketAddr, u32), Denied> {
        let external = command(self.device.get_external_ip()).await?;
        let add = |lease_s| {
            self.device.add_port(PortMappingProtocol::UDP, wanted_port, client, lease_s, DESCRIPTION)
        };
        let (port, lifetime_s) = match time::timeout(COMMAND_WAIT, add(lease_s)).await {
            Err(_) => return Err(AskError::Silent.into()),
            Ok(Ok(())) => (wanted_port, lease_s),
            // Old devices only know mappings without an end; it is renewed, and removed at exit, like any other.
            Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) => {
                command(add(0)).await?;
                (wanted_port, lease_s)
            }
            Ok(Err(AddPortError::PortInUse)) => {
                let any = self.device.add_any_port(PortMappingProtocol::UDP, client, lease_s, DESCRIPTION);
                (command(any).await?, lease_s)
            }
            Ok(Err(refusal)) => return Err(Denied::Upnp(refusal.to_string())),
        };
        Ok((SocketAddr::new(external, port), lifetime_s))
    }

    /// Removes a mapping.
    ///
    /// # Errors
    /// [`Denied`] with the router's own words.
    pub(crate) async fn remove(&self, external_port: u16) -> Result<(), Denied> {
        command(self.device.remove_port(PortMappingProtocol::UDP, external_port)).await
    }
}

async fn search(whom: SocketAddr) -> Result<Device<Tokio>, SearchError> {
    let mut options = SearchOptions::default();
    options.broadcast_address = whom;
    options.timeout = Some(SEARCH_WAIT);
    options.single_search_timeout = Some(SEARCH_WAIT);
    igd_next::aio::tokio::search_gateway(options).await
}

async fn command<T, E: ToString>(answer: impl Future<Output = Result<T, E>>) -> Result<T, Denied> {
    match time::timeout(COMMAND_WAIT, answer).await {
        Err(_) => Err(AskError::Silent.into()),
        Ok(Ok(done)) => Ok(done),
        Ok(Err(refusal)) => Err(Denied::Upnp(refusal.to_string())),
    }
}
