//! The way of a frame through the relay: one lookup, one tag, a few counters, twelve bytes rewritten in place.
//!
//! Nothing here allocates, and nothing but the sender's own circuit and accounts is touched. Checks stand in the order
//! of what a stranger can reach: shape, flow, tag, count; limits are charged only to who proved to be the sender.
//!
//! How a side's address is believed (RELAY.md section 3): a frame with a right tag and a fresh count is forwarded from
//! wherever it comes, for its *destination* is proven. Its source becomes the side's new address only after a challenge
//! sent there was returned. So a replayed frame moves nothing (its count is known), and neither does a fresh one that
//! somebody caught and sent first from an address of theirs: the challenge reaches them, and they cannot sign the
//! proof. One who races the proof too, as only somebody on the path can, gains the side's traffic until the old address
//! answers the challenge that every move sends there (RFC 9000 s9.3.3 has the same attack and the same answer).

use std::{
    hash::Hasher as _,
    net::{Ipv6Addr, SocketAddr},
    time::Instant,
};

use siphasher::sip::SipHasher24;

use super::{
    Service,
    account::NoRoom,
    answer::Class,
    circuit::{Seat, Side},
    settings::MONTH_PAYLOAD_PERCENT,
};
use crate::{
    address::{Place, Via, place_of},
    bucket::WHOLE_PERCENT,
    frame::{
        self, ANSWER_BYTES, COOKIE_BYTES, Control, ControlFrame, FrameError, HEAD_BYTES, TAG_AT, Vni,
        address_bytes,
    },
    mac::Tag,
};

/// How often one side is challenged at most. A frame from a new address is followed by more: the next one asks again.
const CHALLENGE_GAP_NS: u64 = 100_000_000;

/// How long a cookie is good: it was made in this stretch of time or the one before. Twice the slowest round trip.
const COOKIE_EPOCH_NS: u64 = 15_000_000_000;

/// How long a side may be silent and still be sent more than [`UNANSWERED_MAX`] frames (RFC 7675 s5.1: consent lasts
/// 30 s). Whoever has gone from an address must not have it flooded by a friend.
const CONSENT_NS: u64 = 30_000_000_000;

/// Frames to a side that may go unanswered for any time: an idle one is woken with fewer.
const UNANSWERED_MAX: u32 = 64;

/// Answers that wait to be sent. More are dropped, and asked for again.
const ANSWERS_MAX: usize = 64;

/// What a challenge has in all: a shorter frame is not answered with one, or the relay would amplify.
const ANSWER_FRAME_BYTES: usize = HEAD_BYTES + ANSWER_BYTES;

/// Frames whose tags are computed side by side. More of them need more registers than a processor has, and get slower.
const LANES: usize = 3;

/// The tags that the next frames of a batch must bear, computed before they are looked at. Good as long as nobody touches these
/// frames, and takes them in their order.
#[derive(Debug, Default)]
pub struct Ahead {
    expected: [Option<Expected>; LANES],
    /// How many of the frames were taken.
    taken: usize,
}

/// What a frame of this flow must bear.
#[derive(Debug, Clone, Copy)]
struct Expected {
    flow: Vni,
    tag: Tag,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send the frame, as it now is, there.
    Forward {
        /// Where the other side is.
        to: Via,
        /// The receiver's number of the flow: what queues are kept by.
        flow: Vni,
        /// How much it matters.
        class: Class,
    },
    /// It was for the relay. Ask [`Service::poll_answer`].
    Consumed,
    /// It is not forwarded, and nobody is told.
    Dropped(Dropped),
}

/// Why a frame was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is no frame.
    Shape(FrameError),
    /// The flow does not exist, or no longer.
    NoFlow,
    /// The tag is wrong.
    Tag,
    /// The count was seen before, or is too old.
    Replayed,
    /// It says what only relays say, or a cookie that is not for this address, now.
    Control,
    /// The other side proved no address yet.
    NotBound,
    /// The other side has said nothing for 30 s, whatever was sent to it.
    Silent,
    /// The flow sends faster than it may.
    FlowRate,
    /// The source sends faster than it may.
    SourceRate,
    /// The source used up its day.
    DayShare,
    /// The flow is for introductions only, and this was more.
    Introduction,
    /// The relay as a whole is at its rate.
    TotalRate,
    /// The month's bytes are used up.
    Month,
}

impl Dropped {
    /// How many reasons there are.
    pub const COUNT: usize = 13;

    /// Returns the reason's place among counters.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Shape(_) => 0,
            Self::NoFlow => 1,
            Self::Tag => 2,
            Self::Replayed => 3,
            Self::Control => 4,
            Self::NotBound => 5,
            Self::FlowRate => 6,
            Self::SourceRate => 7,
            Self::DayShare => 8,
            Self::Introduction => 9,
            Self::TotalRate => 10,
            Self::Month => 11,
            Self::Silent => 12,
        }
    }

    /// The reasons' words, at their places, as `p2pos relay status` shows them.
    pub const WORDS: [&str; Self::COUNT] = [
        "shape",
        "no flow",
        "tag",
        "replayed",
        "control",
        "not bound",
        "flow rate",
        "source rate",
        "day share",
        "introduction",
        "total rate",
        "month",
        "silent",
    ];
}

impl Ahead {
    fn take(&mut self) -> Option<Expected> {
        let expected = self.expected.get(self.taken).copied().flatten();
        self.taken += 1;
        expected
    }

    /// Whether every frame that was looked at has been taken: then it is time to look ahead again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.taken >= LANES || self.expected[self.taken..].iter().all(Option::is_none)
    }
}

impl Service {
    /// Judges one frame that came from `from`, and makes it ready for the other side where it lies.
    ///
    /// `from` must be what the kernel says, never a fake address of the mux: a relay does not relay for relays.
    pub fn forward(&mut self, now: Instant, from: Via, datagram: &mut [u8]) -> Verdict {
        self.forward_next(now, from, datagram, &mut Ahead::default())
    }

    /// Looks at the first frames of a batch of datagrams of `stride` bytes each, if there are enough of one flow. They are still to be
    /// judged one by one, with what this gives.
    #[must_use]
    pub fn look_ahead(&self, batch: &[u8], stride: usize) -> Ahead {
        self.expect(batch, stride).unwrap_or_default()
    }

    fn expect(&self, batch: &[u8], stride: usize) -> Option<Ahead> {
        let batch = batch.get(..stride.checked_mul(LANES)?)?;
        let frames: [_; LANES] = std::array::from_fn(|lane| {
            let datagram = &batch[lane * stride..(lane + 1) * stride];
            frame::decode(datagram).ok().zip(datagram.first_chunk::<TAG_AT>())
        });
        let [Some(one), Some(two), Some(three)] = frames else { return None };
        let frames = [one, two, three];
        let flow = frames[0].0.vni;
        if frames.iter().any(|(frame, _)| frame.vni != flow) {
            return None;
        }
        let (seat, circuit) = self.circuits.find(flow)?;
        let key = &circuit.side(seat.role).key;
        let tags = key.tags(frames.map(|(frame, head)| (head, frame.payload)));
        Some(Ahead { expected: tags.map(|tag| Some(Expected { flow, tag })), taken: 0 })
    }

    /// The same as [`Service::forward`] for the next frame of a batch that was looked at.
    pub fn forward_next(
        &mut self,
        now: Instant,
        from: Via,
        datagram: &mut [u8],
        ahead: &mut Ahead,
    ) -> Verdict {
        match self.try_forward(now, from, datagram, ahead.take()) {
            Ok(verdict) => verdict,
            Err(why) => {
                self.dropped[why.index()] += 1;
                Verdict::Dropped(why)
            }
        }
    }

    /// Returns the next answer to send, until there is none. Drain it after each [`Verdict::Consumed`] and each
    /// batch of forwarded frames; never larger in all than what asked for it.
    pub fn poll_answer(&mut self) -> Option<(Via, ControlFrame)> {
        self.answers.pop_front()
    }

    fn try_forward(
        &mut self,
        now: Instant,
        from: Via,
        datagram: &mut [u8],
        expected: Option<Expected>,
    ) -> Result<Verdict, Dropped> {
        let now = self.nanos(now);
        let frame = frame::decode(datagram).map_err(Dropped::Shape)?;
        let (seat, circuit) = self.circuits.find_mut(frame.vni).ok_or(Dropped::NoFlow)?;
        let sender = circuit.side_mut(seat.role);
        let tag = match expected {
            Some(Expected { flow, tag }) if flow == frame.vni => tag,
            Some(_) | None => sender.key.tag(&datagram[..TAG_AT], frame.payload),
        };
        if !tag.is(frame.tag) {
            return Err(Dropped::Tag);
        }
        // Its count stays unused: whoever forwards may hold the frame until the other side has proven where it is.
        if frame.control.is_none()
            && sender.bound == Some(from)
            && circuit.side(seat.role.other()).bound.is_none()
        {
            return Err(Dropped::NotBound);
        }
        let sender = circuit.side_mut(seat.role);
        if !sender.window.accept(frame.counter) {
            return Err(Dropped::Replayed);
        }
        circuit.hear(seat.role, now);
        let sender = circuit.side(seat.role);
        let (vni, control, is_moved) = (frame.vni, frame.control, sender.bound != Some(from));
        if let Some(control) = control {
            return self.control(now, vni, from, control);
        }
        let bytes = datagram.len();
        if is_moved && bytes >= ANSWER_FRAME_BYTES {
            self.challenge(now, vni, from);
        }
        let class = self.charge(now, vni, bytes)?;
        let (_, circuit) = self.circuits.find_mut(vni).ok_or(Dropped::NoFlow)?;
        let receiver = circuit.side_mut(seat.role.other());
        let to = receiver.bound.ok_or(Dropped::NotBound)?;
        receiver.unanswered = receiver.unanswered.saturating_add(1);
        circuit.used_at = now;
        let other = Seat { place: seat.place, role: seat.role.other() };
        let flow = circuit.vni(other);
        datagram[1..5].copy_from_slice(&flow.value().to_be_bytes());
        datagram[TAG_AT..HEAD_BYTES].copy_from_slice(&circuit.side(other.role).accept.0);
        Ok(Verdict::Forward { to, flow, class })
    }

    /// Asks everybody who limits the packet, then charges all of them, or none.
    fn charge(&mut self, now: u64, vni: Vni, bytes: usize) -> Result<Class, Dropped> {
        let at = self.moment(now);
        let (seat, circuit) = self.circuits.find_mut(vni).ok_or(Dropped::NoFlow)?;
        let receiver = circuit.side(seat.role.other());
        if receiver.bound.is_none() {
            return Err(Dropped::NotBound);
        }
        if receiver.unanswered >= UNANSWERED_MAX && now > receiver.heard_at + CONSENT_NS {
            return Err(Dropped::Silent);
        }
        let is_introduction = circuit.is_introduction;
        let sender = circuit.side_mut(seat.role);
        let tariff = if sender.is_contact { &self.settings.contacts } else { &self.settings.community };
        let payer = self.accounts.get(sender.payer);
        let prefix = sender.prefix.map(|id| self.accounts.get(id));
        let class =
            prefix.map_or(Class::Signalling, |prefix| prefix.class(at, bytes)).max(payer.class(at, bytes));
        if class != Class::Signalling {
            if is_introduction {
                return Err(Dropped::Introduction);
            }
            if !sender.sending.holds(tariff.flow, now, bytes, WHOLE_PERCENT) {
                return Err(Dropped::FlowRate);
            }
            payer.check(at, tariff, bytes)?;
            prefix.map_or(Ok(()), |prefix| prefix.check(at, tariff, bytes))?;
        }
        let month_part = if class == Class::Signalling { WHOLE_PERCENT } else { MONTH_PAYLOAD_PERCENT };
        if !self.month.has_room(bytes as u64, month_part) {
            return Err(Dropped::Month);
        }
        if !self.total.holds(self.settings.total, now, bytes, class.total_percent()) {
            return Err(Dropped::TotalRate);
        }
        if class != Class::Signalling {
            sender.sending.take(tariff.flow, now, bytes);
        }
        sender.bytes += bytes as u64;
        sender.packets += 1;
        let (payer, prefix) = (sender.payer, sender.prefix);
        self.accounts.get_mut(payer).charge(at, tariff, class, bytes);
        if let Some(prefix) = prefix {
            self.accounts.get_mut(prefix).charge(at, tariff, class, bytes);
        }
        self.total.take(self.settings.total, now, bytes);
        self.month.count(bytes as u64, &mut self.events);
        self.forwarded.bytes += bytes as u64;
        self.forwarded.packets += 1;
        Ok(class)
    }

    fn control(&mut self, now: u64, vni: Vni, from: Via, control: Control) -> Result<Verdict, Dropped> {
        match control {
            Control::Bind => self.challenge(now, vni, from),
            Control::Proof(cookie) => self.rebind(now, vni, from, cookie)?,
            Control::Challenge(_) | Control::Bound(_) => return Err(Dropped::Control),
        }
        Ok(Verdict::Consumed)
    }

    /// Asks whoever is at `to` to prove that the flow's side is there. Says nothing where no side may be.
    fn challenge(&mut self, now: u64, vni: Vni, to: Via) {
        let cookie = self.cookie(vni, to, now / COOKIE_EPOCH_NS);
        let allows_loopback = self.settings.allows_loopback;
        let Some((seat, circuit)) = self.circuits.find_mut(vni) else { return };
        let side = circuit.side_mut(seat.role);
        if !may_be_at(side, to, allows_loopback) || now < side.next_challenge_at {
            return;
        }
        side.next_challenge_at = now + CHALLENGE_GAP_NS;
        let accept = side.accept;
        self.answer(to, vni, accept, Control::Challenge(cookie));
    }

    /// Moves a side to where a cookie came back from, tells it, and asks at the old place whether that is right.
    fn rebind(&mut self, now: u64, vni: Vni, from: Via, cookie: [u8; COOKIE_BYTES]) -> Result<(), Dropped> {
        let epoch = now / COOKIE_EPOCH_NS;
        let is_ours = |at: u64| Tag(self.cookie(vni, from, at)).is(Tag(cookie));
        if !is_ours(epoch) && !epoch.checked_sub(1).is_some_and(is_ours) {
            return Err(Dropped::Control);
        }
        let (seat, circuit) = self.circuits.find_mut(vni).ok_or(Dropped::NoFlow)?;
        circuit.used_at = now;
        let side = circuit.side_mut(seat.role);
        let accept = side.accept;
        let old = side.bound.replace(from).filter(|old| *old != from);
        let seen = match from {
            Via::Udp(seen) => seen,
            Via::Tcp(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        self.answer(from, vni, accept, Control::Bound(seen));
        if let Some(old) = old {
            let cookie = self.cookie(vni, old, epoch);
            self.answer(old, vni, accept, Control::Challenge(cookie));
        }
        Ok(())
    }

    fn answer(&mut self, to: Via, vni: Vni, accept: Tag, control: Control) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back((to, control.frame(vni, 0, |_, _| accept)));
        }
    }

    /// What must come back from `via`. Follows from our secret, so nothing is kept for who never answers.
    fn cookie(&self, vni: Vni, via: Via, epoch: u64) -> [u8; COOKIE_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(b"cookie");
        hasher.write(&vni.value().to_be_bytes());
        hasher.write(&epoch.to_be_bytes());
        match via {
            Via::Udp(address) => hasher.write(&address_bytes(address)),
            Via::Tcp(connection) => hasher.write(&connection.to_be_bytes()),
        }
        hasher.finish().to_le_bytes()
    }
}

impl From<NoRoom> for Dropped {
    fn from(no: NoRoom) -> Self {
        match no {
            NoRoom::Rate => Self::SourceRate,
            NoRoom::Day => Self::DayShare,
        }
    }
}

/// Tells whether a side may be asked for at a place. A TCP connection is proof enough that somebody is there.
fn may_be_at(side: &Side, via: Via, allows_loopback: bool) -> bool {
    match via {
        Via::Tcp(_) => true,
        Via::Udp(address) => match place_of(address) {
            Place::Open => true,
            Place::Private => side.is_private,
            Place::Loopback => allows_loopback,
            Place::Nobody => false,
        },
    }
}
