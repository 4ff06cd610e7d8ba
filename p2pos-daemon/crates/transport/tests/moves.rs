//! Sockets that are rebuilt under live connections, and the small packets beside QUIC, over real loopback sockets.

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

use p2pos_transport::{PROBE_BYTES_MAX, ProbeError, ProbeKind};
use p2pos_traversal::{GUESS, KNOCK, OPENER};

use support::{connect, connect_by, endpoint, read_pattern, relay::Relay, send_pattern, soon, until, v4_of};

const TOTAL: usize = 48 * 1024 * 1024;

/// A transfer during which one side's sockets are rebuilt; returns the longest wait of the reader.
async fn rebuilt_under_load(dialler_moves: bool, uploads: bool) -> Duration {
    let (a, b) = (endpoint(1), endpoint(2));
    let (dialed, accepted) = soon(connect(&a, &b)).await;
    let (from, to) = if uploads { (&dialed, &accepted) } else { (&accepted, &dialed) };
    let progress = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn(read_pattern(to.clone(), TOTAL, progress.clone()));
    let sending = tokio::spawn(send_pattern(from.clone(), TOTAL));
    until(|| progress.load(Ordering::Relaxed) > TOTAL / 4).await;
    let mover = if dialler_moves { &a } else { &b };
    let before = v4_of(mover);
    soon(mover.rebuild_sockets()).await.unwrap();
    assert_eq!(v4_of(mover), before, "the port is kept");
    let longest = soon(reading).await.unwrap();
    soon(sending).await.unwrap();
    longest
}

#[tokio::test]
async fn a_transfer_survives_new_sockets_on_either_side_and_in_either_direction() {
    for (dialler_moves, uploads) in [(true, true), (true, false), (false, true), (false, false)] {
        let longest = rebuilt_under_load(dialler_moves, uploads).await;
        println!("dialler moves {dialler_moves}, uploads {uploads}: the longest wait was {longest:?}");
        assert!(longest < Duration::from_secs(3), "{longest:?}");
    }
}

#[tokio::test]
async fn a_relayed_connection_survives_new_sockets_on_both_sides() {
    let (a, b, relay) = (endpoint(1), endpoint(2), Relay::start().await);
    let ((dialed, there), (accepted, back)) = connect_by(&relay, &a, &b).await;
    let progress = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn(read_pattern(accepted.clone(), TOTAL / 8, progress.clone()));
    let sending = tokio::spawn(send_pattern(dialed.clone(), TOTAL / 8));
    until(|| progress.load(Ordering::Relaxed) > TOTAL / 32).await;
    for (endpoint, way) in [(&a, there), (&b, back)] {
        soon(endpoint.rebuild_sockets()).await.unwrap();
        assert_eq!(soon(endpoint.flow_bound(way)).await, Some(v4_of(endpoint)));
    }
    soon(reading).await.unwrap();
    soon(sending).await.unwrap();
    assert_eq!(dialed.paths().list().len(), 1, "the path through the relay is still the same");
}

#[tokio::test]
async fn guess_sockets_do_not_outlive_the_network_they_were_made_for() {
    let a = endpoint(1);
    let lucky = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = lucky.local_addr().unwrap();
    let way = a.add_guess_socket(lucky, "127.0.0.1:9".parse().unwrap()).unwrap();
    soon(a.rebuild_sockets()).await.unwrap();
    assert!(!a.remove_way(way));
    until(|| UdpSocket::bind(address).is_ok()).await;
}

#[tokio::test]
async fn probes_travel_between_endpoints_with_their_kind_and_sender() {
    let (a, b) = (endpoint(1), endpoint(2));
    let mut probes = b.probes().unwrap();
    assert!(b.probes().is_none());
    for (first, kind) in [(OPENER, ProbeKind::Opener), (GUESS, ProbeKind::Guess), (KNOCK, ProbeKind::Knock)] {
        a.send_probe(&[first, 1, 2, 3], v4_of(&b), None).unwrap();
        let probe = soon(probes.next()).await.unwrap();
        assert_eq!((probe.kind, &probe.bytes[..], probe.from), (kind, &[first, 1, 2, 3][..], v4_of(&a)));
        assert_eq!(probe.via, None);
    }
}

#[tokio::test]
async fn a_guess_socket_sends_and_receives_probes_of_its_own() {
    let (a, b) = (endpoint(1), endpoint(2));
    let mut probes = a.probes().unwrap();
    let lucky = UdpSocket::bind("127.0.0.3:0").unwrap();
    let address = lucky.local_addr().unwrap();
    let way = a.add_guess_socket(lucky, v4_of(&b)).unwrap();
    let mut at_b = b.probes().unwrap();
    a.send_probe(&[GUESS], way.socket_addr(), None).unwrap();
    assert_eq!(soon(at_b.next()).await.unwrap().from, address);
    b.send_probe(&[GUESS, 9], address, None).unwrap();
    let probe = soon(probes.next()).await.unwrap();
    assert_eq!((probe.from, probe.via), (v4_of(&b), Some(way)));
}

#[tokio::test]
async fn stun_is_heard_only_from_whom_we_asked() {
    let a = endpoint(1);
    let mut probes = a.probes().unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answer = [&[1, 1][..], &[0; 18]].concat();
    server.send_to(&answer, v4_of(&a)).unwrap();
    until(|| a.counters().stun == 1).await;
    a.send_probe(&[0; 20], server.local_addr().unwrap(), None).unwrap();
    server.send_to(&answer, v4_of(&a)).unwrap();
    assert_eq!(soon(probes.next()).await.unwrap().kind, ProbeKind::Stun);
}

#[tokio::test]
async fn what_cannot_be_a_probe_is_refused() {
    let a = endpoint(1);
    let to = v4_of(&a);
    assert_eq!(a.send_probe(&[0x40; 30], to, None), Err(ProbeError::NotAProbe(0x40)));
    assert_eq!(a.send_probe(&[5; 60], to, None), Err(ProbeError::NotAProbe(5)));
    let long = vec![GUESS; PROBE_BYTES_MAX + 1];
    assert_eq!(a.send_probe(&long, to, None), Err(ProbeError::TooLong { bytes: long.len() }));
    let group = "224.0.0.1:9".parse().unwrap();
    assert_eq!(a.send_probe(&[GUESS], group, None), Err(ProbeError::Unsendable(group)));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hop_limit_counts_for_one_packet_and_no_other() {
    use std::{io::IoSliceMut, os::fd::AsRawFd as _};

    use nix::sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt::Ipv4RecvTtl,
    };

    let a = endpoint(1);
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    setsockopt(&far, Ipv4RecvTtl, &true).unwrap();
    let mut hops = Vec::new();
    for ttl in [Some(3), None] {
        a.send_probe(&[OPENER], far.local_addr().unwrap(), ttl).unwrap();
        let (mut bytes, mut controls) = ([0; 16], nix::cmsg_space!(i32));
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<SockaddrStorage>(far.as_raw_fd(), &mut slices, Some(&mut controls), MsgFlags::empty());
        let received = message.unwrap().cmsgs().unwrap().find_map(|control| {
            if let ControlMessageOwned::Ipv4Ttl(ttl) = control { Some(ttl) } else { None }
        });
        hops.push(received.unwrap());
    }
    assert_eq!(hops[0], 3);
    assert!(hops[1] > 3, "the system's own limit is back: {hops:?}");
}
