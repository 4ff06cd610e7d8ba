//! Packet protection: one AEAD key for one direction and one key phase (RFC 9001 s5.3, with a wider nonce).
//!
//! The nonce is the IV xor the path id (32 bit) and the packet number (64 bit). With multipath every path counts its
//! packets from zero, so a nonce without the path id would be used twice, which is fatal to both ciphers
//! (draft-ietf-quic-multipath s2.4 mixes it in the same way).

use bytes::BytesMut;
use noq_proto::{
    PathId, VarInt,
    coding::{Decodable, Encodable},
    crypto::{CryptoError, PacketKey},
};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{schedule::Secret, suite::Suite};

/// Bytes of the AEAD tag, the same for both ciphers.
pub(crate) const TAG_BYTES: usize = 16;

/// Packets under one key, over all paths, before noq must update it: RFC 9001 s6.6 gives 2^23 for AES-GCM, and none for
/// ChaCha20, which keeps it too, since an update costs microseconds. Ten seconds at 800,000 packets a second. Half
/// would change nothing; double would leave the RFC's bound.
pub(crate) const CONFIDENTIALITY_PACKETS_MAX: u64 = 1 << 23;

/// Packets that may fail to decrypt, over all paths and keys, before the connection closes: RFC 9001 s6.6 gives 2^36
/// for ChaCha20-Poly1305 and 2^52 for AES-GCM; the stricter one serves both.
pub(crate) const INTEGRITY_PACKETS_MAX: u64 = 1 << 36;

/// How long a key may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PacketLimits {
    pub(crate) confidentiality_packets: u64,
    pub(crate) integrity_packets: u64,
}

impl Default for PacketLimits {
    fn default() -> Self {
        Self {
            confidentiality_packets: CONFIDENTIALITY_PACKETS_MAX,
            integrity_packets: INTEGRITY_PACKETS_MAX,
        }
    }
}

/// The key of one direction in one key phase.
pub(crate) struct NoisePacketKey {
    key: LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    limits: PacketLimits,
}

impl NoisePacketKey {
    pub(crate) fn new(suite: Suite, key: &Secret, iv: [u8; aead::NONCE_LEN], limits: PacketLimits) -> Self {
        let key = UnboundKey::new(suite.aead(), key.as_slice()).expect("both ciphers take 32-byte keys");
        Self { key: LessSafeKey::new(key), iv, limits }
    }

    fn nonce(&self, path_id: PathId, packet: u64) -> Nonce {
        let mut position = [0; aead::NONCE_LEN];
        position[..4].copy_from_slice(&path_number(path_id).to_be_bytes());
        position[4..].copy_from_slice(&packet.to_be_bytes());
        Nonce::assume_unique_for_key(std::array::from_fn(|i| self.iv[i] ^ position[i]))
    }
}

impl PacketKey for NoisePacketKey {
    fn encrypt(&self, path_id: PathId, packet: u64, buf: &mut [u8], header_len: usize) {
        let (header, payload_and_tag) = buf.split_at_mut(header_len);
        let tag_at = payload_and_tag.len() - TAG_BYTES;
        let (payload, tag_space) = payload_and_tag.split_at_mut(tag_at);
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(path_id, packet), Aad::from(&*header), payload)
            .expect("a UDP datagram is far below the ciphers' limit of 2^36 bytes");
        tag_space.copy_from_slice(tag.as_ref());
    }

    fn decrypt(
        &self,
        path_id: PathId,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        let plain = self
            .key
            .open_in_place(self.nonce(path_id, packet), Aad::from(header), payload)
            .map_err(|_| CryptoError)?;
        let plain_len = plain.len();
        payload.truncate(plain_len);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        self.limits.confidentiality_packets
    }

    fn integrity_limit(&self) -> u64 {
        self.limits.integrity_packets
    }
}

/// Reads the number out of a path id. Its encoding is the only public way to it.
fn path_number(path_id: PathId) -> u32 {
    if path_id == PathId::ZERO {
        return 0;
    }
    let mut encoded = [0; VarInt::MAX_SIZE];
    path_id.encode(&mut encoded.as_mut_slice());
    let number = VarInt::decode(&mut encoded.as_slice()).expect("what was just encoded decodes");
    u32::try_from(number.into_inner()).expect("a path id has 32 bits")
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    fn key(suite: Suite) -> NoisePacketKey {
        NoisePacketKey::new(suite, &Zeroizing::new([1; 32]), [2; 12], PacketLimits::default())
    }

    fn sealed(suite: Suite, path: u32, packet: u64) -> Vec<u8> {
        let mut buf = *b"headpayload________________";
        key(suite).encrypt(PathId::from(path), packet, &mut buf, 4);
        buf.to_vec()
    }

    fn opened(suite: Suite, path: u32, packet: u64, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut payload = BytesMut::from(&datagram[4..]);
        let result = key(suite).decrypt(PathId::from(path), packet, &datagram[..4], &mut payload);
        result.ok().map(|()| payload.to_vec())
    }

    #[test]
    fn equal_packet_numbers_on_two_paths_never_share_a_keystream() {
        for suite in SUITES {
            for (path, packet) in [(1, 5), (2, 5), (u32::MAX, 5), (0, 6), (5, 0), (0, 5 << 32)] {
                assert_ne!(sealed(suite, 0, 5)[4..], sealed(suite, path, packet)[4..]);
                assert_eq!(opened(suite, path, packet, &sealed(suite, 0, 5)), None);
            }
        }
    }

    #[test]
    fn every_bit_of_path_and_packet_number_reaches_the_nonce() {
        let key = key(Suite::Aes256Gcm);
        let mut seen = std::collections::BTreeSet::new();
        for bit in 0..32 {
            seen.insert(*key.nonce(PathId::from(1_u32 << bit), 0).as_ref());
        }
        for bit in 0..64 {
            seen.insert(*key.nonce(PathId::ZERO, 1 << bit).as_ref());
        }
        assert_eq!(seen.len(), 96);
    }

    #[test]
    fn path_zero_uses_the_nonce_of_rfc_9001() {
        let nonce = key(Suite::Aes256Gcm).nonce(PathId::ZERO, 0x0102_0304_0506_0708);
        assert_eq!(*nonce.as_ref(), [2, 2, 2, 2, 3, 0, 1, 6, 7, 4, 5, 10]);
    }

    #[test]
    fn flipping_any_bit_of_header_payload_or_tag_makes_the_packet_undecryptable() {
        for suite in SUITES {
            let good = sealed(suite, 3, 9);
            assert_eq!(opened(suite, 3, 9, &good).as_deref(), Some(&b"payload"[..]));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opened(suite, 3, 9, &bad), None, "{suite:?} bit {bit}");
            }
        }
    }

    #[test]
    fn a_payload_shorter_than_its_tag_is_refused_without_a_panic() {
        for suite in SUITES {
            for len in 0..=TAG_BYTES {
                assert_eq!(opened(suite, 0, 0, &vec![0; 4 + len]), None);
            }
        }
    }
}
