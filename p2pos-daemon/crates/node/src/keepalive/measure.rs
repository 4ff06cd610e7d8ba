//! One measurement of a binding's lifetime: the sockets and clocks around [`CliffProbe`].
//!
//! Each silence has a throw-away socket with a binding of its own, so that no living path is at risk; one more socket asks the
//! helper to knock. Dropping the future closes them all.

use std::{io, net::Ipv4Addr, net::SocketAddr, sync::Arc};

use p2pos_peer_protocol::measure::MeasureQuestion;
use p2pos_traversal::{
    Probe,
    keepalive::{CLIFFS, CliffEvent, CliffProbe, Survived},
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{ask, now};
use crate::peer::Live;

/// Packets that wait to be looked at: few come, and none in a burst.
const ARRIVALS_QUEUE: usize = 16;
/// Errors of one socket after which it is not read any more.
const ERRORS_MAX: usize = 16;

/// Measures once with the help of the peer at `helper`; takes five minutes at most.
pub(super) async fn run(live: &Live, helper: SocketAddr) -> Survived {
    let first_token = rand::random();
    let count = u8::try_from(CLIFFS.len()).expect("there are seven cliffs");
    let Some(_granted) = ask(live, MeasureQuestion::Lifetime { first_token, count }).await else {
        return Survived::Unknown;
    };
    match Sockets::open(helper).await {
        Ok(sockets) => sockets.measure(CliffProbe::new(first_token, now())).await,
        Err(error) => {
            tracing::debug!(%error, "no socket for measuring the lifetime of a binding");
            Survived::Unknown
        }
    }
}

struct Sockets {
    helper: SocketAddr,
    asking: Arc<UdpSocket>,
    silent: Vec<Option<Arc<UdpSocket>>>,
    arrivals: mpsc::Receiver<Probe>,
    _readers: JoinSet<()>,
}

impl Sockets {
    async fn open(helper: SocketAddr) -> io::Result<Self> {
        let (sender, arrivals) = mpsc::channel(ARRIVALS_QUEUE);
        let mut readers = JoinSet::new();
        let mut all = Vec::new();
        for _ in 0..=CLIFFS.len() {
            let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?);
            readers.spawn(read(socket.clone(), helper, sender.clone()));
            all.push(socket);
        }
        let asking = all.pop().expect("one more than cliffs was opened");
        let silent = all.into_iter().map(Some).collect();
        Ok(Self { helper, asking, silent, arrivals, _readers: readers })
    }

    async fn measure(mut self, mut probe: CliffProbe) -> Survived {
        loop {
            while let Some(event) = probe.poll_event(now()) {
                match event {
                    CliffEvent::Ping { socket, token } => {
                        if let Some(Some(socket)) = self.silent.get(usize::from(socket)) {
                            self.send(socket, Probe::Ping { token }).await;
                        }
                    }
                    CliffEvent::Ask { token } => self.send(&self.asking, Probe::Ask { token }).await,
                    CliffEvent::Close { socket } => {
                        if let Some(socket) = self.silent.get_mut(usize::from(socket)) {
                            *socket = None;
                        }
                    }
                }
            }
            if let Some(survived) = probe.result() {
                return survived;
            }
            let due = probe.poll_timeout().map_or_else(Instant::now, Instant::from_std);
            tokio::select! {
                Some(arrived) = self.arrivals.recv() => match arrived {
                    Probe::Pong { token } => probe.handle_pong(token, now()),
                    Probe::Knock { token } => probe.handle_knock(token),
                    Probe::Opener
                    | Probe::Guess { .. }
                    | Probe::Hit { .. }
                    | Probe::Ping { .. }
                    | Probe::Ask { .. } => {}
                },
                () = sleep_until(due) => {}
            }
        }
    }

    /// One that is not sent is like one that is lost.
    async fn send(&self, socket: &UdpSocket, probe: Probe) {
        if let Err(error) = socket.send_to(&probe.encode(), self.helper).await {
            tracing::trace!(%error, "a ping of a measurement was not sent");
        }
    }
}

async fn read(socket: Arc<UdpSocket>, helper: SocketAddr, arrivals: mpsc::Sender<Probe>) {
    let (mut bytes, mut errors) = ([0; 64], 0);
    while errors < ERRORS_MAX {
        match socket.recv_from(&mut bytes).await {
            Ok((length, from)) => {
                let probe = Probe::decode(bytes.get(..length).unwrap_or_default());
                if let Some(probe) = probe.filter(|_| from == helper)
                    && arrivals.send(probe).await.is_err()
                {
                    return;
                }
            }
            Err(_) => errors += 1,
        }
    }
}
