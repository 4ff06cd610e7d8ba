//! The head of a QUIC datagram between daemons: the flow it belongs to, as a QUIC varint (RFC 9000 s16), then payload.
//!
//! The flow id is the id of the QUIC stream that opened the flow, so a daemon grants it and the peer cannot invent one
//! that means something else. Short flows cost one byte. Refuses to know: which flows exist, and how large a datagram
//! may be on the path (that is asked of the connection; [`FlowId::encoded_bytes`] tells what we take of it).

use bytes::{BufMut, Bytes, BytesMut};

/// The largest flow id: what a QUIC varint can hold.
pub const FLOW_ID_MAX: u64 = (1 << 62) - 1;

/// The longest head, in bytes.
pub const HEAD_BYTES_MAX: usize = 8;

/// Names a datagram flow inside one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u64);

/// A datagram that ends inside its head: the peer broke the protocol, and the datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the datagram ends inside its flow id")]
pub struct NoFlowId;

impl FlowId {
    /// Takes a stream's id as flow id; `None` above [`FLOW_ID_MAX`], which no stream has.
    #[must_use]
    pub fn new(id: u64) -> Option<Self> {
        (id <= FLOW_ID_MAX).then_some(Self(id))
    }

    /// Returns the number.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }

    /// Tells how many bytes of each datagram the id takes: 1, 2, 4 or 8.
    #[must_use]
    pub fn encoded_bytes(self) -> usize {
        match self.0 {
            0..0x40 => 1,
            0x40..0x4000 => 2,
            0x4000..0x4000_0000 => 4,
            _ => 8,
        }
    }
}

/// Puts the flow id before the payload. The payload is copied once, because QUIC wants one piece.
#[must_use]
pub fn encode(flow: FlowId, payload: &[u8]) -> Bytes {
    let head_bytes = flow.encoded_bytes();
    let mut datagram = BytesMut::with_capacity(head_bytes + payload.len());
    // The two highest bits of the first byte tell the length: 00, 01, 10, 11 for 1, 2, 4, 8 bytes.
    let marked = flow.0 | u64::from(head_bytes.trailing_zeros()) << (head_bytes * 8 - 2);
    datagram.put_uint(marked, head_bytes);
    datagram.put_slice(payload);
    datagram.freeze()
}

/// Splits a datagram into flow id and payload, without a copy.
///
/// # Errors
/// [`NoFlowId`] if the bytes end inside the id.
pub fn decode(mut datagram: Bytes) -> Result<(FlowId, Bytes), NoFlowId> {
    let first = *datagram.first().ok_or(NoFlowId)?;
    let head_bytes = 1_usize << (first >> 6);
    if datagram.len() < head_bytes {
        return Err(NoFlowId);
    }
    let head = datagram.split_to(head_bytes);
    let id = head[1..].iter().fold(u64::from(first & 0x3f), |id, byte| id << 8 | u64::from(*byte));
    Ok((FlowId(id), datagram))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_hold() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d][..], 494_878_333),
            (&[0x7b, 0xbd][..], 15_293),
            (&[0x25][..], 37),
        ] {
            let flow = FlowId::new(value).unwrap();
            assert_eq!(encode(flow, b""), bytes);
            assert_eq!(decode(Bytes::from_static(bytes)), Ok((flow, Bytes::new())));
        }
        assert_eq!(
            decode(Bytes::from_static(&[0x40, 0x25])).unwrap().0,
            FlowId(37),
            "a longer form is allowed"
        );
    }

    #[test]
    fn the_bounds_of_each_length_take_that_many_bytes() {
        for (id, bytes) in
            [(0x3f, 1), (0x40, 2), (0x3fff, 2), (0x4000, 4), (0x3fff_ffff, 4), (0x4000_0000, 8)]
        {
            assert_eq!(FlowId::new(id).unwrap().encoded_bytes(), bytes);
        }
        assert_eq!(FlowId::new(FLOW_ID_MAX).unwrap().encoded_bytes(), HEAD_BYTES_MAX);
        assert_eq!(FlowId::new(FLOW_ID_MAX + 1), None);
    }

    #[test]
    fn every_truncation_inside_the_flow_id_is_refused() {
        for id in [0, 0x40, 0x4000, FLOW_ID_MAX] {
            let flow = FlowId::new(id).unwrap();
            let whole = encode(flow, b"");
            for bytes in 0..whole.len() {
                assert_eq!(decode(whole.slice(..bytes)), Err(NoFlowId));
            }
        }
    }

    #[test]
    fn the_payload_is_handed_on_without_a_copy() {
        let datagram = encode(FlowId(9), b"payload");
        let (_, payload) = decode(datagram.clone()).unwrap();
        assert_eq!(payload.as_ptr(), datagram[1..].as_ptr());
    }

    proptest! {
        #[test]
        fn every_flow_and_payload_survives_the_wire(id in 0..=FLOW_ID_MAX, payload: Vec<u8>) {
            let flow = FlowId::new(id).unwrap();
            prop_assert_eq!(decode(encode(flow, &payload)), Ok((flow, Bytes::from(payload))));
        }

        #[test]
        fn gibberish_never_panics(bytes: Vec<u8>) {
            if let Ok((flow, payload)) = decode(Bytes::from(bytes)) {
                prop_assert!(flow.value() <= FLOW_ID_MAX);
                drop(payload);
            }
        }
    }
}
