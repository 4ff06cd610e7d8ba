//! Ways that are no plain addresses, over real loopback sockets: relays over UDP and TCP, guess sockets, all at once; and
//! how traffic moves from one to another.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use p2pos_transport::{
    Connection, Endpoint, FakeAddr, FakeKind, PathEvent, PathId, PathKind, PathStatus, Pulse, Sign, Way,
};
use tokio::time::sleep;

use support::{
    connect, connect_by, dial, endpoint, read_pattern,
    relay::{Nat, Relay},
    send_pattern, soon, until, v4_of,
};

const MIB: usize = 1024 * 1024;

/// Moves `total` bytes and says what the longest wait was.
async fn transfer(from: &Connection, to: &Connection, total: usize) -> Duration {
    let reading = read_pattern(to.clone(), total, Arc::default());
    soon(async { tokio::join!(send_pattern(from.clone(), total), reading) }).await.1
}

/// Mirrors the dialler's choices on the dialled side for as long as the test runs.
fn mirror(connection: &Connection) {
    let paths = connection.paths();
    let mut events = paths.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            paths.mirror(&event);
        }
    });
}

fn only_way(connection: &Connection) -> Way {
    let list = connection.paths().list();
    assert_eq!(list.len(), 1, "{list:?}");
    list[0].way
}

#[tokio::test]
async fn a_connection_through_a_relay_carries_data_both_ways() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, there), (accepted, back)) = connect_by(&relay, &a, &b).await;
    assert_eq!(only_way(&dialed), Way::Relay { fake: there, relay: relay.address() });
    assert_eq!(only_way(&accepted), Way::Relay { fake: back, relay: relay.address() });
    assert_eq!(dialed.path().unwrap().kind, PathKind::Relayed);
    transfer(&dialed, &accepted, 4 * MIB).await;
    transfer(&accepted, &dialed, 4 * MIB).await;
    let (sent, received) = (a.flow_traffic(there).unwrap(), b.flow_traffic(back).unwrap());
    assert!(sent.bytes_sent > 4 * MIB as u64 && sent.bytes_received > 4 * MIB as u64, "{sent:?}");
    assert!(received.packets_received <= sent.packets_sent, "{received:?} of {sent:?}");
    assert_eq!(dialed.paths().observed_addr(), None, "the peer's name for the relay is no address of ours");
}

#[tokio::test]
async fn the_relay_says_where_it_sees_us_and_says_it_again_after_a_move() {
    let (a, relay) = (endpoint(1), Relay::start().await);
    let way = a.add_relay_flow(relay.flow(0)).unwrap();
    assert_eq!(soon(a.flow_bound(way)).await, Some(v4_of(&a)));
    soon(a.rebuild_sockets()).await.unwrap();
    assert_eq!(soon(a.flow_bound(way)).await, Some(v4_of(&a)));
    assert!(a.remove_way(way) && !a.remove_way(way));
    assert_eq!((a.flow_bound(way).await, a.flow_traffic(way)), (None, None));
}

#[tokio::test]
async fn a_direct_path_takes_over_and_the_relay_carries_nothing_more() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, _), (accepted, _)) = connect_by(&relay, &a, &b).await;
    mirror(&accepted);
    transfer(&dialed, &accepted, MIB).await;

    let paths = dialed.paths();
    let direct = soon(paths.open(v4_of(&b), PathStatus::Available)).await.unwrap();
    assert_eq!(paths.get(direct).unwrap().way, Way::Direct(v4_of(&b)));
    paths.set_status(PathId::FIRST, PathStatus::Backup).unwrap();
    until(|| accepted.paths().get(PathId::FIRST).is_some_and(|path| path.status == PathStatus::Backup)).await;
    transfer(&dialed, &accepted, MIB).await;
    paths.close(PathId::FIRST).unwrap();
    until(|| accepted.paths().list().len() == 1 && paths.list().len() == 1).await;
    assert_eq!(only_way(&accepted), Way::Direct(v4_of(&a)));

    // What was on its way when the path closed has three round trips to arrive.
    sleep(Duration::from_millis(500)).await;
    let before = relay.packets();
    transfer(&dialed, &accepted, 4 * MIB).await;
    transfer(&accepted, &dialed, 4 * MIB).await;
    assert_eq!(relay.packets(), before, "a settled pair needs no relay");
    assert_eq!(dialed.path().unwrap().kind, PathKind::Loopback);
}

/// A transfer over a direct path which is cut at a third. At the dialler's first suspicion traffic moves to the relay, at
/// the second the dead path is closed: that order matters, because noq sends again what was in flight on a closed path after
/// three of the path's timeouts, which grow with every acknowledgement that comes late by the new path.
/// Returns the longest wait of the reader.
async fn cut_under_load(uploads: bool) -> Duration {
    const TOTAL: usize = 24 * MIB;
    const PATIENCE: Duration = Duration::from_millis(100);
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, there), (accepted, _)) = connect_by(&relay, &a, &b).await;
    mirror(&accepted);
    let nat = Nat::start(v4_of(&b)).await;
    let paths = dialed.paths();
    let direct = soon(paths.open(nat.address(), PathStatus::Available)).await.unwrap();
    paths.close(PathId::FIRST).unwrap();
    until(|| accepted.paths().list().len() == 1).await;

    let (from, to) = if uploads { (&dialed, &accepted) } else { (&accepted, &dialed) };
    let progress = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn(read_pattern(to.clone(), TOTAL, progress.clone()));
    let sending = tokio::spawn(send_pattern(from.clone(), TOTAL));
    until(|| progress.load(Ordering::Relaxed) > TOTAL / 3).await;
    nat.cut();
    let suspicion = async || while paths.feel_pulse(direct, Sign::Answer, PATIENCE).await != Pulse::Silent {};
    suspicion().await;
    let relayed = soon(paths.open(there.socket_addr(), PathStatus::Available)).await.unwrap();
    paths.set_status(direct, PathStatus::Backup).unwrap();
    suspicion().await;
    paths.close(direct).unwrap();
    let longest = soon(reading).await.unwrap();
    soon(sending).await.unwrap();
    until(|| paths.list().iter().all(|path| path.id == relayed)).await;
    longest
}

#[tokio::test]
async fn a_direct_path_cut_under_an_upload_loses_no_byte() {
    let longest = cut_under_load(true).await;
    println!("the longest wait was {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test]
async fn a_direct_path_cut_under_a_download_loses_no_byte() {
    let longest = cut_under_load(false).await;
    println!("the longest wait was {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test]
async fn a_guess_socket_of_the_dialled_side_becomes_a_path() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, _), (accepted, _)) = connect_by(&relay, &a, &b).await;
    let lucky = UdpSocket::bind("127.0.0.3:0").unwrap();
    let hit = lucky.local_addr().unwrap();
    let way = b.add_guess_socket(lucky, v4_of(&a)).unwrap();
    let path = soon(dialed.paths().open(hit, PathStatus::Available)).await.unwrap();
    dialed.paths().close(PathId::FIRST).unwrap();
    until(|| accepted.paths().list().len() == 1).await;
    assert_eq!(only_way(&accepted), Way::Guess { fake: way, remote: v4_of(&a) });
    assert_eq!(dialed.paths().get(path).unwrap().way, Way::Direct(hit));
    transfer(&dialed, &accepted, 2 * MIB).await;
    transfer(&accepted, &dialed, 2 * MIB).await;
}

#[tokio::test]
async fn a_guess_socket_of_the_dialling_side_becomes_a_path_and_speaks_to_nobody_else() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, _), (accepted, _)) = connect_by(&relay, &a, &b).await;
    let lucky = UdpSocket::bind("127.0.0.3:0").unwrap();
    let hit = lucky.local_addr().unwrap();
    let way = a.add_guess_socket(lucky, v4_of(&b)).unwrap();
    soon(dialed.paths().open(way.socket_addr(), PathStatus::Available)).await.unwrap();
    dialed.paths().close(PathId::FIRST).unwrap();
    until(|| accepted.paths().list().len() == 1).await;
    assert_eq!(only_way(&accepted), Way::Direct(hit));
    let before = a.counters().unwanted_quic;
    let stranger = UdpSocket::bind("127.0.0.4:0").unwrap();
    stranger.send_to(&[0x41; 100], hit).unwrap();
    until(|| a.counters().unwanted_quic == before + 1).await;
    transfer(&accepted, &dialed, 2 * MIB).await;
}

#[tokio::test]
async fn a_connection_through_a_relay_over_tcp_carries_data() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    relay.serve(theirs);
    let connection = a.add_tcp_relay(ours, relay.address());
    let there = a.add_tcp_relay_flow(&connection, relay.end(0)).unwrap();
    let back = b.add_relay_flow(relay.flow(1)).unwrap();
    assert_eq!(soon(a.flow_bound(there)).await, Some("192.0.2.99:9".parse().unwrap()));
    soon(b.flow_bound(back)).await;
    let addresses = [there.socket_addr()];
    let both = async { tokio::join!(dial(&a, b.peer_id(), &addresses), b.accept()) };
    let (dialed, accepted) = soon(both).await;
    let (dialed, accepted) = (dialed.0.unwrap(), accepted.unwrap());
    assert_eq!(dialed.path().unwrap().kind, PathKind::TcpRelayed);
    transfer(&dialed, &accepted, 2 * MIB).await;
    transfer(&accepted, &dialed, 2 * MIB).await;
    drop(connection);
    let before = a.flow_traffic(there).unwrap().packets_received;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(a.flow_traffic(there).unwrap().packets_received, before);
}

async fn dial_all(a: &Endpoint, b: &Endpoint, ways: &[std::net::SocketAddr]) -> (Connection, Connection) {
    let all = a.add_peer(ways).unwrap();
    assert_eq!(all.kind(), FakeKind::Peer);
    let addresses = [all.socket_addr()];
    let both = async { tokio::join!(dial(a, b.peer_id(), &addresses), b.accept()) };
    let (dialed, accepted) = soon(both).await;
    assert!(a.remove_way(all));
    (dialed.0.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn a_first_packet_to_all_ways_at_once_ends_in_one_connection() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let there = a.add_relay_flow(relay.flow(0)).unwrap();
    let back = b.add_relay_flow(relay.flow(1)).unwrap();
    soon(async { tokio::join!(a.flow_bound(there), b.flow_bound(back)) }).await;
    let ways = [silent.local_addr().unwrap(), there.socket_addr(), v4_of(&b)];
    let (dialed, accepted) = dial_all(&a, &b, &ways).await;
    assert!(matches!(only_way(&dialed), Way::Relay { .. } | Way::Direct(_)), "the one that answered");
    transfer(&dialed, &accepted, MIB).await;
    let ways = [silent.local_addr().unwrap(), there.socket_addr()];
    let (dialed, accepted) = dial_all(&a, &b, &ways).await;
    assert_eq!(only_way(&dialed), Way::Relay { fake: there, relay: relay.address() });
    transfer(&dialed, &accepted, MIB).await;
}

#[tokio::test]
async fn a_punching_round_turns_candidates_into_backup_paths() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, _), (accepted, _)) = connect_by(&relay, &a, &b).await;
    let (ours, theirs) = (dialed.paths(), accepted.paths());
    let mut events = ours.events();
    theirs.add_local_candidate(v4_of(&b)).unwrap();
    while soon(events.next()).await != Some(PathEvent::Candidates) {}
    assert_eq!(ours.remote_candidates().unwrap(), [v4_of(&b)]);
    assert!(ours.punch_round().is_err(), "without an address of ours the peer could try nothing");
    ours.add_local_candidate(v4_of(&a)).unwrap();
    assert!(theirs.punch_round().is_err(), "only the dialler begins");
    assert_eq!(ours.punch_round().unwrap(), [v4_of(&b)]);
    let opened = loop {
        match soon(events.next()).await.unwrap() {
            PathEvent::Opened(id) => break id,
            PathEvent::Abandoned { .. }
            | PathEvent::PeerStatus { .. }
            | PathEvent::Observed { .. }
            | PathEvent::Candidates
            | PathEvent::Missed => {}
        }
    };
    let path = ours.get(opened).unwrap();
    assert_eq!((path.way, path.status), (Way::Direct(v4_of(&b)), PathStatus::Backup));
    until(|| ours.observed_addr() == Some(v4_of(&a))).await;
    dialed.close(p2pos_peer_protocol::EndCode::SHUTTING_DOWN);
    while soon(events.next()).await.is_some() {}
}

#[tokio::test]
async fn what_the_dialled_side_may_not_do_is_said() {
    use p2pos_transport::{CandidateError, PathError};
    let (a, b) = (endpoint(1), endpoint(2));
    let (dialed, accepted) = soon(connect(&a, &b)).await;
    let other = v4_of(&endpoint(3));
    assert_eq!(soon(accepted.paths().open(other, PathStatus::Backup)).await, Err(PathError::NotOurs));
    assert_eq!(dialed.paths().close(PathId::FIRST), Err(PathError::Last));
    let group = "224.0.0.1:9".parse().unwrap();
    assert_eq!(dialed.paths().open(group, PathStatus::Backup).await, Err(PathError::Unsendable(group)));
    assert_eq!(dialed.paths().add_local_candidate(group), Err(CandidateError::Unsendable(group)));
    let gone = a.add_peer(&[other]).unwrap();
    assert!(a.remove_way(gone));
    let gone = gone.socket_addr();
    assert_eq!(dialed.paths().open(gone, PathStatus::Backup).await, Err(PathError::Unsendable(gone)));
    assert!(FakeAddr::of(gone.ip()).is_some());
    assert!(matches!(
        dialed.paths().feel_pulse(PathId::FIRST, Sign::Answer, Duration::from_secs(20)).await,
        Pulse::Alive(_)
    ));
}
