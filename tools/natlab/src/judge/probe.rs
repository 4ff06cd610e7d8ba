//! Our own judge. It holds both ends: sockets at a landmark (two addresses, two ports each) and sockets at the host, so that no protocol is
//! needed between them, only numbered packets. One look takes about two seconds, nearly all of it waiting for packets that must not come.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::verdict::{PortChoice, Verdict};
use crate::lab::{Host, Landmark};
use crate::topology::Filtering;

/// How long a packet may take through the lab. Without a long wire it takes well under a millisecond; a loaded machine gets its time.
const ARRIVES_WITHIN: Duration = Duration::from_millis(400);
/// How long we wait for a packet that a filter should drop: the same path, so the same patience would do; this is what a loaded machine
/// has been seen to need, doubled.
const DROPPED_AFTER: Duration = Duration::from_millis(200);
/// A packet that does not arrive is sent again so often: the lab loses none, unless told to.
const TRIES: u32 = 3;
/// Fresh mappings looked at to see how ports are chosen: random ones fall into one block of 1,024 with probability 64^-31.
const SAMPLES: usize = 32;
/// Mappings nearer together than this are from one block.
const BLOCK_SPAN: u16 = 1_024;
/// The TCP port that nearly every network lets out, and one that no rule names.
const TCP_PORTS: [u16; 2] = [443, 8_080];
/// Linux calls a binding a stream once packets went both ways more than 2 s after its first one; until then it must be kept alive.
const WARMING: [Duration; 5] = [Duration::from_millis(500); 5];

/// Numbers packets, so that a late one is never taken for another.
static LAST_NUMBER: AtomicU32 = AtomicU32::new(0);

/// The landmark's four sockets: `[address][port]`.
type Far = [[UdpSocket; 2]; 2];

/// A judge who sits at a landmark. TCP ports are opened once for all whom it judges; UDP sockets are each one's own.
#[derive(Debug)]
pub struct Judge {
    landmark: Landmark,
    /// Nobody accepts: that a connection comes to stand is the kernel's work.
    _listeners: Vec<TcpListener>,
}

impl Judge {
    /// Takes its seat.
    ///
    /// # Errors
    /// Another judge sits there.
    pub fn at(landmark: &Landmark) -> Result<Self> {
        let listen = |at: SocketAddr| TcpListener::bind(at).with_context(|| format!("listen on {at}"));
        let listeners = landmark.namespace.enter(|| {
            let places =
                [landmark.v4[0], landmark.v6[0]].into_iter().flat_map(|ip| TCP_PORTS.map(|port| (ip, port)));
            places.map(|(ip, port)| listen(SocketAddr::new(ip, port))).collect()
        })?;
        Ok(Self { landmark: landmark.clone(), _listeners: listeners })
    }

    /// Looks at a host's way to the Internet by IPv4.
    ///
    /// # Errors
    /// The sockets cannot be opened. That no packet gets through is a verdict.
    pub fn by_v4(&self, host: &Host) -> Result<Verdict> {
        judge(&self.landmark, host, host.v4.context("the host has no IPv4")?, self.landmark.v4)
    }

    /// Looks at it by IPv6.
    ///
    /// # Errors
    /// The same.
    pub fn by_v6(&self, host: &Host) -> Result<Verdict> {
        judge(&self.landmark, host, host.v6.context("the host has no IPv6")?, self.landmark.v6)
    }

    /// A mapping that a host has just made.
    ///
    /// # Errors
    /// The sockets cannot be opened, or no packet gets out.
    pub fn binding(&self, host: &Host) -> Result<Binding> {
        let far = self.landmark.namespace.udp(self.landmark.v4[0])?;
        let near = host.namespace.udp(host.v4.context("bindings are made by IPv4")?)?;
        let seen_at = look(&near, &far)?.context("no packet gets out")?;
        Ok(Binding { near, far, seen_at })
    }

    /// How long a binding without traffic is seen to live: the longest silence of `silences` after which a packet still came in, each tried on a
    /// binding of its own, all at once. `is_stream`: with an exchange before, more than 2 s after the first.
    ///
    /// # Errors
    /// The sockets cannot be opened, or no packet gets out.
    pub fn lifetime(&self, host: &Host, silences: &[Duration], is_stream: bool) -> Result<Option<Duration>> {
        let ip = host.v4.context("lifetimes are measured by IPv4")?;
        let far = far_sockets(&self.landmark, self.landmark.v4)?;
        let bindings: Vec<_> = silences.iter().map(|_| host.namespace.udp(ip)).collect::<Result<_>>()?;
        let open = |near: &UdpSocket| look(near, &far[0][0])?.context("no packet gets out");
        let mut seen = bindings.iter().map(open).collect::<Result<Vec<_>>>()?;
        if is_stream {
            for pause in WARMING {
                answer_all(&far[0][0], &seen)?;
                thread::sleep(pause);
                seen = bindings.iter().map(open).collect::<Result<Vec<_>>>()?;
            }
            answer_all(&far[0][0], &seen)?;
            bindings.iter().try_for_each(drain)?;
        }
        let since = Instant::now();
        let mut survived = None;
        for ((silence, near), mapped) in silences.iter().zip(&bindings).zip(seen) {
            thread::sleep(silence.saturating_sub(since.elapsed()));
            if !arrives(&far[0][0], mapped, near)? {
                break;
            }
            survived = Some(*silence);
        }
        Ok(survived)
    }
}

/// One mapping, with both ends in our hand.
#[derive(Debug)]
pub struct Binding {
    near: UdpSocket,
    far: UdpSocket,
    seen_at: SocketAddr,
}

impl Binding {
    /// Where the far end saw it last.
    #[must_use]
    pub fn seen_at(&self) -> SocketAddr {
        self.seen_at
    }

    /// Whether a packet from the far end still comes in.
    ///
    /// # Errors
    /// A socket is broken.
    pub fn is_alive(&self) -> Result<bool> {
        arrives(&self.far, self.seen_at, &self.near)
    }

    /// Sends from inside, and says whether that arrived; afterwards the far end knows the address anew.
    ///
    /// # Errors
    /// A socket is broken.
    pub fn renew(&mut self) -> Result<bool> {
        let Some(seen_at) = look(&self.near, &self.far)? else { return Ok(false) };
        self.seen_at = seen_at;
        Ok(true)
    }

    /// How long a packet and its answer take, if they arrive.
    ///
    /// # Errors
    /// A socket is broken.
    pub fn round_trip(&mut self) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let has_arrived = self.renew()? && self.is_alive()?;
        Ok(has_arrived.then(|| begun.elapsed()))
    }
}

fn judge(landmark: &Landmark, host: &Host, ip: IpAddr, addresses: [IpAddr; 2]) -> Result<Verdict> {
    let far = far_sockets(landmark, addresses)?;
    let near = host.namespace.udp(ip)?;
    let [tcp443, tcp] = TCP_PORTS.map(|port| connects(host, SocketAddr::new(addresses[0], port)));
    let (tcp443, tcp) = (tcp443?, tcp?);
    let first = look(&near, &far[0][0])?;
    let same_address = look(&near, &far[0][1])?;
    let other_address = look(&near, &far[1][0])?;
    let (Some(first), Some(same_address), Some(other_address)) = (first, same_address, other_address) else {
        return Ok(Verdict { tcp443, tcp, ..Verdict::default() });
    };
    let mapping = match (first == same_address, first == other_address) {
        (true, true) => Filtering::Independent,
        (true, false) => Filtering::ByAddress,
        (false, _) => Filtering::ByAddressAndPort,
    };
    let is_translated = first.ip() != ip;
    let collides = || collides(&far, &host.namespace.udp(ip)?);
    Ok(Verdict {
        udp: true,
        tcp443,
        tcp,
        translated: Some(is_translated),
        mapping: Some(mapping),
        filtering: Some(filtering(&far, &host.namespace.udp(ip)?)?),
        ports: Some(ports(&far, host, ip)?),
        collides: (mapping == Filtering::Independent).then(collides).transpose()?,
        hairpin: is_translated.then(|| hairpin(&far, host, ip)).transpose()?,
    })
}

fn far_sockets(landmark: &Landmark, addresses: [IpAddr; 2]) -> Result<Far> {
    let socket = |address| landmark.namespace.udp(address);
    let [a, b] = addresses;
    Ok([[socket(a)?, socket(a)?], [socket(b)?, socket(b)?]])
}

/// Whether a TCP connection from the host comes to stand.
fn connects(host: &Host, at: SocketAddr) -> Result<bool> {
    host.namespace.enter(|| Ok(TcpStream::connect_timeout(&at, ARRIVES_WITHIN).is_ok()))
}

/// How `far` sees `near`, if it sees it at all. A side effect is the mapping.
fn look(near: &UdpSocket, far: &UdpSocket) -> Result<Option<SocketAddr>> {
    let to = far.local_addr()?;
    for _ in 0..TRIES {
        let number = next_number();
        near.send_to(&number, to).context("send a probe")?;
        if let Some(from) = receive(far, number, ARRIVES_WITHIN)? {
            return Ok(Some(from));
        }
    }
    Ok(None)
}

/// Whether a packet from `from` to `to` reaches `near`.
fn arrives(from: &UdpSocket, to: SocketAddr, near: &UdpSocket) -> Result<bool> {
    let number = next_number();
    from.send_to(&number, to).context("send a knock")?;
    Ok(receive(near, number, DROPPED_AFTER)?.is_some())
}

/// Whose packets come in to a socket that has only called `far[0][0]`.
fn filtering(far: &Far, near: &UdpSocket) -> Result<Filtering> {
    let Some(mapped) = look(near, &far[0][0])? else { return Ok(Filtering::ByAddressAndPort) };
    // The strangest first: nothing here makes the host send, so no try opens the way for the next.
    if arrives(&far[1][1], mapped, near)? {
        return Ok(Filtering::Independent);
    }
    let by_address = arrives(&far[0][1], mapped, near)?;
    Ok(if by_address { Filtering::ByAddress } else { Filtering::ByAddressAndPort })
}

/// How ports of fresh mappings are chosen.
fn ports(far: &Far, host: &Host, ip: IpAddr) -> Result<PortChoice> {
    let (mut pairs, mut sockets) = (Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES));
    for _ in 0..SAMPLES {
        let near = host.namespace.udp(ip)?;
        let mapped = look(&near, &far[0][0])?.context("packets got out before, and now none does")?;
        pairs.push((near.local_addr()?.port(), mapped.port()));
        // Kept open: the system might give its port to a later sample, whose mapping would then be an old one.
        sockets.push(near);
    }
    Ok(choice(&pairs))
}

/// What pairs of (own, mapped) port, in the order of their making, say about their choice.
fn choice(pairs: &[(u16, u16)]) -> PortChoice {
    if pairs.iter().all(|(own, mapped)| own == mapped) {
        return PortChoice::Preserved;
    }
    let mapped = pairs.iter().map(|(_, mapped)| *mapped);
    if mapped.clone().zip(mapped.clone().skip(1)).all(|(a, b)| b.wrapping_sub(a) == 1) {
        return PortChoice::Sequential;
    }
    let (low, high) = (mapped.clone().min().unwrap_or(0), mapped.max().unwrap_or(0));
    if high - low < BLOCK_SPAN { PortChoice::Block } else { PortChoice::Scattered }
}

/// Whether a packet that knocks too early costs the mapping its port.
fn collides(far: &Far, near: &UdpSocket) -> Result<bool> {
    let Some(mapped) = look(near, &far[0][0])? else { return Ok(false) };
    let stranger = &far[1][1];
    arrives(stranger, mapped, near)?;
    Ok(look(near, stranger)? != Some(mapped))
}

/// Whether a host behind the NAT reaches another's mapping by the public address.
fn hairpin(far: &Far, host: &Host, ip: IpAddr) -> Result<bool> {
    let (near, neighbour) = (host.namespace.udp(ip)?, host.namespace.udp(ip)?);
    let Some(mapped) = look(&near, &far[0][0])? else { return Ok(false) };
    arrives(&neighbour, mapped, &near)
}

fn answer_all(far: &UdpSocket, seen: &[SocketAddr]) -> Result<()> {
    for mapped in seen {
        far.send_to(b"answer", mapped).context("answer a probe")?;
    }
    Ok(())
}

/// Throws away what has come.
fn drain(socket: &UdpSocket) -> Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 64];
    while socket.recv_from(&mut buffer).is_ok() {}
    Ok(socket.set_nonblocking(false)?)
}

fn next_number() -> [u8; 4] {
    LAST_NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

/// Waits for one packet and says where it came from; passes over all others.
fn receive(socket: &UdpSocket, number: [u8; 4], within: Duration) -> Result<Option<SocketAddr>> {
    let until = Instant::now() + within;
    let mut buffer = [0; 64];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((4, from)) if buffer[..4] == number => return Ok(Some(from)),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            // An ICMP error for an earlier packet: the lab's routers say so, and it changes nothing.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable) => {}
            Err(error) => return Err(error).context("receive a probe"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_choices_are_told_apart_by_the_ports_alone() {
        assert_eq!(choice(&[(5000, 5000), (5003, 5003)]), PortChoice::Preserved);
        assert_eq!(choice(&[(5000, 7), (9, 8), (77, 9)]), PortChoice::Sequential);
        assert_eq!(choice(&[(5000, 20_480), (9, 21_400), (77, 20_500)]), PortChoice::Block);
        assert_eq!(choice(&[(5000, 20_480), (9, 61_400), (77, 1_500)]), PortChoice::Scattered);
        assert_eq!(choice(&[(1, 65_535), (2, 0)]), PortChoice::Sequential, "a counter may come round");
    }
}
