//! Who is who: [`PeerId`], [`SecretKey`], [`ProtocolName`], and text from strangers made harmless ([`Untrusted`]).
//!
//! Floor 0. The default build is pure (no disk, clock, randomness, environment), so that plugin authors pay for
//! nothing else. Feature `store` adds what the daemon needs: the key file, the 24 backup words, and contacts that
//! survive a power cut; feature `files` is the small part of it that replaces a file whole.
//!
//! Refuses to know: addresses as anything but text the user typed, sockets, plugins, the network.
//! Follows DESIGN sections 2 and 6, RFC 8032 (Ed25519), RFC 7748 (X25519), RFC 5869 (HKDF), BIP 350 (bech32m), BIP 39.

mod peer_id;
mod peer_id_text;
mod protocol_name;
mod secret_key;
#[cfg(feature = "store")]
mod store;
mod untrusted;
#[cfg(feature = "files")]
mod whole_file;

pub use crate::{
    peer_id::{BadSignature, PeerId, WeakKey},
    peer_id_text::{PEER_ID_TEXT_CHARS, ParsePeerIdError},
    protocol_name::{PROTOCOL_NAME_BYTES_MAX, ProtocolName, ProtocolNameError},
    secret_key::SecretKey,
    untrusted::Untrusted,
};

#[cfg(feature = "files")]
pub use crate::whole_file::replace_file;

#[cfg(feature = "store")]
pub use crate::store::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, BACKUP_WORDS, CONTACTS_MAX, Contact, Contacts, ContactsError,
    FINGERPRINT_WORDS, KEY_FILE_NAME, KeyFile, KeyFileError, KeyOrigin, PETNAME_CHARS_MAX, PetnameError,
    PrivateFileError, RelayChoice, Trust, UnknownRelayChoice, UnknownTrust, WordsError, check_petname,
};
