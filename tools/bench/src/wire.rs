//! A long, lossy line for UDP on one machine: each datagram waits its time and may be lost. The kernels we test on have no netem.
//!
//! One near end (whoever sent to us last) and one far end. Each direction is a reading thread and a sending thread with a bounded queue
//! between them: a full queue drops, as a router's does.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Datagrams under way in one direction: a bottleneck-free line of 1 Gbit/s and 20 ms holds about 1,700 of 1,452 bytes; ten times that.
const UNDER_WAY_MAX: usize = 16 * 1024;
/// Longest UDP payload, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Kernel buffers, bytes: a burst of one congestion window must not be lost here.
const SOCKET_BUFFER_BYTES: libc::c_int = 8 << 20;

/// What the line does to a datagram, in each direction.
#[derive(Clone, Copy)]
pub struct Line {
    pub delay: Duration,
    /// Lost datagrams in a million.
    pub loss_ppm: u64,
}

/// Starts the wire towards `far` and returns the address of its near end.
pub fn start(far: SocketAddr, line: Line) -> Result<SocketAddr> {
    let near_socket = Arc::new(socket()?);
    let far_socket = Arc::new(socket()?);
    far_socket.connect(far)?;
    let here = near_socket.local_addr()?;
    let near_peer = Arc::new(Mutex::new(None));
    {
        let (near_peer, out) = (near_peer.clone(), far_socket.clone());
        carry(near_socket.clone(), line, move |from| set(&near_peer, from), move |datagram| drop(out.send(datagram)));
    }
    carry(far_socket, line, |_| {}, move |datagram| {
        if let Some(peer) = *near_peer.lock().expect("no thread panics while it holds this lock") {
            drop(near_socket.send_to(datagram, peer));
        }
    });
    Ok(here)
}

fn set(slot: &Mutex<Option<SocketAddr>>, from: SocketAddr) {
    *slot.lock().expect("no thread panics while it holds this lock") = Some(from);
}

fn carry(
    from: Arc<UdpSocket>,
    line: Line,
    seen: impl Fn(SocketAddr) + Send + 'static,
    send: impl Fn(&[u8]) + Send + 'static,
) {
    let (queue, waiting) = sync_channel(UNDER_WAY_MAX);
    std::thread::spawn(move || read(&from, line, &queue, seen));
    std::thread::spawn(move || deliver(&waiting, send));
}

fn read(from: &UdpSocket, line: Line, queue: &SyncSender<(Instant, Vec<u8>)>, seen: impl Fn(SocketAddr)) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    loop {
        // An ICMP error of a far end that restarts is no reason to end.
        let Ok((length, sender)) = from.recv_from(&mut buffer) else { continue };
        seen(sender);
        if dice.next() % 1_000_000 >= line.loss_ppm {
            // A full queue loses the datagram: that is what a full router does.
            drop(queue.try_send((Instant::now() + line.delay, buffer[..length].to_vec())));
        }
    }
}

fn deliver(waiting: &Receiver<(Instant, Vec<u8>)>, send: impl Fn(&[u8])) {
    for (due, datagram) in waiting {
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early);
        }
        send(&datagram);
    }
}

/// xorshift64: repeatable, and good enough to lose datagrams with.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[allow(unsafe_code, reason = "std has no socket buffer sizes, and one call is not worth a dependency")]
fn socket() -> Result<UdpSocket> {
    use std::os::fd::AsRawFd as _;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        // SAFETY: the descriptor is open for the whole call, and the value is a c_int of the size that is told.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(&SOCKET_BUFFER_BYTES).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error()).context("socket buffers of 8 MiB need root");
        }
    }
    Ok(socket)
}
