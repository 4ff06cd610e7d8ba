//! The key schedule: every key and secret, each from the one before, by HKDF-SHA256 (RFC 5869). NOISE-QUIC.md s4.
//!
//! Noise ends with two keys and a transcript hash; QUIC needs eleven secrets. All of them come from one extraction and
//! one labelled expansion, so that no two purposes can share bytes:
//!
//! ```text
//! Initial:  HKDF-Extract("p2pos noise-quic initial" | version, responder's static key)
//!             "initial i", "initial r" (context: connection id)          "retry"
//! session:  HKDF-Extract(handshake hash, k1 | k2)
//!             "handshake i/r"   "confirm i/r"   "traffic i/r"   "exporter"
//! any packet secret:   "key"  "iv"  "hp"       and its successor at a key update: "update"
//! ```
//!
//! Secrets in our hands are wiped when dropped. The expanded keys inside ring are freed unwiped: ring has no way to.

use noq_proto::{
    Side,
    crypto::{HeaderKey, KeyPair, Keys, PacketKey},
};
use ring::hkdf;
use zeroize::Zeroizing;

use crate::{
    header::NoiseHeaderKey,
    packet::{NoisePacketKey, PacketLimits},
    suite::Suite,
};

/// The length of every secret and key: SHA-256's output, and the key size of both ciphers.
pub(crate) const SECRET_BYTES: usize = 32;

/// A secret that wipes itself.
pub(crate) type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// HKDF-Extract.
pub(crate) fn extract(salt: &[u8], input: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(input)
}

/// HKDF-Expand under a label and a context, both with their lengths in front (the shape of RFC 8446 s7.1).
pub(crate) fn expand<const N: usize>(prk: &hkdf::Prk, label: &str, context: &[u8]) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    expand_into(prk, label, context, output.as_mut_slice())
        .expect("the lengths are constants within HKDF's limit, labels and contexts are under 256 bytes");
    output
}

/// The same into a buffer of the caller's length.
///
/// # Errors
/// [`TooLong`] above 8,160 bytes of output, or 255 of label or context.
pub(crate) fn expand_into(
    prk: &hkdf::Prk,
    label: &str,
    context: &[u8],
    output: &mut [u8],
) -> Result<(), TooLong> {
    let output_len = u16::try_from(output.len()).map_err(|_| TooLong)?.to_be_bytes();
    let label_len = [u8::try_from(label.len()).map_err(|_| TooLong)?];
    let context_len = [u8::try_from(context.len()).map_err(|_| TooLong)?];
    let info: [&[u8]; 5] = [&output_len, &label_len, label.as_bytes(), &context_len, context];
    let okm = prk.expand(&info, OutputLength(output.len())).map_err(|_| TooLong)?;
    okm.fill(output).map_err(|_| TooLong)
}

/// More output was asked for than HKDF gives, or a label that has no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

/// One secret for each direction, named after who sends under it.
pub(crate) struct Directions {
    pub(crate) initiator: Secret,
    pub(crate) responder: Secret,
}

impl Directions {
    /// Returns the secret that `side` sends under, then the one that its peer sends under.
    fn seen_from(&self, side: Side) -> (&Secret, &Secret) {
        match side {
            Side::Client => (&self.initiator, &self.responder),
            Side::Server => (&self.responder, &self.initiator),
        }
    }

    /// Returns the packet and header keys of both directions.
    pub(crate) fn keys(&self, suite: Suite, side: Side, limits: PacketLimits) -> Keys {
        let (local, remote) = self.seen_from(side);
        Keys {
            header: KeyPair { local: header_key(suite, local), remote: header_key(suite, remote) },
            packet: self.packet_keys(suite, side, limits),
        }
    }

    /// Returns the packet keys of both directions; after a key update the header keys stay (RFC 9001 s6).
    pub(crate) fn packet_keys(
        &self,
        suite: Suite,
        side: Side,
        limits: PacketLimits,
    ) -> KeyPair<Box<dyn PacketKey>> {
        let (local, remote) = self.seen_from(side);
        KeyPair { local: packet_key(suite, local, limits), remote: packet_key(suite, remote, limits) }
    }

    /// Replaces both secrets by their successors. There is no way back: the old ones are wiped.
    pub(crate) fn update(&mut self) {
        self.initiator = expand(&prk_of(&self.initiator), "update", b"");
        self.responder = expand(&prk_of(&self.responder), "update", b"");
    }
}

/// What a finished Noise handshake leaves behind, before any of it has been handed out.
pub(crate) struct SessionSecrets {
    /// Packet secrets of the Handshake space.
    pub(crate) handshake: Directions,
    /// The bytes by which each side shows that it holds the same keys.
    pub(crate) confirm: Directions,
    /// Packet secrets of the 1-RTT space, first key phase.
    pub(crate) traffic: Directions,
    /// Where exported keying material comes from.
    pub(crate) exporter: Secret,
}

impl SessionSecrets {
    /// Derives everything from Noise's raw split and its transcript hash.
    pub(crate) fn derive(split: &Zeroizing<[u8; 2 * SECRET_BYTES]>, transcript: &[u8]) -> Self {
        let prk = extract(transcript, split.as_slice());
        let both = |initiator: &str, responder: &str| Directions {
            initiator: expand(&prk, initiator, b""),
            responder: expand(&prk, responder, b""),
        };
        Self {
            handshake: both("handshake i", "handshake r"),
            confirm: both("confirm i", "confirm r"),
            traffic: both("traffic i", "traffic r"),
            exporter: expand(&prk, "exporter", b""),
        }
    }
}

/// Derives keying material for another protocol. Label and context are hashed in whole, whatever their length.
///
/// # Errors
/// [`TooLong`] above 8,160 bytes.
pub(crate) fn export(
    exporter: &Secret,
    label: &[u8],
    context: &[u8],
    output: &mut [u8],
) -> Result<(), TooLong> {
    let label_len = u32::try_from(label.len()).map_err(|_| TooLong)?.to_be_bytes();
    let material = [&label_len, label, context].concat();
    expand_into(&extract(exporter.as_slice(), &material), "export", b"", output)
}

/// Takes a derived secret as the start of further expansions.
pub(crate) fn prk_of(secret: &Secret) -> hkdf::Prk {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret.as_slice())
}

fn packet_key(suite: Suite, secret: &Secret, limits: PacketLimits) -> Box<dyn PacketKey> {
    let prk = prk_of(secret);
    Box::new(NoisePacketKey::new(suite, &expand(&prk, "key", b""), *expand(&prk, "iv", b""), limits))
}

fn header_key(suite: Suite, secret: &Secret) -> Box<dyn HeaderKey> {
    Box::new(NoiseHeaderKey::new(suite, &expand(&prk_of(secret), "hp", b"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_labels_give_the_same_secret() {
        let secrets = SessionSecrets::derive(&Zeroizing::new([7; 64]), &[9; 32]);
        let all = [
            &secrets.handshake.initiator,
            &secrets.handshake.responder,
            &secrets.confirm.initiator,
            &secrets.confirm.responder,
            &secrets.traffic.initiator,
            &secrets.traffic.responder,
            &secrets.exporter,
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| one != other));
        }
    }

    #[test]
    fn a_label_and_a_context_cannot_trade_bytes() {
        let prk = extract(b"salt", b"input");
        assert_ne!(expand::<32>(&prk, "ab", b"c"), expand::<32>(&prk, "a", b"bc"));
        let (mut one, mut other) = ([0; 32], [0; 32]);
        export(&Zeroizing::new([1; 32]), b"ab", b"c", &mut one).unwrap();
        export(&Zeroizing::new([1; 32]), b"a", b"bc", &mut other).unwrap();
        assert_ne!(one, other);
    }

    #[test]
    fn an_export_is_given_up_to_hkdfs_limit_and_refused_above_it() {
        let exporter = Zeroizing::new([1; 32]);
        assert_eq!(export(&exporter, b"label", b"", &mut [0; 8160]), Ok(()));
        assert_eq!(export(&exporter, b"label", b"", &mut [0; 8161]), Err(TooLong));
        assert_eq!(export(&exporter, b"label", b"", &mut vec![0; 70_000]), Err(TooLong));
    }
}
