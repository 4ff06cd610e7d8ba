//! iroh's relay in a process of its own, as its developers run it on one machine (plain HTTP, so without the price of TLS), and two of its
//! clients that do nothing but flood and drain it.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use iroh::{EndpointId, RelayUrl, SecretKey, dns::DnsResolver};
use iroh_relay::{
    client::{Client, ClientBuilder},
    protos::relay::{ClientToRelayMsg, Datagrams},
    server::{RelayConfig, Server, ServerConfig},
    tls::{CaTlsConfig, default_provider},
};

use super::{Forwarded, udp};

/// How often the server's counts are written down.
const WRITE_EVERY: Duration = Duration::from_millis(10);

/// (internal) Serves until killed; writes what it has forwarded into a file, if one is named, in packets of `segment` bytes.
pub async fn serve(
    ip: IpAddr,
    counts: Option<PathBuf>,
    segment: u64,
    ready: impl FnOnce(&str),
) -> Result<()> {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(SocketAddr::new(ip, 0)));
    let server = Server::spawn(config).await.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let address = server.http_addr().context("iroh's relay has no address")?;
    ready(&format!("http://{address}"));
    let Some(counts) = counts else { return std::future::pending().await };
    let counts = File::create(counts)?;
    loop {
        let bytes = server.metrics().server.bytes_sent.get();
        Forwarded { bytes, packets: bytes / segment.max(1) }.write(&counts)?;
        tokio::time::sleep(WRITE_EVERY).await;
    }
}

/// (internal) Reads what comes, and looks at nothing.
pub async fn receive(relay: &str, ready: impl FnOnce(&str)) -> Result<()> {
    let key = SecretKey::generate();
    let id = key.public();
    let mut client = connect(relay, key).await?;
    ready(&id.to_string());
    while let Some(message) = client.next().await {
        message?;
    }
    Ok(())
}

/// (internal) Sends trains of packets of that size, for ever.
pub async fn flood(relay: &str, to: &str, packet_bytes: usize, ready: impl FnOnce(&str)) -> Result<()> {
    let to: EndpointId = to.parse()?;
    let mut client = connect(relay, SecretKey::generate()).await?;
    ready("flood");
    // As many as p2pOS's users send at once, less the heads of the message.
    let packets =
        udp::segments_of(packet_bytes).min(udp::segments_of(packet_bytes + p2pos_relay::HEAD_BYTES));
    let contents = Bytes::from(vec![0x41; packets * packet_bytes]);
    let segment_size = NonZeroU16::new(u16::try_from(packet_bytes)?);
    loop {
        let datagrams = Datagrams { ecn: None, segment_size, contents: contents.clone() };
        client.send(ClientToRelayMsg::Datagrams { dst_endpoint_id: to, datagrams }).await?;
    }
}

async fn connect(relay: &str, key: SecretKey) -> Result<Client> {
    let relay: RelayUrl = relay.parse()?;
    let tls = CaTlsConfig::default().client_config(default_provider())?;
    Ok(ClientBuilder::new(relay, key, DnsResolver::new()).tls_client_config(tls).connect().await?)
}
