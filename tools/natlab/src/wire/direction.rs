//! The thread that carries packets in one direction.
//!
//! Owns the packets on their way. It wakes for a packet that comes, for one that is due, and now and then to notice new settings.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    link::{Fate, Line, Link},
    train::{Train, VNET_BYTES},
};

/// Longest sleep, and so the longest until new settings count.
pub(super) const NOTICES_WITHIN: Duration = Duration::from_millis(10);

/// Packets read before due ones are delivered again.
const READS_AT_ONCE: usize = 32;

/// The longest packet that a device gives, bytes.
const PACKET_BYTES_MAX: usize = VNET_BYTES + 65_535;

/// Datagrams of one train that arrive within this time stay a train: less than any timer here can tell apart.
const TRAIN_SPREAD_MAX: Duration = Duration::from_micros(100);

/// Bytes on their way; a link of 1 s at 250 MiB/s. What comes on top is dropped.
const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a direction has done, in IP packets and their bytes; a train counts as its datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that arrived at the other end.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets dropped because the queue was full.
    pub overflowed: u64,
    /// Packets that the other end's interface did not take: it is down, or gone.
    pub refused: u64,
}

/// What the thread shares with the wire's handle.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) is_over: AtomicBool,
    new_link: Mutex<Option<Link>>,
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
    refused: AtomicU64,
}

impl Shared {
    pub(super) fn set(&self, link: Link) {
        *self.new_link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            delivered: self.delivered.load(Ordering::Relaxed),
            delivered_bytes: self.delivered_bytes.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            overflowed: self.overflowed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn take_new_link(&self) -> Option<Link> {
        self.new_link.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Packets on their way: a train, or one packet, with its time of arrival.
struct Parcel {
    due: Instant,
    count: u64,
    ip_bytes: u64,
    buffer: Vec<u8>,
}

/// One direction at work.
struct Carrier<'a> {
    shared: &'a Shared,
    line: Line,
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    parcels: VecDeque<Parcel>,
    in_flight_bytes: usize,
    /// Where the next packet is read to.
    scratch: Vec<u8>,
}

/// Carries packets until the wire is over.
pub(super) fn run(shared: &Shared, line: Line, from: &OwnedFd, to: &OwnedFd) {
    // Without it every sleep lasts 50 us longer. A kernel that refuses makes the wire less exact, and no more.
    if rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).is_err() {
        debug_assert!(false, "a thread may always set its own timer slack");
    }
    let scratch = vec![0; PACKET_BYTES_MAX];
    let mut carrier =
        Carrier { shared, line, from, to, parcels: VecDeque::new(), in_flight_bytes: 0, scratch };
    while !shared.is_over.load(Ordering::Relaxed) {
        if let Some(link) = shared.take_new_link() {
            carrier.line.set(link);
        }
        carrier.deliver_due(Instant::now());
        if !carrier.read_some() {
            carrier.sleep();
        }
    }
}

impl Carrier<'_> {
    fn deliver_due(&mut self, now: Instant) {
        while self.parcels.front().is_some_and(|parcel| parcel.due <= now) {
            let parcel = self.parcels.pop_front().expect("it was just looked at");
            self.in_flight_bytes -= parcel.buffer.len();
            match rustix::io::write(self.to, &parcel.buffer) {
                Ok(_) => {
                    self.shared.delivered.fetch_add(parcel.count, Ordering::Relaxed);
                    self.shared.delivered_bytes.fetch_add(parcel.ip_bytes, Ordering::Relaxed);
                }
                Err(_) => {
                    self.shared.refused.fetch_add(parcel.count, Ordering::Relaxed);
                }
            }
        }
    }

    /// Reads what has come, up to a bound; says whether there may be more.
    fn read_some(&mut self) -> bool {
        for _ in 0..READS_AT_ONCE {
            let mut scratch = std::mem::take(&mut self.scratch);
            let read = rustix::io::read(self.from, &mut scratch);
            self.scratch = scratch;
            match read {
                Ok(length) if length > VNET_BYTES => self.take(length),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Decides about the packet or train in the scratch buffer.
    fn take(&mut self, length: usize) {
        let now = Instant::now();
        if self.in_flight_bytes + length > IN_FLIGHT_BYTES_MAX {
            self.shared.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(train) = Train::of(&self.scratch[..length]) else {
            if let Some(due) = self.fate(now, length - VNET_BYTES) {
                let buffer = self.scratch[..length].to_vec();
                self.send(Parcel { due, count: 1, ip_bytes: (length - VNET_BYTES) as u64, buffer });
            }
            return;
        };
        let mut group: Vec<usize> = Vec::with_capacity(train.count());
        let (mut first_due, mut last_due) = (now, now);
        for index in 0..train.count() {
            let Some(due) = self.fate(now, train.ip_bytes(index)) else { continue };
            if !group.is_empty() && due - first_due > TRAIN_SPREAD_MAX {
                self.send_group(length, train, &group, last_due);
                group.clear();
            }
            if group.is_empty() {
                first_due = due;
            }
            group.push(index);
            last_due = due;
        }
        if !group.is_empty() {
            self.send_group(length, train, &group, last_due);
        }
    }

    fn fate(&mut self, now: Instant, ip_bytes: usize) -> Option<Instant> {
        match self.line.offer(now, ip_bytes) {
            Fate::ArrivesAt(due) => return Some(due),
            Fate::Lost => self.shared.lost.fetch_add(1, Ordering::Relaxed),
            Fate::Overflowed => self.shared.overflowed.fetch_add(1, Ordering::Relaxed),
        };
        None
    }

    fn send_group(&mut self, length: usize, train: Train, group: &[usize], due: Instant) {
        let buffer = if group.len() == train.count() {
            self.scratch[..length].to_vec()
        } else {
            train.keep(&self.scratch[..length], group)
        };
        let ip_bytes = group.iter().map(|&index| train.ip_bytes(index) as u64).sum();
        self.send(Parcel { due, count: group.len() as u64, ip_bytes, buffer });
    }

    fn send(&mut self, parcel: Parcel) {
        self.in_flight_bytes += parcel.buffer.len();
        self.parcels.push_back(parcel);
    }

    /// Sleeps until a packet comes, one is due, or new settings must be noticed.
    fn sleep(&self) {
        let until_due =
            self.parcels.front().map(|parcel| parcel.due.saturating_duration_since(Instant::now()));
        let time = until_due.map_or(NOTICES_WITHIN, |due| due.min(NOTICES_WITHIN));
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        let mut wanted = [PollFd::new(self.from, PollFlags::IN)];
        match poll(&mut wanted, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            // Nothing else can fail with one good descriptor; a short sleep keeps a surprise from burning a core.
            Err(_) => std::thread::sleep(NOTICES_WITHIN),
        }
    }
}
