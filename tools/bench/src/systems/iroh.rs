//! iroh, endpoint to endpoint, its defaults untouched: relays off and dialled by address, or through a relay and without any address.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, RelayUrl,
    endpoint::{Connection, RecvStream, SendStream, presets},
};
use tokio::{sync::OnceCell, time::timeout};

use crate::work::{Link, Receiver, Sender, System, serve_stream};

const ALPN: &[u8] = b"p2pos-bench";
/// Longest chunk taken from a stream at once, bytes.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Until an endpoint is connected to its relay.
const ONLINE_MAX: Duration = Duration::from_secs(10);

pub struct Iroh {
    ip: IpAddr,
    /// Where it can be called; then it has no address of its own.
    relay: Option<RelayUrl>,
    /// The dialling endpoint is made once: repeated dials are warm ones.
    dialler: OnceCell<Endpoint>,
}

impl Iroh {
    pub fn at(ip: IpAddr) -> Self {
        Self { ip, relay: None, dialler: OnceCell::new() }
    }

    /// To be called through a relay.
    pub fn through(ip: IpAddr, relay: RelayUrl) -> Self {
        Self { relay: Some(relay), ..Self::at(ip) }
    }

    async fn dialler(&self, relay: Option<&RelayUrl>) -> Result<&Endpoint> {
        self.dialler.get_or_try_init(|| bind(self.ip, relay, false)).await
    }
}

async fn bind(ip: IpAddr, relay: Option<&RelayUrl>, accepts: bool) -> Result<Endpoint> {
    let mut builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
    builder = match relay {
        None => builder.relay_mode(RelayMode::Disabled).bind_addr(SocketAddr::new(ip, 0))?,
        Some(relay) => builder.relay_mode(RelayMode::custom([relay.clone()])),
    };
    if accepts {
        builder = builder.alpns(vec![ALPN.to_vec()]);
    }
    let endpoint = builder.bind().await?;
    if relay.is_some() {
        timeout(ONLINE_MAX, endpoint.online()).await.context("iroh did not get to its relay")?;
    }
    Ok(endpoint)
}

impl System for Iroh {
    type Link = Connection;

    async fn serve(&self) -> Result<String> {
        let endpoint = bind(self.ip, self.relay.as_ref(), true).await?;
        let at = match &self.relay {
            None => endpoint.bound_sockets().first().context("iroh bound no socket")?.to_string(),
            Some(relay) => relay.to_string(),
        };
        let target = format!("{},{at}", endpoint.id());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        tokio::spawn(serve_stream(send, recv));
                    }
                });
            }
        });
        Ok(target)
    }

    async fn prepare(&self) -> Result<()> {
        self.dialler(None).await.map(drop)
    }

    async fn dial(&self, target: &str) -> Result<Connection> {
        let (id, at) = target.split_once(',').context("target is not ID,ADDRESS")?;
        let address = EndpointAddr::new(id.parse::<EndpointId>()?);
        let (address, relay) = match at.parse::<SocketAddr>() {
            Ok(socket) => (address.with_ip_addr(socket), None),
            Err(_) => {
                let relay: RelayUrl = at.parse()?;
                (address.with_relay_url(relay.clone()), Some(relay))
            }
        };
        Ok(self.dialler(relay.as_ref()).await?.connect(address, ALPN).await?)
    }
}

impl Link for Connection {
    type Send = SendStream;
    type Recv = RecvStream;

    async fn open(&self) -> Result<(SendStream, RecvStream)> {
        Ok(self.open_bi().await?)
    }

    async fn close(self) -> Result<()> {
        Self::close(&self, 0_u32.into(), b"");
        Ok(())
    }
}

impl Sender for SendStream {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        Ok(self.write_chunk(bytes).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(Self::finish(self)?)
    }
}

impl Receiver for RecvStream {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        Ok(self.read_chunk(READ_BYTES_MAX).await?)
    }
}
