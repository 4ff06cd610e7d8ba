//! The frames of RELAY.md section 8, byte by byte, in both directions.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use p2pos_relay::{FlowEnd, FlowKey, Opened, Tag, Vni};

const SPECIFICATION: &str = include_str!("../RELAY.md");

#[test]
fn the_frames_in_the_specification_are_those_that_we_send_and_take() {
    let packet: Vec<u8> = (0x40..0x40 + 21).collect();
    let end = end();
    let data = [&end.head(&packet).unwrap()[..], &packet].concat();
    assert!(has(&data), "data: {}", hex(&data));
    let bind = end.bind().unwrap();
    assert!(has(&bind), "bind: {}", hex(&bind));
    let challenge = unhex("05 00 20 00 00 00 00 00 00 a0 a1 a2 a3 a4 a5 a6 a7 02 c0 c1 c2 c3 c4 c5 c6 c7");
    let challenge = [&challenge[..], &[0; 23]].concat();
    assert!(has(&challenge), "challenge: {}", hex(&challenge));
    let Ok(Opened::Answer(proof)) = end.open(&challenge) else { panic!("a challenge") };
    assert!(has(&proof), "proof: {}", hex(&proof));
    let bound = "05 00 20 00 00 00 00 00 00 a0 a1 a2 a3 a4 a5 a6 a7 04 00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 01 1f 90";
    let bound = [&unhex(bound)[..], &[0; 13]].concat();
    assert!(has(&bound), "bound: {}", hex(&bound));
    assert!(matches!(end.open(&bound), Ok(Opened::Bound(at)) if at == "192.0.2.1:8080".parse().unwrap()));
}

fn end() -> FlowEnd {
    let key = FlowKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let accept = Tag(std::array::from_fn(|at| 0xa0 + u8::try_from(at).unwrap()));
    FlowEnd::new(Vni::new(0x0020_0000).unwrap(), key, accept)
}

/// Tells whether the specification shows these bytes, whatever its line breaks.
fn has(frame: &[u8]) -> bool {
    let plain: String = SPECIFICATION.split_whitespace().collect();
    plain.contains(&hex(frame))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
