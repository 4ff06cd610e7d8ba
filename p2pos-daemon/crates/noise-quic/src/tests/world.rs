//! The simulated network: endpoints with addresses, datagrams in flight, a clock that jumps to the next event.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use noq_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    FourTuple, Incoming, ServerConfig, StreamId, Transmit, TransportConfig,
};
use p2pos_identity::{PeerId, SecretKey};

use crate::{
    QUIC_VERSION, cid_generator,
    config::Handshakes,
    handshake::Tuning,
    peer_of,
    probe::{StrangerFilter, Verdict, judge},
    reset_key, token_key,
};

/// One way through the simulated network.
pub(super) const ONE_WAY: Duration = Duration::from_millis(20);
/// A run that has not reached its goal by then has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a datagram.
pub(super) enum Fate {
    Deliver,
    Lose,
    Twice,
    Late(Duration),
    Altered(Vec<u8>),
}

/// A datagram that some endpoint sent.
#[derive(Clone)]
pub(super) struct Sent {
    /// Counts all datagrams of a world, from 0.
    pub(super) index: usize,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

struct Outgoing {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Flight {
    due: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// What an endpoint does with those who call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    Accept,
    RetryFirst,
    RetryAlways,
}

/// What stands in front of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Nothing: noq alone.
    Open,
    /// The judge of first bytes.
    Judge,
    /// The judge and the stranger filter, as in the daemon.
    Full,
}

pub(super) struct Conn {
    pub(super) quic: Connection,
    pub(super) events: Vec<Event>,
}

impl Conn {
    pub(super) fn is_connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Connected))
    }

    pub(super) fn lost(&self) -> Option<&noq_proto::ConnectionError> {
        self.events
            .iter()
            .find_map(|event| if let Event::ConnectionLost { reason } = event { Some(reason) } else { None })
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        self.quic.crypto_session().peer_identity().and_then(peer_of)
    }
}

pub(super) struct Node {
    pub(super) key: SecretKey,
    pub(super) addr: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) conns: BTreeMap<ConnectionHandle, Conn>,
    pub(super) greeting: Greeting,
    pub(super) guard: Guard,
    /// Further hosts whose datagrams arrive here too: a machine with several interfaces.
    pub(super) aliases: Vec<SocketAddr>,
    /// Attempts that reached the endpoint, and those that it gave up at once.
    pub(super) attempts: usize,
    pub(super) failed_attempts: usize,
    tuning: Tuning,
    transport: Arc<TransportConfig>,
    filter: StrangerFilter,
    /// What noq draws its random numbers from, so that a failed run can be had again.
    dice: u64,
}

impl Node {
    pub(super) fn new(seed: u8, tuning: Tuning, transport: TransportConfig) -> Self {
        let key = SecretKey::from_seed([seed; 32]);
        let transport = Arc::new(transport);
        Self {
            endpoint: endpoint(&key, &tuning, &transport, u64::from(seed)),
            dice: u64::from(seed),
            addr: address(u16::from(seed), 4000),
            conns: BTreeMap::new(),
            greeting: Greeting::Accept,
            guard: Guard::Full,
            aliases: Vec::new(),
            attempts: 0,
            failed_attempts: 0,
            filter: StrangerFilter::new(&key),
            tuning,
            transport,
            key,
        }
    }

    /// Forgets everything but the identity, as a killed and restarted daemon does.
    pub(super) fn kill_and_restart(&mut self) {
        self.conns.clear();
        self.throw_dice(self.dice + 1);
    }

    /// Starts the endpoint anew with other random numbers.
    pub(super) fn throw_dice(&mut self, dice: u64) {
        self.dice = dice;
        self.endpoint = endpoint(&self.key, &self.tuning, &self.transport, dice);
    }

    fn lets_in(&self, bytes: &[u8]) -> bool {
        match self.guard {
            Guard::Open => true,
            Guard::Judge => judge(bytes) == Verdict::Quic,
            Guard::Full => judge(bytes) == Verdict::Quic && self.filter.admits(bytes),
        }
    }

    fn receive(&mut self, now: Instant, flight: &Flight, out: &mut Vec<Outgoing>) {
        if !self.lets_in(&flight.bytes) {
            return;
        }
        let mut buf = Vec::new();
        // Behind a NAT a machine does not know its address; one with several interfaces must tell them apart.
        let local_ip = (!self.aliases.is_empty()).then(|| flight.to.ip());
        let path = FourTuple::new(flight.from, local_ip);
        match self.endpoint.handle(now, path, None, BytesMut::from(&*flight.bytes), &mut buf) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(conn) = self.conns.get_mut(&handle) {
                    conn.quic.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(transmit)) => out.push(self.outgoing(&transmit, buf)),
            Some(DatagramEvent::NewConnection(incoming)) => self.greet(now, incoming, out),
        }
    }

    fn outgoing(&self, transmit: &Transmit, bytes: Vec<u8>) -> Outgoing {
        let from = transmit.src_ip.map_or(self.addr, |ip| SocketAddr::new(ip, self.addr.port()));
        Outgoing { from, to: transmit.destination, bytes }
    }

    fn greet(&mut self, now: Instant, incoming: Incoming, out: &mut Vec<Outgoing>) {
        self.attempts += 1;
        let mut buf = Vec::new();
        let wants_retry = match self.greeting {
            Greeting::Accept => false,
            Greeting::RetryFirst => !incoming.remote_address_validated(),
            Greeting::RetryAlways => incoming.may_retry(),
        };
        if wants_retry {
            let transmit = self.endpoint.retry(incoming, &mut buf).expect("the attempt may be retried");
            out.push(self.outgoing(&transmit, buf));
            return;
        }
        match self.endpoint.accept(incoming, now, &mut buf, None) {
            Ok((handle, quic)) => {
                self.conns.insert(handle, Conn { quic, events: Vec::new() });
            }
            Err(error) => {
                self.failed_attempts += 1;
                out.extend(error.response.map(|transmit| self.outgoing(&transmit, buf)));
            }
        }
    }

    fn pump(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        let mut drained = Vec::new();
        let mut sent = Vec::new();
        for (&handle, conn) in &mut self.conns {
            while conn.quic.poll_timeout().is_some_and(|due| due <= now) {
                conn.quic.handle_timeout(now);
            }
            loop {
                let mut busy = false;
                while let Some(event) = conn.quic.poll_endpoint_events() {
                    busy = true;
                    if event.is_drained() {
                        drained.push(handle);
                    }
                    if let Some(event) = self.endpoint.handle_event(handle, event) {
                        conn.quic.handle_event(event);
                    }
                }
                let mut buf = Vec::new();
                while let Some(transmit) = conn.quic.poll_transmit(now, NonZeroUsize::MIN, &mut buf) {
                    busy = true;
                    sent.push((transmit, std::mem::take(&mut buf)));
                }
                if !busy {
                    break;
                }
            }
            while let Some(event) = conn.quic.poll() {
                conn.events.push(event);
            }
        }
        out.extend(sent.into_iter().map(|(transmit, bytes)| self.outgoing(&transmit, bytes)));
        for handle in drained {
            // The events stay readable; noq has forgotten the handle.
            if let Some(conn) = self.conns.remove(&handle) {
                self.conns.insert(ConnectionHandle(usize::MAX - handle.0), conn);
            }
        }
    }
}

fn endpoint(key: &SecretKey, tuning: &Tuning, transport: &Arc<TransportConfig>, dice: u64) -> Endpoint {
    let mut rng_seed = [0; 32];
    rng_seed[..8].copy_from_slice(&dice.to_le_bytes());
    let mut config = EndpointConfig::new(reset_key(key));
    config
        .supported_versions(vec![QUIC_VERSION])
        .grease_quic_bit(false)
        .cid_generator(cid_generator(key))
        .min_reset_interval(Duration::from_millis(100))
        .rng_seed(Some(rng_seed));
    let mut server = ServerConfig::new(Handshakes::tuned(key, tuning.clone()).server(), token_key(key));
    server.transport_config(Arc::clone(transport));
    Endpoint::new(Arc::new(config), Some(Arc::new(server)), true)
}

pub(super) fn address(host: u16, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host).into(), port)
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Everything that was ever sent by an endpoint.
    pub(super) log: Vec<Sent>,
    pub(super) fate: Box<dyn FnMut(&Sent) -> Fate>,
    flights: Vec<Flight>,
}

impl World {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "virtual time begins somewhere; nothing depends on where"
        )]
        let epoch = Instant::now();
        Self { now: epoch, nodes, log: Vec::new(), fate: Box::new(|_| Fate::Deliver), flights: Vec::new() }
    }

    /// Two nodes with usual settings.
    pub(super) fn pair() -> Self {
        Self::tuned_pair(Tuning::default(), Tuning::default())
    }

    pub(super) fn tuned_pair(initiator: Tuning, responder: Tuning) -> Self {
        Self::new(vec![
            Node::new(1, initiator, TransportConfig::default()),
            Node::new(2, responder, TransportConfig::default()),
        ])
    }

    /// Node `from` calls node `to`.
    pub(super) fn dial(&mut self, from: usize, to: usize) -> ConnectionHandle {
        let remote = self.nodes[to].key.peer_id();
        let addr = self.nodes[to].addr;
        self.dial_as(from, &remote, addr)
    }

    /// Node `from` calls `remote` at an address where perhaps somebody else listens.
    pub(super) fn dial_as(&mut self, from: usize, remote: &PeerId, addr: SocketAddr) -> ConnectionHandle {
        let node = &self.nodes[from];
        let crypto = Handshakes::tuned(&node.key, node.tuning.clone()).client(remote);
        self.dial_with(from, addr, crypto)
    }

    /// Node `from` calls with a crypto configuration of the test's own.
    pub(super) fn dial_with(
        &mut self,
        from: usize,
        addr: SocketAddr,
        crypto: Arc<dyn noq_proto::crypto::ClientConfig>,
    ) -> ConnectionHandle {
        let node = &mut self.nodes[from];
        let mut config = ClientConfig::new(crypto);
        config.version(QUIC_VERSION).transport_config(Arc::clone(&node.transport));
        let (handle, quic) = node.endpoint.connect(self.now, config, addr, "peer").unwrap();
        node.conns.insert(handle, Conn { quic, events: Vec::new() });
        handle
    }

    /// A dial that both sides complete; returns the two handles.
    pub(super) fn connect(&mut self) -> (ConnectionHandle, ConnectionHandle) {
        let initiator = self.dial(0, 1);
        assert!(
            self.run_until(|world| world.is_connected(0, initiator) && world.only_conn(1).is_some()),
            "no connection"
        );
        let responder = self.only_conn(1).unwrap();
        assert!(self.run_until(|world| world.is_connected(1, responder)), "the responder is not connected");
        (initiator, responder)
    }

    pub(super) fn only_conn(&self, node: usize) -> Option<ConnectionHandle> {
        let mut handles = self.nodes[node].conns.keys();
        handles.next().copied().filter(|_| handles.next().is_none())
    }

    pub(super) fn conn(&mut self, node: usize, handle: ConnectionHandle) -> &mut Conn {
        let retired = ConnectionHandle(usize::MAX - handle.0);
        let conns = &mut self.nodes[node].conns;
        let key = if conns.contains_key(&handle) { handle } else { retired };
        conns.get_mut(&key).unwrap()
    }

    pub(super) fn is_connected(&self, node: usize, handle: ConnectionHandle) -> bool {
        self.nodes[node].conns.get(&handle).is_some_and(Conn::is_connected)
    }

    /// Puts a datagram on the wire that no endpoint sent.
    pub(super) fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.flights.push(Flight { due: self.now, from, to, bytes });
    }

    /// Lets everything happen that is due now, then jumps to the next event. False if nothing is left to happen.
    pub(super) fn step(&mut self) -> bool {
        self.settle();
        let Some(next) = self.next_event() else { return false };
        self.now = self.now.max(next);
        self.settle();
        true
    }

    fn next_event(&self) -> Option<Instant> {
        let flights = self.flights.iter().map(|flight| flight.due);
        let conns = self.nodes.iter().flat_map(|node| node.conns.values());
        flights.chain(conns.filter_map(|conn| conn.quic.poll_timeout())).min()
    }

    /// Lets everything happen that is due now.
    pub(super) fn settle(&mut self) {
        loop {
            let due = self.take_due_flights();
            let arrived = !due.is_empty();
            let mut out = Vec::new();
            for flight in due {
                let to = |node: &&mut Node| node.addr == flight.to || node.aliases.contains(&flight.to);
                if let Some(node) = self.nodes.iter_mut().find(to) {
                    node.receive(self.now, &flight, &mut out);
                }
            }
            for node in &mut self.nodes {
                node.pump(self.now, &mut out);
            }
            let was_quiet = !arrived && out.is_empty();
            for outgoing in out {
                self.send(outgoing);
            }
            if was_quiet {
                break;
            }
        }
    }

    fn take_due_flights(&mut self) -> Vec<Flight> {
        let now = self.now;
        let mut due: Vec<_> = self.flights.extract_if(.., |flight| flight.due <= now).collect();
        due.sort_by_key(|flight| flight.due);
        due
    }

    fn send(&mut self, Outgoing { from, to, bytes }: Outgoing) {
        let sent = Sent { index: self.log.len(), from, to, bytes };
        let fate = (self.fate)(&sent);
        self.log.push(sent.clone());
        let mut fly = |delay: Duration, bytes: Vec<u8>| {
            self.flights.push(Flight { due: self.now + ONE_WAY + delay, from, to, bytes });
        };
        match fate {
            Fate::Deliver => fly(Duration::ZERO, sent.bytes),
            Fate::Lose => {}
            Fate::Twice => {
                fly(Duration::ZERO, sent.bytes.clone());
                fly(Duration::from_millis(1), sent.bytes);
            }
            Fate::Late(delay) => fly(delay, sent.bytes),
            Fate::Altered(bytes) => fly(Duration::ZERO, bytes),
        }
    }

    /// Runs until the goal is reached; false if it is not within a virtual minute, or nothing happens any more.
    pub(super) fn run_until(&mut self, mut goal: impl FnMut(&Self) -> bool) -> bool {
        let deadline = self.now + PATIENCE;
        while !goal(self) {
            if self.now > deadline || !self.step() {
                return goal(self);
            }
        }
        true
    }

    /// Lets exactly so much time pass.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while self.next_event().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = end;
        self.settle();
    }

    /// Sends a message on a stream of its own.
    pub(super) fn say(&mut self, node: usize, handle: ConnectionHandle, message: &[u8]) {
        let quic = &mut self.conn(node, handle).quic;
        let id = quic.streams().open(Dir::Uni).expect("streams are left");
        assert_eq!(quic.send_stream(id).write(message).unwrap(), message.len());
        quic.send_stream(id).finish().unwrap();
    }

    /// Runs until a message arrives, and returns it.
    pub(super) fn hear(&mut self, node: usize, handle: ConnectionHandle) -> Option<Vec<u8>> {
        let deadline = self.now + PATIENCE;
        loop {
            let quic = &mut self.conn(node, handle).quic;
            if let Some(id) = quic.streams().accept(Dir::Uni) {
                return self.read_to_end(node, handle, id);
            }
            if self.now > deadline || !self.step() {
                return None;
            }
        }
    }

    fn read_to_end(&mut self, node: usize, handle: ConnectionHandle, id: StreamId) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        let deadline = self.now + PATIENCE;
        while !self.read_now(node, handle, id, &mut message) {
            if self.now > deadline || !self.step() {
                return None;
            }
        }
        Some(message)
    }

    /// Reads what has arrived on a stream; true at its end.
    pub(super) fn read_now(
        &mut self,
        node: usize,
        handle: ConnectionHandle,
        id: StreamId,
        message: &mut Vec<u8>,
    ) -> bool {
        let mut stream = self.conn(node, handle).quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return false };
        let is_finished = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => message.extend_from_slice(&chunk.bytes),
                Ok(None) => break true,
                Err(_blocked_or_reset) => break false,
            }
        };
        let _transmit = chunks.finalize();
        is_finished
    }

    /// Both directions carry data: the proof that the keys of both sides agree.
    pub(super) fn assert_talks(&mut self, initiator: ConnectionHandle, responder: ConnectionHandle) {
        self.say(0, initiator, b"ping");
        assert_eq!(self.hear(1, responder).as_deref(), Some(&b"ping"[..]));
        self.say(1, responder, b"pong");
        assert_eq!(self.hear(0, initiator).as_deref(), Some(&b"pong"[..]));
    }

    pub(super) fn close(&mut self, node: usize, handle: ConnectionHandle) {
        let now = self.now;
        self.conn(node, handle).quic.close(now, 0_u8.into(), Bytes::new());
    }

    /// Bytes that went from one address to another so far.
    pub(super) fn bytes_between(&self, from: SocketAddr, to: SocketAddr) -> usize {
        self.log.iter().filter(|sent| sent.from == from && sent.to == to).map(|sent| sent.bytes.len()).sum()
    }
}
