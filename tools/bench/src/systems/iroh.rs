//! iroh, endpoint to endpoint: relays off, dialled by address, its defaults untouched.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode,
    endpoint::{Connection, RecvStream, SendStream, presets},
};
use tokio::sync::OnceCell;

use crate::work::{Link, Receiver, Sender, System, serve_stream};

const ALPN: &[u8] = b"p2pos-bench";
/// Longest chunk taken from a stream at once, bytes.
const READ_BYTES_MAX: usize = 64 * 1024;

pub struct Iroh {
    ip: IpAddr,
    /// The dialling endpoint is made once: repeated dials are warm ones.
    dialler: OnceCell<Endpoint>,
}

impl Iroh {
    pub fn at(ip: IpAddr) -> Self {
        Self { ip, dialler: OnceCell::new() }
    }

    async fn dialler(&self) -> Result<&Endpoint> {
        self.dialler.get_or_try_init(|| bind(self.ip, false)).await
    }
}

async fn bind(ip: IpAddr, accepts: bool) -> Result<Endpoint> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .relay_mode(RelayMode::Disabled)
        .bind_addr(SocketAddr::new(ip, 0))?;
    if accepts {
        builder = builder.alpns(vec![ALPN.to_vec()]);
    }
    Ok(builder.bind().await?)
}

impl System for Iroh {
    type Link = Connection;

    async fn serve(&self) -> Result<String> {
        let endpoint = bind(self.ip, true).await?;
        let socket = endpoint.bound_sockets().first().copied().context("iroh bound no socket")?;
        let target = format!("{},{socket}", endpoint.id());
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
        self.dialler().await.map(drop)
    }

    async fn dial(&self, target: &str) -> Result<Connection> {
        let (id, socket) = target.split_once(',').context("target is not ID,ADDRESS")?;
        let address = EndpointAddr::new(id.parse::<EndpointId>()?).with_ip_addr(socket.parse()?);
        Ok(self.dialler().await?.connect(address, ALPN).await?)
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
