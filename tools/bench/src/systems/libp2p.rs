//! rust-libp2p over TCP with Noise and Yamux, its defaults untouched.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, io};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::work::{Link, Receiver, Sender, System, serve_stream};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pos-bench/1");
const READ_BYTES_MAX: usize = 64 * 1024;
/// Longer than any benchmark: an idle connection is never closed under us.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Dials and closes waiting for the swarm's task; one is in flight at a time.
const COMMANDS_MAX: usize = 16;

#[derive(Default)]
pub struct Libp2p {
    dialler: OnceCell<Dialler>,
}

struct Dialler {
    commands: mpsc::Sender<Command>,
    control: libp2p_stream::Control,
}

enum Command {
    Dial(PeerId, Multiaddr, oneshot::Sender<Result<ConnectionId>>),
    Close(ConnectionId, oneshot::Sender<()>),
}

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build())
}

impl System for Libp2p {
    type Link = Connection;

    async fn serve(&self) -> Result<String> {
        let mut swarm = swarm()?;
        let mut incoming =
            swarm.behaviour().new_control().accept(PROTOCOL).map_err(|error| anyhow!("{error}"))?;
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                let (recv, send) = stream.split();
                tokio::spawn(serve_stream(Sending(send), Receiving::new(recv)));
            }
        });
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        let address = loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => break address,
                SwarmEvent::ListenerClosed { reason, .. } => bail!("listener closed: {reason:?}"),
                _ => {}
            }
        };
        let target = format!("{},{address}", swarm.local_peer_id());
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Ok(target)
    }

    async fn dial(&self, target: &str) -> Result<Connection> {
        let (peer, address) = target.split_once(',').context("target is not ID,ADDRESS")?;
        let peer: PeerId = peer.parse()?;
        let dialler = self.dialler.get_or_try_init(|| async { Dialler::start() }).await?;
        let (answer, answered) = oneshot::channel();
        let dial = Command::Dial(peer, address.parse()?, answer);
        dialler.commands.send(dial).await.map_err(|_| anyhow!("the swarm's task has ended"))?;
        let id = answered.await??;
        Ok(Connection { id, peer, commands: dialler.commands.clone(), control: dialler.control.clone() })
    }
}

impl Dialler {
    fn start() -> Result<Self> {
        let swarm = swarm()?;
        let control = swarm.behaviour().new_control();
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(run_dialler(swarm, queue));
        Ok(Self { commands, control })
    }
}

async fn run_dialler(mut swarm: Swarm<libp2p_stream::Behaviour>, mut queue: mpsc::Receiver<Command>) {
    let mut dials: HashMap<ConnectionId, oneshot::Sender<Result<ConnectionId>>> = HashMap::new();
    let mut closes: HashMap<ConnectionId, oneshot::Sender<()>> = HashMap::new();
    loop {
        tokio::select! {
            command = queue.recv() => match command {
                Some(Command::Dial(peer, address, answer)) => {
                    let options =
                        DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![address]).build();
                    let id = options.connection_id();
                    match swarm.dial(options) {
                        Ok(()) => drop(dials.insert(id, answer)),
                        Err(error) => drop(answer.send(Err(error.into()))),
                    }
                }
                Some(Command::Close(id, answer)) => {
                    if swarm.close_connection(id) {
                        closes.insert(id, answer);
                    }
                }
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                    if let Some(answer) = dials.remove(&connection_id) {
                        drop(answer.send(Ok(connection_id)));
                    }
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some(answer) = dials.remove(&connection_id) {
                        drop(answer.send(Err(error.into())));
                    }
                }
                SwarmEvent::ConnectionClosed { connection_id, .. } => {
                    if let Some(answer) = closes.remove(&connection_id) {
                        answer.send(()).ok();
                    }
                }
                _ => {}
            },
        }
    }
}

pub struct Connection {
    id: ConnectionId,
    peer: PeerId,
    commands: mpsc::Sender<Command>,
    control: libp2p_stream::Control,
}

impl Link for Connection {
    type Send = Sending;
    type Recv = Receiving;

    async fn open(&self) -> Result<(Sending, Receiving)> {
        let stream = self.control.clone().open_stream(self.peer, PROTOCOL).await?;
        let (recv, send) = stream.split();
        Ok((Sending(send), Receiving::new(recv)))
    }

    async fn close(self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Close(self.id, answer)).await.is_ok() {
            drop(answered.await);
        }
        Ok(())
    }
}

pub struct Sending(io::WriteHalf<Stream>);

impl Sender for Sending {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write_all(&bytes).await?;
        Ok(self.0.flush().await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}

pub struct Receiving {
    stream: io::ReadHalf<Stream>,
    buffer: BytesMut,
}

impl Receiving {
    fn new(stream: io::ReadHalf<Stream>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }
}

impl Receiver for Receiving {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        self.buffer.resize(READ_BYTES_MAX, 0);
        let count = self.stream.read(&mut self.buffer).await?;
        Ok((count > 0).then(|| self.buffer.split_to(count).freeze()))
    }
}
