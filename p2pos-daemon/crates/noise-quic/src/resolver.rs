//! The primitives under snow: X25519 that refuses an all-zero result, and where ephemeral keys come from.
//!
//! snow's own X25519 accepts every public key, also the few with which the shared secret is zero for everybody
//! (RFC 7748 s6.1 says to check, the Noise spec s12.1 leaves it open). Ours fails the handshake instead, and wipes its
//! secrets. Hash and cipher are snow's defaults (BLAKE2s and ChaCha20-Poly1305 of RustCrypto): the messages are few.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::local::{KEY_BYTES, LocalKeys};

/// Where a handshake takes its ephemeral key from.
#[derive(Clone, Default)]
pub(crate) enum Entropy {
    /// The operating system.
    #[default]
    System,
    /// The same bytes each time: for vectors, and in tests only, since two handshakes must never share a key.
    #[cfg(test)]
    Fixed([u8; KEY_BYTES]),
}

impl Random for Entropy {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::System => SystemRandom::new().fill(dest).map_err(|_| Error::Rng),
            #[cfg(test)]
            Self::Fixed(bytes) => {
                dest.copy_from_slice(&bytes[..dest.len()]);
                Ok(())
            }
        }
    }
}

/// Hands snow its primitives.
pub(crate) struct Resolver {
    entropy: Entropy,
    local: Option<Arc<LocalKeys>>,
}

impl Resolver {
    pub(crate) fn new(entropy: Entropy) -> Self {
        Self { entropy, local: None }
    }

    /// Spares what is known already of our own key and of the people we know.
    pub(crate) fn with_keys_of(self, local: Arc<LocalKeys>) -> Self {
        Self { local: Some(local), ..self }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.entropy.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::unset(self.local.clone()))),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// One X25519 key pair (RFC 7748). The secret is wiped when dropped.
struct X25519 {
    secret: StaticSecret,
    public: [u8; KEY_BYTES],
    /// What may be known of the pair before it is set; afterwards there only if it is our long-term one.
    local: Option<Arc<LocalKeys>>,
}

impl X25519 {
    /// Returns a key pair that snow will set or generate before use.
    fn unset(local: Option<Arc<LocalKeys>>) -> Self {
        Self { secret: StaticSecret::from([0; KEY_BYTES]), public: [0; KEY_BYTES], local }
    }

    fn become_pair_of(&mut self, secret: &[u8; KEY_BYTES]) {
        self.secret = StaticSecret::from(*secret);
        self.local = None;
        self.public = PublicKey::from(&self.secret).to_bytes();
    }

    fn shared_with(&self, public: &[u8; KEY_BYTES]) -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
        if let Some(known) = self.local.as_ref().and_then(|local| local.shared_with(public)) {
            return Ok(known);
        }
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        if shared.was_contributory() { Ok(Zeroizing::new(shared.to_bytes())) } else { Err(Error::Dh) }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, privkey: &[u8]) {
        let secret = privkey.try_into().expect("our handshakes give 32-byte keys only");
        match self.local.as_ref().and_then(|local| local.public_of(secret)) {
            Some(public) => (self.secret, self.public) = (StaticSecret::from(*secret), public),
            None => self.become_pair_of(secret),
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        rng.try_fill_bytes(secret.as_mut_slice())?;
        self.become_pair_of(&secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // snow pads public keys to the longest curve it knows.
        let public: &[u8; KEY_BYTES] = pubkey.first_chunk().ok_or(Error::Dh)?;
        let shared = self.shared_with(public)?;
        out.first_chunk_mut().ok_or(Error::Dh).map(|out| *out = *shared)
    }
}
