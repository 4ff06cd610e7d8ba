//! The wire does what it says: round trip, loss, rate and counters are measured against the settings, with real sockets.
//!
//! These tests make network namespaces and TUN devices: they need CAP_SYS_ADMIN and CAP_NET_ADMIN, and fail without.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails should say so at once, and with which seed"
)]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use noq_udp::{Transmit, UdpSocketState};
use p2pos_natlab::wire::{Direction, End, Link, Wire, WireSpec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const MS: Duration = Duration::from_millis(1);
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

#[test]
fn the_round_trip_is_twice_the_delay() {
    let world = World::new(Link::delay(20 * MS));
    let (near, far) = world.udp_pair();
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while let Ok((1, from)) = far.recv_from(&mut byte) {
            far.send_to(&byte, from).unwrap();
        }
    });
    let fastest = (0..60)
        .map(|_| {
            let start = Instant::now();
            near.send(&[1]).unwrap();
            near.recv(&mut [0]).unwrap();
            start.elapsed()
        })
        .min();
    near.send(&[]).unwrap();
    echo.join().unwrap();
    // What a busy machine adds to single round trips says nothing about the wire; the fastest does.
    let fastest = fastest.expect("there were sixty");
    assert!((40 * MS..50 * MS).contains(&fastest), "the fastest round trip took {fastest:?}");
}

#[test]
fn the_set_part_of_the_packets_is_lost_and_counted() {
    let world = World::new(Link::delay(MS).with_loss(0.1));
    let (near, far) = world.udp_pair();
    far.set_nonblocking(true).unwrap();
    let mut got = 0;
    let mut drain = || {
        while far.recv(&mut [0; 100]).is_ok() {
            got += 1;
        }
    };
    for round in 1..=100 {
        for _ in 0..50 {
            near.send(&[7; 100]).unwrap();
        }
        // No queue of the kernel may overflow: losses are to be the wire's.
        wait_for(|| {
            let counters = world.wire.counters(Direction::There);
            (counters.delivered + counters.lost >= 50 * round).then_some(())
        });
        drain();
    }
    let counters = wait_for(|| {
        let counters = world.wire.counters(Direction::There);
        (counters.delivered + counters.lost >= 5_000).then_some(counters)
    });
    assert!((400..600).contains(&counters.lost), "{counters:?}");
    drain();
    assert_eq!(got, counters.delivered);
}

#[test]
fn a_train_of_datagrams_loses_single_datagrams_and_the_rest_arrives_whole() {
    let world = World::new(Link::delay(MS).with_loss(0.2));
    let (near, far) = world.udp_pair();
    rustix::net::sockopt::set_socket_recv_buffer_size(&far, 4 << 20).unwrap();
    // Bytes 103 of each datagram of a train tell which it was.
    let payload: Vec<u8> = (0..40_u8).flat_map(|index| [index; 1_000]).collect();
    let mut sent = 0;
    for _ in 0..25 {
        sent += send_train(&near, &payload, 1_000);
        thread::sleep(MS);
    }
    let counters = wait_for(|| {
        let counters = world.wire.counters(Direction::There);
        (counters.delivered + counters.lost >= sent).then_some(counters)
    });
    assert!((120..280).contains(&counters.lost), "{counters:?}");
    far.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2_000];
    let mut got = 0;
    while let Ok(length) = far.recv(&mut buffer) {
        assert_eq!(length, 1_000);
        assert!(buffer[..length].iter().all(|&byte| byte == buffer[0]), "two datagrams were mixed");
        got += 1;
    }
    assert_eq!(got, counters.delivered);
}

#[test]
fn a_bottleneck_gives_tcp_its_rate_and_no_more() {
    let world = World::new(Link::delay(5 * MS).with_bottleneck(80_000_000, 200_000));
    let seconds = tcp_seconds(&world, 8 << 20);
    let mbit = 8.0 * f64::from(8 << 20) / seconds / 1e6;
    // A busy machine may leave some of it unused.
    assert!((30.0..80.0).contains(&mbit), "TCP reached {mbit:.1} of 80 Mbit/s");
}

#[test]
fn a_direction_can_be_cut_and_mended_while_it_runs() {
    let world = World::new(Link::default());
    let (near, far) = world.udp_pair();
    far.set_read_timeout(Some(200 * MS)).unwrap();
    near.send(&[1]).unwrap();
    far.recv(&mut [0]).unwrap();
    world.wire.set(Direction::There, Link::default().with_loss(1.0));
    thread::sleep(50 * MS);
    near.send(&[2]).unwrap();
    assert!(far.recv(&mut [0]).is_err());
    // The way back still works.
    far.send_to(&[3], near.local_addr().unwrap()).unwrap();
    near.recv(&mut [0]).unwrap();
    world.wire.set(Direction::There, Link::default());
    thread::sleep(50 * MS);
    near.send(&[4]).unwrap();
    let mut byte = [0];
    far.recv(&mut byte).unwrap();
    assert_eq!(byte, [4]);
}

#[test]
fn a_dropped_wire_takes_its_interfaces_along() {
    let World { wire, names, .. } = &mut World::new(Link::default());
    let shown =
        |name: &str| Command::new("ip").args(["-n", name, "link", "show", "dev", "wire"]).output().unwrap();
    assert!(shown(&names[0]).status.success());
    let end = |name: &str| End::in_namespace(name, "second", &[]);
    *wire = Wire::start(&WireSpec::new(end(&names[0]), end(&names[1]), Link::default(), 1)).unwrap();
    assert!(!shown(&names[0]).status.success());
    assert!(!shown(&names[1]).status.success());
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let end = |interface: &str| End::in_namespace("p2pos-nowhere", interface, &[]);
    let error = Wire::start(&WireSpec::new(end("x"), end("y"), Link::default(), 1)).unwrap_err();
    assert!(error.to_string().contains("p2pos-nowhere"), "{error}");
}

/// Not a test of behaviour but the measurement behind "fast": run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_fast_the_wire_is() {
    let world = World::new(Link::delay(20 * MS));
    let (near, _far) = world.udp_pair();
    let payload = vec![7; 1_400 * 45];
    for (name, train) in [("single packets", &payload[..1_400]), ("trains", &payload[..])] {
        let before = world.wire.counters(Direction::There);
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < 2_000 * MS {
            sent += send_train(&near, train, 1_400);
            while world.wire.counters(Direction::There).delivered - before.delivered + 20_000 < sent {
                thread::sleep(MS / 10);
            }
        }
        let after = world.wire.counters(Direction::There);
        let mib = (after.delivered_bytes - before.delivered_bytes) as f64 / f64::from(1 << 20);
        println!("UDP in {name}: {:.0} MiB/s", mib / start.elapsed().as_secs_f64());
        thread::sleep(100 * MS);
    }
}

/// Two namespaces and a wire between them.
struct World {
    wire: Wire,
    names: [String; 2],
}

impl World {
    fn new(link: Link) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|end| format!("wiretest-{}-{number}{end}", std::process::id()));
        for name in &names {
            let made = Command::new("ip").args(["netns", "add", name]).output().unwrap();
            let words = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "needs CAP_SYS_ADMIN to make network namespaces: {words}");
            inside(name, || {
                // The kernel's own multicast reports would be counted among our packets.
                std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            });
        }
        let a = End::in_namespace(&names[0], "wire", &["10.77.0.1/24"]);
        let b = End::in_namespace(&names[1], "wire", &["10.77.0.2/24"]);
        println!("seed {number}");
        let wire = Wire::start(&WireSpec::new(a, b, link, u64::from(number))).unwrap();
        Self { wire, names }
    }

    /// A socket at a, connected to one at b.
    fn udp_pair(&self) -> (UdpSocket, UdpSocket) {
        let far = inside(&self.names[1], || UdpSocket::bind((B, 7_000)).unwrap());
        let near = inside(&self.names[0], || UdpSocket::bind((A, 0)).unwrap());
        near.connect((B, 7_000)).unwrap();
        near.set_read_timeout(Some(2_000 * MS)).unwrap();
        (near, far)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            assert!(Command::new("ip").args(["netns", "del", name]).status().unwrap().success());
        }
    }
}

/// Runs `work` inside a namespace; what it makes stays there.
fn inside<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let path = format!("/run/netns/{name}");
    thread::spawn(move || {
        let handle = File::open(path).unwrap();
        move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
    .join()
    .unwrap()
}

/// Sends `payload` as datagrams of `each` bytes in one call, as QUIC does, and says how many they are.
fn send_train(socket: &UdpSocket, payload: &[u8], each: usize) -> u64 {
    let state = UdpSocketState::new(socket.into()).unwrap();
    let train = Transmit {
        destination: (B, 7_000).into(),
        ecn: None,
        contents: payload,
        segment_size: Some(each),
        src_ip: None,
    };
    while state.try_send(socket.into(), &train).is_err() {
        thread::sleep(MS / 10);
    }
    payload.len().div_ceil(each) as u64
}

fn tcp_seconds(world: &World, bytes: usize) -> f64 {
    let listener = inside(&world.names[1], || TcpListener::bind(SocketAddr::from((B, 7_001))).unwrap());
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            left -= stream.read(&mut buffer).unwrap();
        }
        stream.write_all(&[1]).unwrap();
    });
    let mut stream = inside(&world.names[0], || TcpStream::connect((B, 7_001)).unwrap());
    let start = Instant::now();
    stream.write_all(&vec![7; bytes]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    reader.join().unwrap();
    start.elapsed().as_secs_f64()
}

fn wait_for<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < 10_000 * MS, "it did not come in 10 s");
        thread::sleep(MS / 2);
    }
}
