//! Packets as a TUN device gives them: a virtio-net header, then an IP packet, which may be a train of UDP datagrams of one size that
//! the kernel did not cut (generic segmentation offload). Cutting a train, so that single datagrams can be lost or delayed.
//!
//! Owns the layout of that header and of what must be put right when a train gets shorter: lengths, the IPv4 header's checksum and
//! the pseudo-header sum (RFC 768, RFC 791, RFC 8200 s8.1; virtio 1.2 s5.1.6). Refuses to know devices and time. TCP trains never come:
//! the device does not offer to take them.

use std::ops::Range;

/// Bytes of the header before every packet (`struct virtio_net_hdr`).
pub(super) const VNET_BYTES: usize = 10;

/// The checksum is a pseudo-header sum that somebody has still to complete.
const NEEDS_CHECKSUM: u8 = 1;
/// A train of UDP datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`).
const UDP_TRAIN: u8 = 5;
const UDP_HEADER_BYTES: usize = 8;
const UDP_PROTOCOL: u32 = 17;
const IPV4_HEADER_BYTES_MIN: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// A train of datagrams within a packet buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Train {
    /// Where the UDP header begins in the IP packet.
    udp_at: usize,
    /// Payload of each datagram but the last, bytes.
    each: usize,
    /// Payload of all, bytes.
    payload: usize,
}

impl Train {
    /// Finds the train in a buffer; `None` if it is a single packet.
    pub(super) fn of(buffer: &[u8]) -> Option<Self> {
        if buffer.len() <= VNET_BYTES || buffer[0] & NEEDS_CHECKSUM == 0 || buffer[1] != UDP_TRAIN {
            return None;
        }
        let each = usize::from(u16::from_ne_bytes([buffer[4], buffer[5]]));
        let udp_at = usize::from(u16::from_ne_bytes([buffer[6], buffer[7]]));
        let payload = (buffer.len() - VNET_BYTES).checked_sub(udp_at + UDP_HEADER_BYTES)?;
        (each > 0 && payload > each && udp_at >= IPV4_HEADER_BYTES_MIN).then_some(Self {
            udp_at,
            each,
            payload,
        })
    }

    /// How many datagrams it has.
    pub(super) fn count(self) -> usize {
        self.payload.div_ceil(self.each)
    }

    /// Bytes of datagram `index` as an IP packet of its own.
    pub(super) fn ip_bytes(self, index: usize) -> usize {
        self.udp_at + UDP_HEADER_BYTES + self.payload_of(index).len()
    }

    fn payload_of(self, index: usize) -> Range<usize> {
        let start = index * self.each;
        start..(start + self.each).min(self.payload)
    }

    /// A train, or a single packet, of these datagrams of `buffer`, whose indices rise.
    pub(super) fn keep(self, buffer: &[u8], indices: &[usize]) -> Vec<u8> {
        let head = VNET_BYTES + self.udp_at + UDP_HEADER_BYTES;
        let mut kept = Vec::with_capacity(head + indices.len() * self.each);
        kept.extend_from_slice(&buffer[..head]);
        for &index in indices {
            let payload = self.payload_of(index);
            kept.extend_from_slice(&buffer[head + payload.start..head + payload.end]);
        }
        if kept.len() - head <= self.each {
            kept[1] = 0;
            kept[4..6].fill(0);
        }
        put_right(&mut kept[VNET_BYTES..], self.udp_at);
        kept
    }
}

/// Rewrites lengths and sums of an IP packet with a UDP header at `udp_at`, after its payload has changed its length.
fn put_right(ip: &mut [u8], udp_at: usize) {
    let udp_bytes = u16::try_from(ip.len() - udp_at).expect("a part of a packet that was not too long");
    let addresses = if ip[0] >> 4 == 4 {
        let total = u16::try_from(ip.len()).expect("a part of a packet that was not too long");
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[10..12].fill(0);
        let sum = !fold(sum_of(&ip[..udp_at]));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        12..IPV4_HEADER_BYTES_MIN
    } else {
        let after_header =
            u16::try_from(ip.len() - IPV6_HEADER_BYTES).expect("a part of a packet that was not too long");
        ip[4..6].copy_from_slice(&after_header.to_be_bytes());
        8..IPV6_HEADER_BYTES
    };
    ip[udp_at + 4..udp_at + 6].copy_from_slice(&udp_bytes.to_be_bytes());
    let pseudo = fold(sum_of(&ip[addresses]) + UDP_PROTOCOL + u32::from(udp_bytes));
    ip[udp_at + 6..udp_at + 8].copy_from_slice(&pseudo.to_be_bytes());
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    u16::try_from((once & 0xffff) + (once >> 16)).expect("two folds leave 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A train of four datagrams, 100 bytes each and 30 in the last, as the kernel would give it.
    fn train(is_ipv6: bool) -> Vec<u8> {
        let udp_at = if is_ipv6 { IPV6_HEADER_BYTES } else { IPV4_HEADER_BYTES_MIN };
        let mut buffer = vec![0; VNET_BYTES + udp_at + UDP_HEADER_BYTES];
        buffer[0] = NEEDS_CHECKSUM;
        buffer[1] = UDP_TRAIN;
        buffer[4..6].copy_from_slice(&100_u16.to_ne_bytes());
        buffer[6..8].copy_from_slice(&u16::try_from(udp_at).unwrap().to_ne_bytes());
        buffer[VNET_BYTES] = if is_ipv6 { 0x60 } else { 0x45 };
        for index in 0..330 {
            buffer.push(u8::try_from(index / 100).unwrap());
        }
        put_right(&mut buffer[VNET_BYTES..], udp_at);
        buffer
    }

    #[test]
    fn a_train_is_counted_and_measured() {
        let buffer = train(false);
        let found = Train::of(&buffer).unwrap();
        assert_eq!(found.count(), 4);
        assert_eq!((found.ip_bytes(0), found.ip_bytes(3)), (128, 58));
    }

    #[test]
    fn keeping_all_changes_nothing() {
        for is_ipv6 in [false, true] {
            let buffer = train(is_ipv6);
            assert_eq!(Train::of(&buffer).unwrap().keep(&buffer, &[0, 1, 2, 3]), buffer);
        }
    }

    #[test]
    fn a_datagram_cut_from_the_middle_leaves_a_shorter_train() {
        for is_ipv6 in [false, true] {
            let buffer = train(is_ipv6);
            let kept = Train::of(&buffer).unwrap().keep(&buffer, &[0, 2, 3]);
            let again = Train::of(&kept).unwrap();
            assert_eq!(again.count(), 3);
            assert_eq!(kept[kept.len() - 31..], [[2].as_slice(), &[3; 30]].concat());
        }
    }

    #[test]
    fn one_datagram_alone_is_no_train_and_its_header_sums_up() {
        let buffer = train(false);
        let kept = Train::of(&buffer).unwrap().keep(&buffer, &[3]);
        assert_eq!(Train::of(&kept), None);
        assert_eq!(kept.len(), VNET_BYTES + 58);
        assert_eq!(fold(sum_of(&kept[VNET_BYTES..VNET_BYTES + IPV4_HEADER_BYTES_MIN])), 0xffff);
    }

    #[test]
    fn every_truncation_of_a_train_is_survived() {
        let buffer = train(false);
        for length in 0..buffer.len() {
            if let Some(train) = Train::of(&buffer[..length]) {
                assert!(train.count() > 1);
            }
        }
    }
}
