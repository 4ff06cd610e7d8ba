//! What a peer that names somebody else's addresses can make us send there.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use p2pos_transport::PathEvent;
use tokio::time::sleep;

use support::{connect, endpoint, soon, v4_of};

/// Candidates that a peer may tell us of: all of one victim, each another port.
const PORTS: usize = 32;
/// Punching rounds of the liar, one after the other: more than fit into a minute of an honest pair.
const ROUNDS: usize = 30;
/// Between two rounds. Nine packets go to each candidate of a round within half a second.
const ROUND_EVERY: Duration = Duration::from_millis(150);
/// Packets that all ports of a host that was never heard get from us in a minute (`PER_HOST_MAX` in `probing`).
const PER_HOST_MAX: usize = 96;
/// Ports of a host among the candidates of the one punching round in which the deceived side itself tries what it was told.
const PORTS_TRIED_MIN: usize = 4;

/// A host with many ports, none of which ever answers.
struct Victim(Vec<UdpSocket>);

impl Victim {
    fn start() -> Self {
        let open = |_| {
            let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self((0..PORTS).map(open).collect())
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|socket| socket.local_addr().unwrap())
    }

    /// Packets that have come, for each port.
    fn received(&self) -> Vec<usize> {
        let mut buffer = [0; 2_048];
        self.0
            .iter()
            .map(|socket| {
                std::iter::repeat_with(|| socket.recv(&mut buffer)).take_while(Result::is_ok).count()
            })
            .collect()
    }
}

/// Rounds in which the liar's candidates are tried; what the victim got. `is_dialler`: the liar begins the rounds, else who is deceived.
async fn rounds(is_dialler: bool) -> Vec<usize> {
    let (a, b, victim) = (endpoint(1), endpoint(2), Victim::start());
    let (dialed, accepted) = soon(connect(&a, &b)).await;
    let (ours, theirs) = (dialed.paths(), accepted.paths());
    let (liar, honest, address) =
        if is_dialler { (&ours, &theirs, v4_of(&b)) } else { (&theirs, &ours, v4_of(&a)) };
    honest.add_local_candidate(address).unwrap();
    for candidate in victim.addresses() {
        liar.add_local_candidate(candidate).unwrap();
    }
    let mut events = ours.events();
    while soon(events.next()).await != Some(PathEvent::Candidates) {}
    for _ in 0..ROUNDS {
        // A round that follows too soon is refused, and is one less.
        ours.punch_round().ok();
        sleep(ROUND_EVERY).await;
    }
    victim.received()
}

#[tokio::test]
async fn many_ports_of_a_victim_get_no_more_than_one_host_may_whoever_begins_the_rounds() {
    for is_dialler in [true, false] {
        let received = rounds(is_dialler).await;
        let (packets, ports) =
            (received.iter().sum::<usize>(), received.iter().filter(|count| **count > 0).count());
        println!("the liar dials {is_dialler}: {packets} packets to {ports} ports");
        assert!(ports >= PORTS_TRIED_MIN, "nobody was deceived: {received:?}");
        assert!(packets <= PER_HOST_MAX, "{packets} packets: {received:?}");
    }
}
