//! The handshake of two daemons with somebody in the middle who drops, cuts, doubles and changes bytes. Promise: a side that believes
//! the handshake to be over has heard exactly what the other side said.

use std::sync::{Arc, OnceLock};

use noq_proto::Side;
use noq_proto::crypto::{ClientConfig, ServerConfig, Session};
use noq_proto::transport_parameters::TransportParameters;
use p2pos_identity::SecretKey;
use p2pos_noise_quic::{Handshakes, QUIC_VERSION};

use crate::input::Input;

/// Steps that the one in the middle gets: an honest exchange takes five.
const STEPS_MAX: usize = 24;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (client, server) = configs();
    let params = parameters(&mut input);
    let session = client.start_session(QUIC_VERSION, "p2pos", &params);
    let mut caller = End::new(session.expect("our own version is welcome"));
    let mut called = End::new(server.clone().start_session(QUIC_VERSION, &params));
    for _ in 0..STEPS_MAX {
        caller.speak();
        called.speak();
        step(&mut input, &mut caller, &mut called);
        step(&mut input, &mut called, &mut caller);
        caller.check(&called);
        called.check(&caller);
    }
}

/// One side of the handshake: its session, all it ever said, all it ever heard, and what is under way from it.
struct End {
    session: Box<dyn Session>,
    said: Vec<u8>,
    heard: Vec<u8>,
    under_way: Vec<u8>,
    is_broken: bool,
}

impl End {
    fn new(session: Box<dyn Session>) -> Self {
        Self { session, said: Vec::new(), heard: Vec::new(), under_way: Vec::new(), is_broken: false }
    }

    /// Lets the session write until it has nothing more to say.
    fn speak(&mut self) {
        while !self.is_broken {
            let mut bytes = Vec::new();
            let has_keys = self.session.write_handshake(&mut bytes).is_some();
            if bytes.is_empty() && !has_keys {
                return;
            }
            self.said.extend_from_slice(&bytes);
            self.under_way.extend_from_slice(&bytes);
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.is_broken || bytes.is_empty() {
            return;
        }
        self.heard.extend_from_slice(bytes);
        // noq closes the connection at the first error, so nothing is read after one.
        self.is_broken = self.session.read_handshake(bytes).is_err();
        drop(self.session.transport_parameters());
    }

    fn check(&self, other: &Self) {
        if self.is_broken || self.session.is_handshaking() {
            assert!(self.session.peer_identity().is_none(), "nobody is known before the handshake is over");
            return;
        }
        assert!(self.session.peer_identity().is_some());
        assert!(other.said.starts_with(&self.heard), "believed what the other side never said");
    }
}

/// Lets something happen to what is under way from one side to the other.
fn step(input: &mut Input<'_>, from: &mut End, to: &mut End) {
    if from.under_way.is_empty() {
        return;
    }
    let length = from.under_way.len();
    match input.below(8) {
        0..=2 => to.hear(&std::mem::take(&mut from.under_way)),
        3 => {
            let count = usize::from(input.byte()).clamp(1, length);
            let first: Vec<u8> = from.under_way.drain(..count).collect();
            to.hear(&first);
        }
        4 => {
            let place = input.number() as usize % length;
            from.under_way[place] ^= input.byte().max(1);
        }
        5 => {
            let place = input.number() as usize % length;
            from.under_way.truncate(place);
        }
        6 => {
            let copy = from.under_way.clone();
            to.hear(&copy);
        }
        _ => {
            let count = input.below(64);
            from.under_way.extend_from_slice(input.take(count));
        }
    }
}

type Configs = (Arc<dyn ClientConfig>, Arc<dyn ServerConfig>);

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let (caller, called) = (SecretKey::from_seed([3; 32]), SecretKey::from_seed([4; 32]));
        (Handshakes::new(&caller).client(&called.peer_id()), Handshakes::new(&called).server())
    })
}

/// Transport parameters as the fuzzer wants them, if it makes valid ones; the defaults otherwise.
fn parameters(input: &mut Input<'_>) -> TransportParameters {
    let count = input.below(128);
    let mut wanted = input.take(count);
    TransportParameters::read(Side::Server, &mut wanted)
        .or_else(|_| TransportParameters::read(Side::Server, &mut &[][..]))
        .expect("no parameters at all are the defaults")
}
