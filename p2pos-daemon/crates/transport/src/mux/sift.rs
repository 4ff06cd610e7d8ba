//! Sorts a received batch: what goes on to noq, under which source, and what does not.
//!
//! The kernel joins datagrams of one sender and one size into a batch (GRO). noq takes a batch with one source address and
//! one size. After relay frames are opened, one batch may hold packets of several flows; and a sender may mix its own kinds
//! of datagrams as it likes. So the packets of the batch's first source close ranks at the front of the buffer, and others
//! leave by a side door. Pure: the judgement of a datagram is the caller's.

use std::net::SocketAddr;

/// What becomes of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes to noq, without its first `skip` bytes, as coming from `source`.
    Keep {
        /// Where it comes from, in noq's form.
        source: SocketAddr,
        /// Bytes of the envelope, bytes.
        skip: usize,
    },
    /// It was taken by somebody else, or dropped.
    Gone,
}

/// What is left at the front of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sifted {
    /// Bytes kept.
    pub(crate) len: usize,
    /// Size of each kept datagram except perhaps the last.
    pub(crate) stride: usize,
    /// Where all of them come from; `None` if none was kept.
    pub(crate) source: Option<SocketAddr>,
}

/// Sorts the datagrams of `buffer`, each `stride` bytes long except perhaps the last.
///
/// Packets of another source than the first kept one are handed to `spill`.
pub(crate) fn sift(
    buffer: &mut [u8],
    stride: usize,
    mut judge: impl FnMut(&[u8]) -> Fate,
    mut spill: impl FnMut(SocketAddr, &[u8]),
) -> Sifted {
    let stride = stride.max(1);
    let mut sifted = Sifted { len: 0, stride, source: None };
    let mut start = 0;
    while start < buffer.len() {
        let end = buffer.len().min(start + stride);
        if let Fate::Keep { source, skip } = judge(&buffer[start..end]) {
            let payload = start + skip..end;
            if sifted.source.is_none() {
                sifted = Sifted { len: 0, stride: stride - skip, source: Some(source) };
            }
            if sifted.source == Some(source) {
                let len = payload.len();
                if payload.start != sifted.len {
                    buffer.copy_within(payload, sifted.len);
                }
                sifted.len += len;
            } else {
                spill(source, &buffer[payload]);
            }
        }
        start = end;
    }
    sifted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// Datagrams whose first byte is the port of their source (0: drop) and whose second is the length of their envelope.
    fn judge(datagram: &[u8]) -> Fate {
        match datagram[0] {
            0 => Fate::Gone,
            port => Fate::Keep { source: source(u16::from(port)), skip: usize::from(datagram[1]) },
        }
    }

    fn datagram(port: u8, skip: u8, fill: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![fill; len];
        bytes[..2].copy_from_slice(&[port, skip]);
        bytes
    }

    #[test]
    fn good_packets_close_ranks_when_bad_ones_between_them_go() {
        let mut buffer =
            [datagram(7, 0, 1, 40), datagram(0, 0, 9, 40), datagram(7, 0, 2, 40), datagram(7, 0, 3, 25)]
                .concat();
        let sifted = sift(&mut buffer, 40, judge, |_, _| panic!("one source only"));
        assert_eq!(sifted, Sifted { len: 105, stride: 40, source: Some(source(7)) });
        assert_eq!((buffer[39], buffer[79], buffer[104]), (1, 2, 3));
    }

    #[test]
    fn envelopes_go_and_packets_of_other_flows_leave_by_the_side() {
        let mut buffer =
            [datagram(7, 13, 1, 40), datagram(8, 13, 2, 40), datagram(7, 13, 3, 40), datagram(9, 0, 4, 30)]
                .concat();
        let mut spilled = Vec::new();
        let sifted = sift(&mut buffer, 40, judge, |source, bytes| spilled.push((source, bytes.to_vec())));
        assert_eq!(sifted, Sifted { len: 54, stride: 27, source: Some(source(7)) });
        assert_eq!(buffer[..54], [vec![1; 27], vec![3; 27]].concat());
        assert_eq!(spilled, [(source(8), vec![2; 27]), (source(9), datagram(9, 0, 4, 30))]);
    }

    #[test]
    fn a_batch_of_nothing_but_rubbish_is_empty() {
        let mut buffer = datagram(0, 0, 0, 90);
        let sifted = sift(&mut buffer, 40, judge, |_, _| panic!("nothing to spill"));
        assert_eq!((sifted.len, sifted.source), (0, None));
    }

    #[test]
    fn a_zero_stride_ends() {
        assert_eq!(sift(&mut [0, 0, 0], 0, |_| Fate::Gone, |_, _| ()).len, 0);
    }
}
