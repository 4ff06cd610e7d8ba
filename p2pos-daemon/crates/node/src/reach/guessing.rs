//! Runs one attempt to guess a port: the sockets and clocks around `traversal`'s two machines.
//!
//! The easy side sends guesses from the QUIC socket and waits for a hit there. The hard side opens many sockets, each with a
//! NAT binding of its own, and keeps the one that a guess arrived at. Dropping an attempt ends it and closes its sockets.
//!
//! Refuses to know: when to guess and what follows (`steering`).

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use p2pos_transport::Endpoint;
use p2pos_traversal::{
    Probe, Random,
    guess::{EasySide, GuessEnd, HardEnd, HardEvent, HardSetup, HardSide, Strain},
    plan::GuessJob,
    signal::{GuessStart, Signal},
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{Reach, probes::Reader};

/// What an attempt tells its steering while it runs: signals to send. It has few; the queue bounds a bug, not the peer.
const SIGNALS_QUEUE: usize = 16;
/// What the peer said that concerns an attempt.
const TOLD_QUEUE: usize = 4;
/// Guesses at the hard side's sockets that wait to be looked at. One right guess is enough.
const ARRIVALS_QUEUE: usize = 64;
/// The hop limit of sockets whose opener has left.
const TTL_USUAL: u32 = 64;

/// An attempt that runs. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Attempt {
    task: AbortHandle,
    /// Signals that the peer shall get.
    pub(super) signals: mpsc::Receiver<Signal>,
    /// How it ended: where the peer is reached.
    pub(super) ended: mpsc::Receiver<Option<SocketAddr>>,
    told: mpsc::Sender<Told>,
}

/// What concerns an attempt from outside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// The peer says that a guess arrived.
    Hit {
        /// The attempt's number.
        attempt: u32,
    },
    /// How the path that carries the signals fares.
    Strain(Strain),
}

impl Attempt {
    /// Starts an attempt.
    pub(super) fn start(job: GuessJob, reach: Arc<Reach>) -> Self {
        let (signals_out, signals) = mpsc::channel(SIGNALS_QUEUE);
        let (ended_out, ended) = mpsc::channel(1);
        let (told, told_in) = mpsc::channel(TOLD_QUEUE);
        let run = async move {
            let hit = match job {
                GuessJob::Easy(start) => run_easy(start, &reach, told_in).await,
                GuessJob::Hard(setup) => run_hard(setup, &reach, signals_out).await,
            };
            // The steering may have gone meanwhile.
            ended_out.send(hit).await.ok();
        };
        Self { task: tokio::spawn(run).abort_handle(), signals, ended, told }
    }

    /// Passes something on to the attempt, unless it is busy: all of it is repeated or not needed.
    pub(super) fn tell(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            tracing::trace!("an attempt to guess had no room for news");
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run_easy(start: GuessStart, reach: &Reach, mut told: mpsc::Receiver<Told>) -> Option<SocketAddr> {
    let mut reader: Reader = reach.desk.read(start.token)?;
    let mut side = EasySide::new(start, Random::from_seed(rand::random()), now());
    loop {
        while let Some(guess) = side.poll_transmit(now()) {
            if reach.take_guess() {
                send(&reach.endpoint, guess.probe, guess.to, None);
            }
        }
        if let Some(end) = side.end() {
            tracing::debug!(sent = side.sent(), ?end, "an attempt to guess ended, on the easy side");
            return match end {
                GuessEnd::Hit(remote) => Some(remote),
                GuessEnd::HitLost | GuessEnd::Spent | GuessEnd::Strained => None,
            };
        }
        let due = side.poll_timeout().map(Instant::from_std);
        tokio::select! {
            arrived = reader.next() => if let Some(arrived) = arrived
                && let Probe::Hit { token } = arrived.probe
            {
                side.handle_hit(arrived.from, token);
            },
            news = told.recv() => match news {
                Some(Told::Hit { attempt }) => side.handle_told_hit(attempt, now()),
                Some(Told::Strain(strain)) => side.handle_strain(strain),
                None => return None,
            },
            () = sleep_until_some(due) => side.handle_timeout(now()),
        }
    }
}

/// The sockets of a hard side, each with the task that reads it.
struct Sockets {
    open: BTreeMap<u16, (Arc<UdpSocket>, AbortHandle)>,
    readers: JoinSet<()>,
    arrivals: mpsc::Sender<(u16, SocketAddr, Probe)>,
}

impl Sockets {
    /// Opens a socket, and its NAT binding by a packet that dies on the way.
    async fn open(&mut self, number: u16, to: SocketAddr, ttl: u8) -> io::Result<()> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?);
        socket.set_ttl(ttl.into())?;
        socket.send_to(&Probe::Opener.encode(), to).await?;
        socket.set_ttl(TTL_USUAL)?;
        let reader = self.readers.spawn(read(number, socket.clone(), self.arrivals.clone()));
        self.open.insert(number, (socket, reader));
        Ok(())
    }

    async fn send(&self, number: u16, to: SocketAddr, probe: Probe) {
        if let Some((socket, _)) = self.open.get(&number)
            && let Err(error) = socket.send_to(&probe.encode(), to).await
        {
            tracing::debug!(%error, "a guess socket could not send");
        }
    }

    fn close(&mut self, number: u16) {
        if let Some((_, reader)) = self.open.remove(&number) {
            reader.abort();
        }
    }

    /// Takes the socket out, so that QUIC can use it.
    async fn keep(mut self, number: u16) -> Option<std::net::UdpSocket> {
        let (socket, _) = self.open.remove(&number)?;
        self.readers.shutdown().await;
        Arc::into_inner(socket)?.into_std().ok()
    }
}

async fn run_hard(setup: HardSetup, reach: &Reach, signals: mpsc::Sender<Signal>) -> Option<SocketAddr> {
    let (arrivals, mut arrived) = mpsc::channel(ARRIVALS_QUEUE);
    let mut sockets = Sockets { open: BTreeMap::new(), readers: JoinSet::new(), arrivals };
    let mut side = HardSide::new(setup, now());
    loop {
        while let Some(event) = side.poll_event(now()) {
            match event {
                HardEvent::Open { socket, to, ttl } => {
                    if let Err(error) = sockets.open(socket, to, ttl).await {
                        tracing::debug!(%error, "a guess socket could not be opened");
                    }
                }
                HardEvent::Send { socket, to, probe } => sockets.send(socket, to, probe).await,
                HardEvent::Signal(signal) => signals.send(signal).await.ok()?,
                HardEvent::Close { socket } => sockets.close(socket),
            }
        }
        let Some(due) = side.poll_timeout() else { break };
        tokio::select! {
            Some((socket, from, probe)) = arrived.recv() => match probe {
                Probe::Guess { token } => side.handle_guess(socket, from, token, now()),
                Probe::Hit { token } => side.handle_hit(socket, from, token),
                Probe::Opener | Probe::Ping { .. } | Probe::Pong { .. } | Probe::Ask { .. } | Probe::Knock { .. } => {}
            },
            () = sleep_until(Instant::from_std(due)) => {}
        }
    }
    match side.end() {
        Some(HardEnd::Hit { socket, remote }) => {
            let socket = sockets.keep(socket).await?;
            match reach.endpoint.add_guess_socket(socket, remote) {
                Ok(fake) => Some(fake.socket_addr()),
                Err(error) => {
                    tracing::debug!(%error, "a socket that was hit could not be kept");
                    None
                }
            }
        }
        Some(HardEnd::Silent | HardEnd::Stopped) | None => None,
    }
}

async fn read(number: u16, socket: Arc<UdpSocket>, arrivals: mpsc::Sender<(u16, SocketAddr, Probe)>) {
    let mut bytes = [0; 64];
    loop {
        match socket.recv_from(&mut bytes).await {
            Ok((length, from)) => {
                if let Some(probe) = Probe::decode(bytes.get(..length).unwrap_or_default())
                    && arrivals.send((number, from, probe)).await.is_err()
                {
                    return;
                }
            }
            // An ICMP error of the opener; the binding may be there nevertheless.
            Err(error) => {
                tracing::trace!(%error, "a guess socket got an error");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Pause after an error on a guess socket, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Sends a probe from the QUIC socket. One that is not sent is like one that is lost.
pub(super) fn send(endpoint: &Endpoint, probe: Probe, to: SocketAddr, ttl: Option<u8>) {
    if let Err(error) = endpoint.send_probe(&probe.encode(), to, ttl) {
        tracing::trace!(%error, "a probe was not sent");
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until_some(alarm: Option<Instant>) {
    match alarm {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
