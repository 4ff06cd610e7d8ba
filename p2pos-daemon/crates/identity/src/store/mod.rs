//! What the daemon keeps on disk about identities: its own key, and the contacts. Feature `store`, unix only.
//!
//! | module | what it is |
//! |---|---|
//! | `private_file` | files that only their owner can read, made whole or not at all |
//! | `key_file` | the key, made on the first run |
//! | `words` | the key as 24 words on paper, and a PeerId as four words to compare |
//! | `petname` | what a name may look like |
//! | `contacts` | the address book |
//!
//! The only part of this crate that touches a disk or the system's randomness. It still reads no clock and no
//! environment: paths and times come in as arguments. All calls block for as long as the disk takes (an fsync per
//! change), and may be made from any thread. Refuses to know: where the data directory is, and who asks.

mod contacts;
mod key_file;
mod petname;
mod private_file;
mod words;

pub use self::{
    contacts::{
        ADDRESS_BYTES_MAX, ADDRESSES_MAX, CONTACTS_MAX, Contact, Contacts, ContactsError, RelayChoice, Trust,
        UnknownRelayChoice, UnknownTrust,
    },
    key_file::{KEY_FILE_NAME, KeyFile, KeyFileError, KeyOrigin},
    petname::{PETNAME_CHARS_MAX, PetnameError, check_petname},
    private_file::PrivateFileError,
    words::{BACKUP_WORDS, FINGERPRINT_WORDS, WordsError},
};
