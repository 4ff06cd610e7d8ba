//! Bare sockets: TCP end to end, and the chain of hops that p2pOS has (local socket, network, local socket) with nothing but TCP proxies
//! in it: no framing, no encryption, no flow control beyond the kernel's.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::work::{Link, Receiver, Sender, System, serve_stream};

const READ_BYTES_MAX: usize = 64 * 1024;

pub struct Tcp {
    pub ip: IpAddr,
}

impl System for Tcp {
    type Link = String;

    async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind((self.ip, 0)).await?;
        let target = listener.local_addr()?.to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok((send, recv)) = halves(stream) else { continue };
                tokio::spawn(serve_stream(send, recv));
            }
        });
        Ok(target)
    }

    async fn dial(&self, target: &str) -> Result<String> {
        Ok(target.to_owned())
    }
}

/// A TCP connection is a stream already: the link is its address.
impl Link for String {
    type Send = OwnedWriteHalf;
    type Recv = Receiving;

    async fn open(&self) -> Result<(OwnedWriteHalf, Receiving)> {
        let stream = TcpStream::connect(self).await?;
        // Whatever this machine prefers: fairness is measured beside the kind of flow that nearly everybody has.
        rustix::net::sockopt::set_tcp_congestion(&stream, "cubic").context("this kernel has no TCP CUBIC")?;
        halves(stream)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}

/// Accepts on a fresh port and carries every connection to `next` for ever: one proxy of the chain.
pub async fn proxy(next: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let next = next.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(&next).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok(here)
}

fn halves(stream: TcpStream) -> Result<(OwnedWriteHalf, Receiving)> {
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let (recv, send) = stream.into_split();
    Ok((send, Receiving { stream: recv, buffer: BytesMut::new() }))
}

impl Sender for OwnedWriteHalf {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        Ok(self.write_all(&bytes).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.shutdown().await?)
    }
}

pub struct Receiving {
    stream: OwnedReadHalf,
    buffer: BytesMut,
}

impl Receiver for Receiving {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        self.buffer.reserve(READ_BYTES_MAX);
        let count = self.stream.read_buf(&mut self.buffer).await?;
        Ok((count > 0).then(|| self.buffer.split_to(count).freeze()))
    }
}
