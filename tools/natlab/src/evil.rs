//! An evil relay: a real one, behind somebody who holds its line and mangles the frames that pass.
//!
//! Users are told the address of the front, which passes on whatever they say: handshakes and control messages as they are, so that
//! the relay behind is believed, and the frames that it forwards to each of them as [`Mischief`] has it. A front knows all that a relay
//! knows of a frame: the heads with which each user accepts frames, and so it can hand to one the packets of another. What is inside it
//! cannot read.
//!
//! Frames of TCP would pass it by: whoever falls back to TCP finds no listener at this address.
//!
//! Owns the sockets and tasks; they end when it is dropped.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::lab::Landmark;

/// The first byte of a relay frame (RELAY.md section 2).
const FRAME: u8 = 0x05;
/// What stands before the packet in a frame: kind, flow, count and tag.
const HEAD_BYTES: usize = 17;
/// The first byte of a QUIC packet is this or more; below are the relay's own messages about addresses, which a side must get once.
const QUIC_MIN: u8 = 0x40;
/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_535;
/// Users that a front serves: more than any scenario has.
const USERS_MAX: usize = 64;
/// Frames of each user that it remembers for a replay.
const REMEMBERED: usize = 64;
/// A delayed frame comes so much later at most; less by chance, so that frames overtake each other.
const DELAY_MAX_MS: u64 = 200;
/// The front's port.
const PORT: u16 = 444;

/// What is done to a frame that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// It is lost.
    Drops,
    /// It comes up to 200 ms later.
    Delays,
    /// It comes twice, with an older one of the same user behind it.
    Replays,
    /// Its end is cut off.
    Truncates,
    /// A bit of its packet is flipped.
    Alters,
    /// It goes to another user, with a head that this one accepts.
    Swaps,
}

/// An evil relay's line.
#[derive(Debug)]
pub struct Evil {
    /// Where users find it.
    pub address: SocketAddr,
    inside: Arc<Inside>,
    task: AbortHandle,
}

/// What it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Frames with packets that came.
    pub frames: u64,
    /// Of these, hit.
    pub hit: u64,
}

#[derive(Debug)]
struct Inside {
    outside: UdpSocket,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    mischief: Option<(Mischief, u64)>,
    chance: u64,
    deeds: Deeds,
    /// By user: the head of the last frame to them, and frames to replay.
    users: HashMap<SocketAddr, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    head: Option<[u8; HEAD_BYTES]>,
    last: VecDeque<Vec<u8>>,
}

/// A datagram that goes on: to whom on the users' side, what, and how much later.
#[derive(Debug, PartialEq, Eq)]
struct Onward {
    user: SocketAddr,
    bytes: Vec<u8>,
    later: Duration,
}

impl Evil {
    /// Stands before the relay at that port of the landmark's first address, at its second one. Harmless until told otherwise.
    ///
    /// # Errors
    /// The landmark has no such address, or the port is taken.
    pub fn before(landmark: &Landmark, relay_port: u16) -> Result<Self> {
        let (relay, address) =
            (SocketAddr::new(landmark.v4[0], relay_port), SocketAddr::new(landmark.v4[1], PORT));
        let outside = bind(landmark, address)?;
        landmark.namespace.nft(&format!(
            "table inet evil {{\n chain input {{ type filter hook input priority filter;\n ip daddr {} meta l4proto tcp drop\n }}\n}}\n",
            address.ip()
        ))?;
        let inside = Arc::new(Inside { outside, book: Mutex::default() });
        let task = tokio::spawn(serve(Arc::clone(&inside), landmark.clone(), relay)).abort_handle();
        Ok(Self { address, inside, task })
    }

    /// Hits so many of a hundred frames from now on, and gives what it did until now.
    pub fn set(&self, mischief: Mischief, percent: u64) -> Deeds {
        let mut book = self.inside.book();
        book.mischief = Some((mischief, percent));
        std::mem::take(&mut book.deeds)
    }

    /// Is as harmless as at first, and gives what it did until now.
    pub fn rest(&self) -> Deeds {
        let mut book = self.inside.book();
        book.mischief = None;
        std::mem::take(&mut book.deeds)
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inside {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// What becomes of a datagram of the relay to a user.
    fn judge(&mut self, user: SocketAddr, bytes: &[u8]) -> Vec<Onward> {
        let pass = |bytes: &[u8]| Onward { user, bytes: bytes.to_vec(), later: Duration::ZERO };
        let is_packet =
            bytes.first() == Some(&FRAME) && bytes.get(HEAD_BYTES).is_some_and(|first| *first >= QUIC_MIN);
        if !is_packet {
            return vec![pass(bytes)];
        }
        self.deeds.frames += 1;
        let old = self.remember(user, bytes);
        let luck = self.luck();
        let Some((mischief, _)) = self.mischief.filter(|(_, percent)| luck % 100 < *percent) else {
            return vec![pass(bytes)];
        };
        self.deeds.hit += 1;
        let luck = self.luck();
        match mischief {
            Mischief::Drops => Vec::new(),
            Mischief::Delays => {
                vec![Onward { later: Duration::from_millis(luck % DELAY_MAX_MS), ..pass(bytes) }]
            }
            Mischief::Replays => [Some(pass(bytes)), Some(pass(bytes)), old.map(|old| pass(&old))]
                .into_iter()
                .flatten()
                .collect(),
            Mischief::Truncates => {
                // What is left may be anything, but something of the packet.
                let packet = (bytes.len() - HEAD_BYTES) as u64;
                let left = HEAD_BYTES + usize::try_from(1 + luck % packet).unwrap_or(1);
                vec![pass(&bytes[..left.min(bytes.len() - 1)])]
            }
            Mischief::Alters => {
                let mut altered = bytes.to_vec();
                let packet = (bytes.len() - HEAD_BYTES) as u64;
                let at = HEAD_BYTES + usize::try_from(luck % packet).unwrap_or(0);
                altered[at] ^= 1 << (luck % 7);
                vec![pass(&altered)]
            }
            Mischief::Swaps => self.swapped(user, bytes, luck).into_iter().collect(),
        }
    }

    /// Keeps what a replay or a swap needs; gives an older frame to the same user.
    fn remember(&mut self, user: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let seen = self.users.entry(user).or_default();
        seen.head = bytes.first_chunk().copied();
        let old = (seen.last.len() >= REMEMBERED).then(|| seen.last.pop_front()).flatten();
        seen.last.push_back(bytes.to_vec());
        old
    }

    /// The packet of one user, with the head of another; lost if there is nobody else.
    fn swapped(&self, user: SocketAddr, bytes: &[u8], luck: u64) -> Option<Onward> {
        let mut others: Vec<_> = self.users.iter().filter(|(other, _)| **other != user).collect();
        others.sort_by_key(|(other, _)| **other);
        let at = usize::try_from(luck).ok()?.checked_rem(others.len())?;
        let (other, seen) = others[at];
        let bytes = [&seen.head?[..], &bytes[HEAD_BYTES..]].concat();
        Some(Onward { user: *other, bytes, later: Duration::ZERO })
    }

    /// Some number; the same ones in every run (SplitMix64).
    fn luck(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8
    }
}

/// Passes on what users send; each has a socket of its own towards the relay.
async fn serve(inside: Arc<Inside>, landmark: Landmark, relay: SocketAddr) {
    let mut users: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // Ends with this one.
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, user)) = inside.outside.recv_from(&mut buffer).await else { continue };
        if !users.contains_key(&user) {
            let Ok(toward) = bind(&landmark, SocketAddr::new(relay.ip(), 0)) else { continue };
            if users.len() >= USERS_MAX || toward.connect(relay).await.is_err() {
                continue;
            }
            let toward = Arc::new(toward);
            users.insert(user, Arc::clone(&toward));
            answers.spawn(pass_back(Arc::clone(&inside), toward, user));
        }
        // What the relay forwards is mangled once: on its way to whom it is for.
        users[&user].send(&buffer[..length]).await.ok();
    }
}

/// Passes on what the relay sends to one user.
async fn pass_back(inside: Arc<Inside>, toward: Arc<UdpSocket>, user: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok(length) = toward.recv(&mut buffer).await else { continue };
        let onward = inside.book().judge(user, &buffer[..length]);
        for Onward { user, bytes, later } in onward {
            let inside = Arc::clone(&inside);
            after(later, async move { inside.outside.send_to(&bytes, user).await.map(drop) }).await;
        }
    }
}

/// Sends now, or later beside everything else. What does not fit into a queue is lost, as on a real line.
async fn after(later: Duration, send: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    if later.is_zero() {
        send.await.ok();
    } else {
        tokio::spawn(async move {
            sleep(later).await;
            send.await.ok();
        });
    }
}

fn bind(landmark: &Landmark, at: SocketAddr) -> Result<UdpSocket> {
    let socket = landmark
        .namespace
        .enter(|| StdUdpSocket::bind(at).with_context(|| format!("bind the evil relay's {at}")))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket).context("hand a socket to the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_packet_passes_whatever_is_planned() {
        let mut book = Book { mischief: Some((Mischief::Drops, 100)), ..Book::default() };
        let control = [&[FRAME; HEAD_BYTES][..], &[1; 96]].concat();
        for bytes in [&[0x40, 1, 2][..], &[0x06], &control] {
            assert_eq!(book.judge(user(1), bytes)[0].bytes, bytes);
        }
        assert!(book.judge(user(1), &frame(1)).is_empty());
        assert_eq!(book.deeds, Deeds { frames: 1, hit: 1 });
    }

    #[test]
    fn about_as_many_are_hit_as_it_was_told() {
        let mut book = Book { mischief: Some((Mischief::Drops, 30)), ..Book::default() };
        let passed = (0..1_000).filter(|_| !book.judge(user(1), &frame(1)).is_empty()).count();
        assert!((650..750).contains(&passed), "{passed}");
    }

    #[test]
    fn a_swapped_packet_goes_to_another_user_with_that_users_head() {
        let mut book = Book::default();
        book.judge(user(1), &frame(1));
        book.mischief = Some((Mischief::Swaps, 100));
        let onward = book.judge(user(2), &frame(2));
        assert_eq!(onward[0].user, user(1));
        assert_eq!(onward[0].bytes, [&frame(1)[..HEAD_BYTES], &frame(2)[HEAD_BYTES..]].concat());
    }

    #[test]
    fn truncation_and_alteration_leave_a_frame_that_is_not_the_same() {
        for mischief in [Mischief::Truncates, Mischief::Alters] {
            let mut book = Book { mischief: Some((mischief, 100)), ..Book::default() };
            for _ in 0..100 {
                let onward = book.judge(user(1), &frame(1));
                assert_eq!(onward[0].bytes[..HEAD_BYTES], frame(1)[..HEAD_BYTES]);
                assert!(onward[0].bytes != frame(1) && onward[0].bytes.len() > HEAD_BYTES);
            }
        }
    }

    #[test]
    fn a_replay_is_the_same_frame_again_and_one_of_long_ago() {
        let mut book = Book { mischief: Some((Mischief::Replays, 100)), ..Book::default() };
        for _ in 0..REMEMBERED {
            assert_eq!(book.judge(user(1), &frame(1)).len(), 2);
        }
        let onward = book.judge(user(1), &frame(2));
        let of: Vec<_> = onward.iter().map(|onward| onward.bytes[1]).collect();
        assert_eq!(of, [2, 2, 1]);
    }

    fn user(number: u8) -> SocketAddr {
        ([45, number, 0, 2], 4_000).into()
    }

    fn frame(number: u8) -> Vec<u8> {
        let mut frame = vec![number; HEAD_BYTES + 40];
        frame[0] = FRAME;
        frame[HEAD_BYTES..].fill(QUIC_MIN | number);
        frame
    }
}
