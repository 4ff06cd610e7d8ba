//! What strangers and evil users send to a relay, and what a relay sends to users. Promises: nothing that the users did not sign is
//! forwarded; answers are never larger than what asked for them; how TCP cuts frames does not matter.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use p2pos_identity::SecretKey;
use p2pos_relay::tcp::FrameReader;
use p2pos_relay::{
    Asker, Call, Entropy, FlowEnd, Notice, Opened, RelayMode, RelaySettings, Service, ServiceEvent, Verdict,
    Via,
};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let step = input.below(64) + 1;
    assert_eq!(frames(input.0, input.0.len().max(1)), frames(input.0, step), "the cutting must not matter");
    Relayed::new().play(&mut input);
}

/// All frames that TCP bytes hold, read in steps of this size, and whether an error ended them.
fn frames(bytes: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(step) {
        reader.push(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// A relay with one flow, and whoever plays with it.
struct Relayed {
    relay: Service,
    now: Instant,
    ends: [FlowEnd; 2],
}

impl Relayed {
    fn new() -> Self {
        let now = Instant::now();
        let settings = RelaySettings { mode: RelayMode::Community, ..RelaySettings::default() };
        let mut relay = Service::new(now, settings, [7; 16], 0);
        let entropy = Entropy([9; 48]);
        let lease = relay.handle_reserve(now, &asker(2), [8; 16], None).expect("the relay is empty");
        let call = Call { callee: asker(2).peer, token: lease.token };
        let flow = relay.handle_connect(now, &asker(1), &call, &entropy).expect("the lease is good");
        let Some(ServiceEvent::Tell { notice: Notice::Incoming { flow: other, .. }, .. }) =
            relay.poll_event()
        else {
            panic!("the callee is told");
        };
        let ends = [flow, other].map(|flow| FlowEnd::new(flow.vni, flow.key, flow.accept));
        Self { relay, now, ends }
    }

    /// Sends frames that the input makes or damages, from where it says.
    fn play(&mut self, input: &mut Input<'_>) {
        while !input.is_empty() {
            self.now += Duration::from_millis(u64::from(input.byte()));
            let end = &self.ends[input.below(2)];
            let from = Via::Udp(SocketAddr::from(([9, 9, 9, input.byte()], 9)));
            let kind = input.below(4);
            let length = input.below(200);
            let packet = input.take(length);
            let mut frame = match kind {
                0 => packet.to_vec(),
                1 => [&[5][..], &end.vni().value().to_be_bytes(), packet].concat(),
                2 => end.bind().expect("a few frames of 2^32").to_vec(),
                _ => [&end.head(packet).expect("a few frames of 2^32")[..], packet].concat(),
            };
            let sent = frame.len();
            let verdict = self.relay.forward(self.now, from, &mut frame);
            assert_eq!(frame.len(), sent);
            assert!(kind >= 2 || matches!(verdict, Verdict::Dropped(_)), "nobody signed this: {verdict:?}");
            let answered: usize =
                std::iter::from_fn(|| self.relay.poll_answer()).map(|(_, answer)| answer.len()).sum();
            assert!(answered <= sent, "{answered} bytes for {sent}");
            for end in &self.ends {
                if let Ok(Opened::Packet(packet)) = end.open(&frame) {
                    assert!(frame.ends_with(packet), "a packet is handed on where it lies");
                }
            }
        }
    }
}

fn asker(number: u8) -> Asker {
    let address = SocketAddr::from(([8, 8, number, 1], 4000));
    let peer = SecretKey::from_seed([number; 32]).peer_id();
    Asker { peer, is_contact: false, address, via: Via::Udp(address), is_relayed: false }
}
