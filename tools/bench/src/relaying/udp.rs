//! Trains of UDP datagrams by the kernel's own means, and a forwarder that does nothing else: many messages for each system call, each of
//! them a train (GRO in, GSO out). It is as fast as we know how to write one, and so what a relay on the same machine can be held against.

use std::{
    fs::File,
    io, mem,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    path::Path,
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::Forwarded;

/// Messages of one system call.
const MESSAGES: usize = 32;
/// The longest train, bytes, and the most datagrams of one (UDP_MAX_SEGMENTS of kernels before 6.8).
const TRAIN_BYTES: usize = 65_507;
const SEGMENTS_MAX: usize = 64;
/// Socket buffers, bytes: what the daemon asks for, too.
const BUFFER_BYTES: libc::c_int = 4 << 20;
/// How often the forwarder writes down its counts: a system call in thousands.
const WRITE_EVERY: Duration = Duration::from_millis(10);
/// Room for one control message with a number in it.
const CONTROL_BYTES: usize = 64;

/// How many datagrams of that size a train holds.
pub fn segments_of(datagram_bytes: usize) -> usize {
    (TRAIN_BYTES / datagram_bytes).clamp(1, SEGMENTS_MAX)
}

/// A socket on any port that gets trains as trains.
pub fn bind(ip: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
    set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        set_option(&socket, libc::SOL_SOCKET, option, BUFFER_BYTES)?;
    }
    Ok(socket)
}

fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of a number that lives until the call returns.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends datagrams of `segment` bytes each to where the socket is connected. A full receiver is none of the sender's business.
pub fn send_train(socket: &UdpSocket, train: &[u8], segment: usize) -> io::Result<()> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut piece = libc::iovec { iov_base: train.as_ptr().cast_mut().cast(), iov_len: train.len() };
    // SAFETY: zeros are a message without anything.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    control.ask_segments(&mut message, segment, train.len());
    loop {
        // SAFETY: the message points to a train, an iovec and a control buffer that live until the call returns.
        if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS | libc::ECONNREFUSED)) {
            return Err(error);
        }
    }
}

/// (internal) Sends datagrams that are as long as a relay's frames around packets of that size, for ever.
pub fn flood(ip: IpAddr, to: &str, packet_bytes: usize, ready: impl FnOnce(&str)) -> Result<()> {
    let socket = bind(ip)?;
    socket.connect(to)?;
    ready("flood");
    let datagram_bytes = p2pos_relay::HEAD_BYTES + packet_bytes;
    let train = vec![0x5a; datagram_bytes * segments_of(datagram_bytes)];
    loop {
        send_train(&socket, &train, datagram_bytes)?;
    }
}

/// (internal) A socket that nobody reads: what does not fit is dropped by the kernel.
pub fn sink(ip: IpAddr, ready: impl FnOnce(&str)) -> Result<()> {
    let socket = bind(ip)?;
    ready(&socket.local_addr()?.to_string());
    loop {
        std::thread::park();
    }
}

/// (internal) Forwards all that comes to one address, and writes what that was into `counts`.
pub fn forward(ip: IpAddr, to: &str, counts: &Path, ready: impl FnOnce(&str)) -> Result<()> {
    let socket = bind(ip)?;
    let SocketAddr::V4(to) = to.parse()? else { bail!("the places have IPv4 addresses") };
    let counts = File::create(counts)?;
    ready(&socket.local_addr()?.to_string());
    let mut destination = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    let mut buffers = vec![0_u8; MESSAGES * 65_536];
    let mut pieces: Vec<libc::iovec> = buffers
        .chunks_mut(65_536)
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    let mut controls = [const { Control([0; CONTROL_BYTES]) }; MESSAGES];
    // SAFETY: zeros are messages without anything.
    let mut messages: [libc::mmsghdr; MESSAGES] = unsafe { mem::zeroed() };
    let (mut total, mut written_at) = (Forwarded::default(), Instant::now());
    loop {
        for ((message, piece), control) in messages.iter_mut().zip(&mut pieces).zip(&mut controls) {
            piece.iov_len = 65_536;
            let head = &mut message.msg_hdr;
            (head.msg_name, head.msg_namelen) = (ptr::null_mut(), 0);
            (head.msg_iov, head.msg_iovlen) = (piece, 1);
            (head.msg_control, head.msg_controllen) = (control.0.as_mut_ptr().cast(), CONTROL_BYTES);
        }
        let count = receive(&socket, &mut messages)?;
        for ((message, piece), control) in messages.iter_mut().zip(&mut pieces).zip(&mut controls).take(count)
        {
            let length = message.msg_len as usize;
            let segment = control.segment_of(&message.msg_hdr).unwrap_or(length).max(1);
            piece.iov_len = length;
            let head = &mut message.msg_hdr;
            head.msg_name = ptr::from_mut(&mut destination).cast();
            head.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            control.ask_segments(head, segment, length);
            total.bytes += length as u64;
            total.packets += length.div_ceil(segment) as u64;
        }
        send(&socket, &mut messages[..count])?;
        if written_at.elapsed() >= WRITE_EVERY {
            written_at = Instant::now();
            total.write(&counts)?;
        }
    }
}

fn receive(socket: &UdpSocket, messages: &mut [libc::mmsghdr]) -> Result<usize> {
    loop {
        let (messages, count) = (messages.as_mut_ptr(), messages.len() as libc::c_uint);
        // SAFETY: each message points to a buffer, an iovec and a control buffer of its own, with their true lengths.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), messages, count, libc::MSG_WAITFORONE, ptr::null_mut())
        };
        if received >= 0 {
            return usize::try_from(received).context("a count");
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNREFUSED)) {
            return Err(error.into());
        }
    }
}

fn send(socket: &UdpSocket, messages: &mut [libc::mmsghdr]) -> Result<()> {
    let mut sent = 0;
    while sent < messages.len() {
        let rest = &mut messages[sent..];
        // SAFETY: as in `receive`; the destination lives in the caller.
        let count =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
        if count >= 0 {
            sent += usize::try_from(count).context("a count")?;
            continue;
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            // The receiver is full or gone: this one is lost.
            error if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECONNREFUSED)) => sent += 1,
            error => return Err(error.into()),
        }
    }
    Ok(())
}

/// A buffer for control messages, aligned as they want it.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Control {
    /// Asks the kernel to cut a message into segments.
    fn ask_segments(&mut self, message: &mut libc::msghdr, segment: usize, length: usize) {
        if segment >= length {
            (message.msg_control, message.msg_controllen) = (ptr::null_mut(), 0);
            return;
        }
        let size = mem::size_of::<u16>() as libc::c_uint;
        message.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: the buffer is zeroed memory of CONTROL_BYTES, more than one head with two bytes needs, and is aligned for a head.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size) as usize;
            let head = libc::CMSG_FIRSTHDR(message);
            ((*head).cmsg_level, (*head).cmsg_type) = (libc::SOL_UDP, libc::UDP_SEGMENT);
            (*head).cmsg_len = libc::CMSG_LEN(size) as usize;
            libc::CMSG_DATA(head).cast::<u16>().write_unaligned(segment as u16);
        }
    }

    /// How long the datagrams of a train are that came in, if it is one.
    fn segment_of(&self, message: &libc::msghdr) -> Option<usize> {
        // SAFETY: the kernel has filled in the control buffer to which the message points, and its length.
        unsafe {
            let head = libc::CMSG_FIRSTHDR(message);
            let is_train =
                !head.is_null() && (*head).cmsg_level == libc::SOL_UDP && (*head).cmsg_type == libc::UDP_GRO;
            let segment = is_train.then(|| libc::CMSG_DATA(head).cast::<libc::c_int>().read_unaligned());
            segment.and_then(|segment| usize::try_from(segment).ok())
        }
    }
}
