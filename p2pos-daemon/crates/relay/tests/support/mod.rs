//! A relay in virtual time, and users with both their ends of flows, for the tests of this folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]
#![allow(clippy::disallowed_methods, reason = "a test starts its virtual time somewhere")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pos_identity::{PeerId, SecretKey};
use p2pos_relay::{
    Asker, Call, Entropy, Flow, FlowEnd, Lease, Notice, Opened, Rate, Refusal, RelayMode, RelaySettings,
    Service, ServiceEvent, TOKEN_BYTES, Verdict, Via,
};

pub const PACKET_BYTES: usize = 1200;

/// A relay, the time, and a source of different numbers.
pub struct Relay {
    pub service: Service,
    pub now: Instant,
    entropy: u8,
}

/// The token that a user of these tests chooses.
pub fn token_of(user: PeerId) -> [u8; TOKEN_BYTES] {
    *user.as_bytes().first_chunk().unwrap()
}

/// One user's end, and where it sends from.
#[derive(Debug)]
pub struct Side {
    pub peer: PeerId,
    pub end: FlowEnd,
    pub at: SocketAddr,
}

impl Relay {
    pub fn new(settings: RelaySettings) -> Self {
        let now = Instant::now();
        Self { service: Service::new(now, settings, [7; 16], 0), now, entropy: 0 }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.service.poll_timeout().is_some_and(|due| due <= self.now) {
            self.service.handle_timeout(self.now);
        }
    }

    pub fn entropy(&mut self) -> Entropy {
        self.entropy = self.entropy.wrapping_add(1);
        Entropy([self.entropy; 48])
    }

    pub fn reserve(&mut self, asker: &Asker) -> Result<Lease, Refusal> {
        self.service.handle_reserve(self.now, asker, token_of(asker.peer), None)
    }

    pub fn connect(
        &mut self,
        asker: &Asker,
        callee: PeerId,
        token: [u8; TOKEN_BYTES],
    ) -> Result<Flow, Refusal> {
        let entropy = self.entropy();
        self.service.handle_connect(self.now, asker, &Call { callee, token }, &entropy)
    }

    /// Joins two users: the second one gets a lease, the first one calls.
    pub fn join(&mut self, caller: &Asker, callee: &Asker) -> (Side, Side) {
        let lease = self.reserve(callee).unwrap();
        let flow = self.connect(caller, callee.peer, lease.token).unwrap();
        let incoming = self.notices(callee.peer).into_iter().find_map(|notice| match notice {
            Notice::Incoming { from, flow } if from == caller.peer => Some(flow),
            Notice::Incoming { .. } | Notice::Ended { .. } | Notice::Drain { .. } => None,
        });
        (side(caller, &flow), side(callee, &incoming.unwrap()))
    }

    pub fn notices(&mut self, to: PeerId) -> Vec<Notice> {
        std::iter::from_fn(|| self.service.poll_event())
            .filter_map(|event| match event {
                ServiceEvent::Tell { peer, notice } if peer == to => Some(notice),
                ServiceEvent::Tell { .. }
                | ServiceEvent::MonthWarning { .. }
                | ServiceEvent::MonthUsedUp { .. }
                | ServiceEvent::Drained => None,
            })
            .collect()
    }

    /// Sends one packet of a side through the relay, from where the side is.
    pub fn send(&mut self, from: &Side, packet: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frame = signed(from, packet);
        (self.service.forward(self.now, Via::Udp(from.at), &mut frame), frame)
    }

    /// Sends packets of one size until one is dropped, or so many have passed; counts those that passed.
    pub fn send_many(&mut self, from: &Side, packets: usize) -> usize {
        let passes = |relay: &mut Self| matches!(relay.send(from, &packet()).0, Verdict::Forward { .. });
        (0..packets).take_while(|_| passes(self)).count()
    }

    /// Lets a side and the relay exchange controls until nothing is left to say; returns where each was sent.
    pub fn settle(&mut self, side: &Side) -> Vec<SocketAddr> {
        let mut asked = Vec::new();
        while let Some((to, control)) = self.service.poll_answer() {
            let Via::Udp(to) = to else { continue };
            asked.push(to);
            if to != side.at {
                continue;
            }
            if let Ok(Opened::Answer(answer)) = side.end.open(&control) {
                self.service.forward(self.now, Via::Udp(side.at), &mut answer.to_vec());
            }
        }
        asked
    }
}

pub fn signed(from: &Side, packet: &[u8]) -> Vec<u8> {
    [&from.end.head(packet).unwrap()[..], packet].concat()
}

pub fn side(asker: &Asker, flow: &Flow) -> Side {
    let end = FlowEnd::new(flow.vni, flow.key.clone(), flow.accept);
    Side { peer: asker.peer, end, at: asker.address }
}

pub fn packet() -> Vec<u8> {
    vec![0x41; PACKET_BYTES]
}

pub fn peer(number: u32) -> PeerId {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(seed).peer_id()
}

/// A contact of the relay's owner, at an address of its own.
pub fn contact(number: u8) -> Asker {
    Asker { is_contact: true, ..stranger(number) }
}

/// Somebody else, in a /24 of its own.
pub fn stranger(number: u8) -> Asker {
    asker_at(number.into(), SocketAddr::from(([8, 8, number, 1], 4000)))
}

pub fn asker_at(number: u32, address: SocketAddr) -> Asker {
    Asker { peer: peer(number), is_contact: false, address, via: Via::Udp(address), is_relayed: false }
}

pub fn settings(mode: RelayMode) -> RelaySettings {
    // Wide in total, so that the tests meet the limit that they are about.
    RelaySettings { mode, total: Rate::new(1 << 40, 1 << 40), ..RelaySettings::default() }
}
