//! One real UDP socket: binding, buffers, and non-blocking reads and writes with the kernel's offloads.
//!
//! ECN, packet info and segmentation offload are noq-udp's work; this file adds that no error ever ends the socket's user.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use noq_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, sync::Notify};

use crate::tuning::SOCKET_BUFFER_BYTES;

use super::{
    counters::Counter,
    message::{self, CAN_SEGMENT, Message},
};

/// Errors in a row after which a socket counts as broken until it is bound anew. A torn-down interface gives an endless
/// row; a stray ICMP error gives one.
const ERRORS_IN_A_ROW_MAX: u64 = 16;

/// One UDP socket in one address family.
#[derive(Debug)]
pub(crate) struct Family {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    broken: AtomicBool,
    /// The kernel refused to segment a message in pieces.
    no_segments: AtomicBool,
    /// Told when the socket breaks.
    alarm: Arc<Notify>,
    /// Told when nobody shall wait for this socket any more.
    closed: Notify,
}

/// A wait for the kernel's send buffer to have room.
pub(super) type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

impl Family {
    /// Binds a socket that raises `alarm` when it stops working.
    pub(super) fn bind(local: SocketAddr, alarm: Arc<Notify>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&local.into())?;
        Self::adopt(socket.into(), alarm)
    }

    /// Takes over a bound socket.
    pub(super) fn adopt(socket: std::net::UdpSocket, alarm: Arc<Notify>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let io = tokio::net::UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new((&io).into())?;
        for result in [
            state.set_send_buffer_size((&io).into(), SOCKET_BUFFER_BYTES),
            state.set_recv_buffer_size((&io).into(), SOCKET_BUFFER_BYTES),
        ] {
            if let Err(error) = result {
                tracing::debug!(%error, "the kernel keeps its own socket buffer size");
            }
        }
        let local = io.local_addr()?;
        let (broken, no_segments) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { io, state, local, broken, no_segments, alarm, closed: Notify::new() })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Segments that one send may carry now; falls to one if the device proves unable.
    pub(super) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().get()
    }

    /// The same for [`Family::try_send_pieces`].
    pub(super) fn segments_in_pieces_max(&self) -> usize {
        let is_able = CAN_SEGMENT && !self.no_segments.load(Ordering::Relaxed);
        if is_able { self.segments_max() } else { 1 }
    }

    /// Receives a batch. Errors are counted in `failures` and never returned: they would end noq's endpoint task.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        failures: &Counter,
    ) -> Poll<usize> {
        let mut in_a_row = 0;
        while !self.is_broken() {
            if let Err(error) = ready!(self.io.poll_recv_ready(cx)) {
                self.give_up(&error);
                break;
            }
            let received =
                self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), bufs, metas));
            match received {
                Ok(count) => return Poll::Ready(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    failures.count();
                    in_a_row += 1;
                    if in_a_row >= ERRORS_IN_A_ROW_MAX {
                        self.give_up(&error);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Marks the socket as one to be bound anew.
    pub(super) fn give_up(&self, error: &io::Error) {
        tracing::warn!(local = %self.local, %error, "a UDP socket stopped working; it is to be bound anew");
        self.broken.store(true, Ordering::Relaxed);
        self.alarm.notify_one();
    }

    /// Lets go of whoever waits for this socket, so that it can be closed and its port bound anew.
    pub(super) fn retire(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.closed.notify_waiters();
    }

    pub(super) fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit))
    }

    /// Sends a single datagram, or not. Asks the kernel and not tokio, which believes a new socket to be busy until its
    /// first turn.
    pub(super) fn send_at_once(&self, message: &Message<'_>) -> io::Result<()> {
        message::send(&self.io, message)
    }

    /// Sends a message made of several buffers.
    pub(super) fn try_send_pieces(&self, message: &Message<'_>) -> io::Result<()> {
        let sent = self.io.try_io(Interest::WRITABLE, || message::send(&self.io, message));
        // EIO and EINVAL (5, 22): the device cannot segment, as in noq-udp.
        let is_unable = |error: &io::Error| matches!(error.raw_os_error(), Some(5 | 22));
        if message.segment.is_some() && sent.as_ref().is_err_and(is_unable) {
            self.no_segments.store(true, Ordering::Relaxed);
        }
        sent
    }

    /// Completes when a send is worth another try, with an error once the socket is retired.
    pub(super) fn writable(self: Arc<Self>) -> Writable {
        Box::pin(async move {
            let closed = self.closed.notified();
            if self.is_broken() {
                return Err(io::ErrorKind::NotConnected.into());
            }
            tokio::select! {
                writable = self.io.writable() => writable,
                () = closed => Err(io::ErrorKind::NotConnected.into()),
            }
        })
    }
}
