//! The first look at a datagram, before any key is used. Promises: what is not QUIC of our version never reaches noq; a stranger's
//! Initial is not admitted; a relay frame that reads has the size that one may have.

use std::sync::OnceLock;

use p2pos_identity::SecretKey;
use p2pos_noise_quic::QUIC_VERSION;
use p2pos_noise_quic::probe::{self, StrangerFilter, Verdict};
use p2pos_relay::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use p2pos_transport::{Class, classify};

/// Set in every QUIC packet with a long header, RFC 9000 s17.2.
const LONG_HEADER: u8 = 0x80;
/// Set in every QUIC packet as long as nobody greases it, RFC 9000 s17.
const FIXED_BIT: u8 = 0x40;

pub(crate) fn run(datagram: &[u8]) {
    let class = classify(datagram);
    let is_quic = probe::judge(datagram) == Verdict::Quic;
    assert!(class != Class::Quic || is_quic, "classify lets through what judge would drop");
    if class == Class::Quic {
        assert!(datagram[0] & FIXED_BIT != 0);
        let is_long = datagram[0] & LONG_HEADER != 0;
        assert!(
            !is_long || datagram[1..5] == QUIC_VERSION.to_be_bytes(),
            "a foreign version would be answered"
        );
    }
    // The fuzzer cannot know our key, so whatever calls itself an Initial is a stranger's.
    let is_initial = class == Class::Quic && datagram[0] & 0xf0 == LONG_HEADER | FIXED_BIT;
    assert!(!(is_initial && filter().admits(datagram)), "a stranger's Initial was admitted");
    if let Ok(frame) = p2pos_relay::decode(datagram) {
        assert!((PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&frame.payload.len()));
        let written =
            [&p2pos_relay::encode_head(frame.vni, frame.counter, frame.tag)[..], frame.payload].concat();
        assert_eq!(written, datagram);
    }
}

fn filter() -> &'static StrangerFilter {
    static FILTER: OnceLock<StrangerFilter> = OnceLock::new();
    FILTER.get_or_init(|| StrangerFilter::new(&SecretKey::from_seed([0x5a; 32])))
}
