//! What strangers get from our port: nothing.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests fail like tests")]

mod support;

use std::{net::SocketAddr, time::Duration};

use tokio::{net::UdpSocket, time::timeout};

use support::{connect, endpoint, pair, soon, v4_of, v6_of};

/// Long enough for an answer over loopback, short enough for a test.
const LISTEN: Duration = Duration::from_millis(150);

/// A QUIC long header of type Initial.
fn initial(version: u32, dcid: &[u8], len: usize) -> Vec<u8> {
    let mut packet = vec![0xc3];
    packet.extend(version.to_be_bytes());
    packet.push(u8::try_from(dcid.len()).unwrap());
    packet.extend(dcid);
    packet.push(8);
    packet.extend([9; 8]);
    packet.push(0);
    let rest = u16::try_from(len - packet.len() - 2).unwrap();
    packet.extend((rest | 0x4000).to_be_bytes());
    packet.resize(len, 0xa5);
    packet
}

/// Everything a stranger may try, from a fixed seed.
fn probes() -> Vec<Vec<u8>> {
    const OURS: u32 = p2pos_noise_quic::QUIC_VERSION;
    let mut probes = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        vec![],
        initial(1, &[7; 8], 1_200),
        initial(0x0a1a_2a3a, &[7; 8], 1_200),
        initial(0, &[7; 8], 1_200),
        initial(OURS, &[7; 20], 1_200),
        initial(OURS, &[7; 8], 1_250),
        initial(OURS, &[7; 4], 1_200),
        initial(OURS, &[], 1_200),
        initial(OURS, &[7; 8], 300),
        vec![0x40; 1_200],
    ];
    probes.extend((0..16).map(|first| vec![first; 64]));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for len in (1..1_400).step_by(7) {
        let noise = (0..len).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let mut noise: Vec<u8> = noise.collect();
        probes.push(noise.clone());
        noise[0] = 0x40 | (noise[0] & 0x3f);
        probes.push(noise);
    }
    probes
}

async fn bytes_answered(target: SocketAddr, probes: &[Vec<u8>]) -> usize {
    let local = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).await.unwrap();
    for probe in probes {
        socket.send_to(probe, target).await.unwrap();
    }
    let mut buffer = [0; 2_048];
    let mut bytes = 0;
    while let Ok(Ok((len, _))) = timeout(LISTEN, socket.recv_from(&mut buffer)).await {
        bytes += len.max(1);
    }
    bytes
}

#[tokio::test]
async fn garbage_at_the_port_is_answered_with_zero_bytes() {
    let b = endpoint(2);
    for target in [v4_of(&b), v6_of(&b)] {
        assert_eq!(bytes_answered(target, &probes()).await, 0);
    }
    let counters = b.counters();
    assert!(counters.relay > 0 && counters.probe > 0 && counters.unknown > 0 && counters.unwanted_quic > 0);
    // And it still serves those who know it.
    let a = endpoint(1);
    soon(connect(&a, &b)).await;
}

#[tokio::test]
async fn garbage_during_a_shutdown_is_answered_with_zero_bytes() {
    let b = endpoint(2);
    let (target, probes) = (v4_of(&b), probes());
    let (bytes, ()) =
        tokio::join!(bytes_answered(target, &probes), b.close(p2pos_peer_protocol::EndCode::SHUTTING_DOWN));
    assert_eq!(bytes, 0);
}

#[tokio::test]
async fn a_made_up_connection_id_gets_no_reset() {
    let (_a, _dialed, b, _accepted) = soon(pair()).await;
    // Of the right length, but without the keyed tag: nothing comes back, although resets are free shortly after a start.
    let mut forged = vec![0x41; 64];
    forged[1..9].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bytes_answered(v4_of(&b), &[forged]).await, 0);
}
