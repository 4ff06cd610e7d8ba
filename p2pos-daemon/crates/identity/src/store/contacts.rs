//! The address book: who this user knows, by which name, and how sure of it. One redb file that a kill at any moment
//! leaves whole.
//!
//! Every change is one transaction that is on disk when the call returns, and a change that did not return is there
//! wholly or not at all. Two tables hold the people and their names; a name is stored folded (`Bo` and `bo` are one),
//! and both tables change together. A third holds what may go through relays, and books from before it lack it. A fourth
//! holds the schema's number, so that a file of tomorrow is not misread today.
//!
//! Names never identify: the PeerId does, and the petname is this user's own word for it (DESIGN section 8). Refuses to
//! know: whether an address works, who is online, what a trust state permits, what time it is.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::{
    petname::{PetnameError, check_petname, folded},
    private_file::{self, PrivateFileError, quoted},
};
use crate::{PeerId, Untrusted};

/// Contacts in one book. A person has hundreds; the limit keeps a runaway script from filling the disk and the memory
/// of every listing (about 3 MB at most).
pub const CONTACTS_MAX: usize = 10_000;

/// Addresses of one contact: some networks at home, some at work. Each is tried when dialling, so more would be noise.
pub const ADDRESSES_MAX: usize = 16;

/// The longest address text, in bytes: a host name has at most 253, a port 5, with a colon between; and `relay:`, a
/// PeerId of 64 with an `@`, and a slash before 32 digits around it.
pub const ADDRESS_BYTES_MAX: usize = 259 + 6 + 65 + 33;

/// Memory for cached pages. The whole book of most people fits; redb's own default of 1 GiB does not fit an idle
/// daemon of 12 MiB.
const CACHE_BYTES: usize = 512 * 1024;

/// Lookups that are remembered: each stream asks who its peer is, and opening a table costs ten times what finding a row in
/// memory does. As many as peers may be connected; a stranger takes a place, too, and when all are taken all are forgotten.
const REMEMBERED_MAX: usize = 1_024;

/// The layout of the tables below. It goes up when they change in a way that older code would misread.
const SCHEMA: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_SCHEMA: &str = "schema";
/// PeerId to trust, time of adding in Unix seconds, petname, addresses.
const PEOPLE: TableDefinition<'_, &[u8; 32], Row<'_>> = TableDefinition::new("people");
/// Folded petname to PeerId.
const NAMES: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("names");

/// PeerId to what may go through relays, for whom it is not [`RelayChoice::Auto`].
const RELAY: TableDefinition<'_, &[u8; 32], u8> = TableDefinition::new("relay");

type Row<'a> = (u8, u64, &'a str, Vec<&'a str>);

/// A person in the address book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who it is.
    pub peer: PeerId,
    /// This user's name for them; see [`check_petname`].
    pub petname: String,
    /// How sure the user is that the key is theirs.
    pub trust: Trust,
    /// Addresses as the user gave them, `HOST:PORT` or through a relay; only tried, never believed.
    pub addresses: Vec<String>,
    /// Whether packets to and from them may go through somebody else's machine.
    pub relay: RelayChoice,
    /// When they were added, in seconds since 1970.
    pub added_unix_s: u64,
}

/// How sure this user is that a PeerId belongs to the person they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Trust {
    /// Added, and compared with nothing.
    #[default]
    New,
    /// Compared in person, or paired by code.
    Verified,
    /// Vouched for by a contact.
    Introduced,
    /// Says to have a new key; to be compared again.
    Changed,
}

/// Whether packets to and from a person may go through somebody else's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RelayChoice {
    /// Where there is no direct way.
    #[default]
    Auto,
    /// In no case: rather no connection.
    Never,
}

/// A text that is none of the two choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("relays are one of: auto, never")]
pub struct UnknownRelayChoice;

/// A text that is none of the four trust states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a trust state is one of: new, verified, introduced, changed")]
pub struct UnknownTrust;

/// Why the address book did not do what was asked. Each text ends with what to do, where the user can do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContactsError {
    /// The name breaks the rules.
    #[error(transparent)]
    Petname(#[from] PetnameError),
    /// Somebody else has the name.
    #[error("the name \"{}\" belongs to {} already; choose another one, or rename them first", Untrusted(petname), peer.short())]
    PetnameTaken {
        /// The name.
        petname: String,
        /// Who has it.
        peer: PeerId,
    },
    /// The person is in the book.
    #[error("{} is a contact already, named \"{}\"; rename them instead", peer.short(), Untrusted(petname))]
    AlreadyContact {
        /// Who.
        peer: PeerId,
        /// Their name.
        petname: String,
    },
    /// The person is not in the book.
    #[error("{} is not a contact; see: p2pos contacts list", peer.short())]
    NotAContact {
        /// Who.
        peer: PeerId,
    },
    /// More than [`CONTACTS_MAX`] people.
    #[error("there are {CONTACTS_MAX} contacts, which is the limit; remove one first")]
    Full,
    /// More than [`ADDRESSES_MAX`] addresses.
    #[error("{found} addresses are given, the limit is {ADDRESSES_MAX}; leave some out")]
    TooManyAddresses {
        /// How many.
        found: usize,
    },
    /// An address that cannot be one: empty, too long, or with characters that cannot be shown.
    #[error("\"{}\" is not an address; write it as HOST:PORT", Untrusted(address))]
    Address {
        /// What was given, cut to [`ADDRESS_BYTES_MAX`] characters.
        address: String,
    },
    /// Another process has the file open.
    #[error("the contacts are in use by another p2pOS; is the daemon running? see: p2pos status")]
    InUse,
    /// A newer version wrote the file.
    #[error(
        "the contacts were written by a newer p2pOS (schema {found}, this one knows {SCHEMA}); update this one"
    )]
    Newer {
        /// The number in the file.
        found: u64,
    },
    /// The file is not what we wrote.
    #[error(
        "the contacts file is damaged ({what}); move it away and add your contacts again: mv {path} {path}.damaged"
    )]
    Damaged {
        /// The file, quoted for a shell.
        path: String,
        /// What was found.
        what: String,
    },
    /// The file cannot be opened, or must not be trusted.
    #[error("contacts: {0}")]
    File(#[from] PrivateFileError),
    /// The disk failed during an operation.
    #[error(
        "the contacts could not be read or written: {0}; check the free space and the disk, then start p2pOS again"
    )]
    Storage(#[source] Box<redb::Error>),
}

/// The address book on disk. One process at a time has it open; threads share it by reference.
#[derive(Debug)]
pub struct Contacts {
    database: Database,
    path: PathBuf,
    /// What [`Contacts::get`] found since the last change. Held while looking, so that nothing old is put in after a change.
    remembered: Mutex<BTreeMap<PeerId, Option<Contact>>>,
}

impl Contacts {
    /// Opens the book, or makes an empty one for its owner's eyes only. After a kill, opening heals the file.
    ///
    /// # Errors
    /// [`ContactsError`]: in use, newer, damaged, readable by others, or refused by the disk.
    pub fn open(path: &Path) -> Result<Self, ContactsError> {
        let file = match private_file::open(path, true)? {
            Some(file) => file,
            None => {
                private_file::create_folder(private_file::folder_of(path))?;
                private_file::create(path, |file| create_tables(file, path))?;
                private_file::open(path, true)?.ok_or_else(|| damaged(path, "it vanished"))?
            }
        };
        let database = open_database(file, path)?;
        let read = database.begin_read().map_err(storage)?;
        let meta = read.open_table(META).map_err(|_| damaged(path, "it has no schema"))?;
        match meta.get(META_SCHEMA).map_err(storage)?.map(|schema| schema.value()) {
            Some(SCHEMA) => Ok(Self { database, path: path.to_owned(), remembered: Mutex::default() }),
            Some(found) if found > SCHEMA => Err(ContactsError::Newer { found }),
            Some(_) | None => Err(damaged(path, "it has no schema")),
        }
    }

    /// Adds a person. On disk when this returns.
    ///
    /// # Errors
    /// [`ContactsError`], in particular a name or a person that is there already.
    pub fn add(&self, contact: &Contact) -> Result<(), ContactsError> {
        check_petname(&contact.petname)?;
        check_addresses(&contact.addresses)?;
        self.change(|write| {
            let mut people = write.open_table(PEOPLE).map_err(storage)?;
            if let Some(there) = people.get(contact.peer.as_bytes()).map_err(storage)? {
                let petname = there.value().2.to_owned();
                return Err(ContactsError::AlreadyContact { peer: contact.peer, petname });
            }
            if people.len().map_err(storage)? >= CONTACTS_MAX as u64 {
                return Err(ContactsError::Full);
            }
            self.claim_name(write, &contact.petname, &contact.peer)?;
            people.insert(contact.peer.as_bytes(), row_of(contact)).map_err(storage)?;
            write_choice(write, contact)
        })
    }

    /// Looks a person up.
    ///
    /// # Errors
    /// [`ContactsError::Storage`].
    pub fn get(&self, peer: &PeerId) -> Result<Option<Contact>, ContactsError> {
        let mut remembered = self.remembered();
        if let Some(contact) = remembered.get(peer) {
            return Ok(contact.clone());
        }
        let read = self.database.begin_read().map_err(storage)?;
        let people = read.open_table(PEOPLE).map_err(storage)?;
        let row = people.get(peer.as_bytes()).map_err(storage)?;
        let contact = match row {
            Some(row) => Some(contact_of(*peer, row.value(), read_choice(&read, peer)?)),
            None => None,
        };
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(*peer, contact.clone());
        Ok(contact)
    }

    /// Looks a person up by name, in capital or small letters.
    ///
    /// # Errors
    /// [`ContactsError::Storage`].
    pub fn by_petname(&self, petname: &str) -> Result<Option<Contact>, ContactsError> {
        let read = self.database.begin_read().map_err(storage)?;
        let names = read.open_table(NAMES).map_err(storage)?;
        let Some(peer) = names.get(&*folded(petname)).map_err(storage)? else {
            return Ok(None);
        };
        let peer = self.person(peer.value())?;
        let people = read.open_table(PEOPLE).map_err(storage)?;
        let Some(row) = people.get(peer.as_bytes()).map_err(storage)? else { return Ok(None) };
        Ok(Some(contact_of(peer, row.value(), read_choice(&read, &peer)?)))
    }

    /// Returns everybody, ordered by name.
    ///
    /// # Errors
    /// [`ContactsError::Storage`].
    pub fn list(&self) -> Result<Vec<Contact>, ContactsError> {
        let read = self.database.begin_read().map_err(storage)?;
        let people = read.open_table(PEOPLE).map_err(storage)?;
        let mut contacts = Vec::new();
        for entry in people.iter().map_err(storage)? {
            let (peer, row) = entry.map_err(storage)?;
            let peer = self.person(peer.value())?;
            contacts.push(contact_of(peer, row.value(), read_choice(&read, &peer)?));
        }
        contacts.sort_by_cached_key(|contact| folded(&contact.petname));
        Ok(contacts)
    }

    /// Gives a person another name, and returns them as they are now.
    ///
    /// # Errors
    /// [`ContactsError`], in particular a name that somebody else has.
    pub fn rename(&self, peer: &PeerId, petname: &str) -> Result<Contact, ContactsError> {
        check_petname(petname)?;
        self.update(peer, |write, contact| {
            let old = folded(&contact.petname);
            write.open_table(NAMES).map_err(storage)?.remove(&*old).map_err(storage)?;
            self.claim_name(write, petname, peer)?;
            contact.petname = petname.to_owned();
            Ok(())
        })
    }

    /// Changes how sure the user is of a person, and returns them as they are now.
    ///
    /// # Errors
    /// [`ContactsError::NotAContact`], or the disk.
    pub fn set_trust(&self, peer: &PeerId, trust: Trust) -> Result<Contact, ContactsError> {
        self.update(peer, |_, contact| {
            contact.trust = trust;
            Ok(())
        })
    }

    /// Replaces the addresses of a person, and returns them as they are now.
    ///
    /// # Errors
    /// [`ContactsError`], in particular addresses that cannot be any.
    pub fn set_addresses(&self, peer: &PeerId, addresses: Vec<String>) -> Result<Contact, ContactsError> {
        check_addresses(&addresses)?;
        self.update(peer, |_, contact| {
            contact.addresses = addresses;
            Ok(())
        })
    }

    /// Changes what may go through relays, and returns the person as they are now.
    ///
    /// # Errors
    /// [`ContactsError::NotAContact`], or the disk.
    pub fn set_relay(&self, peer: &PeerId, relay: RelayChoice) -> Result<Contact, ContactsError> {
        self.update(peer, |write, contact| {
            contact.relay = relay;
            write_choice(write, contact)
        })
    }

    /// Removes a person, and returns who that was; `None` if they were no contact.
    ///
    /// # Errors
    /// [`ContactsError::Storage`].
    pub fn remove(&self, peer: &PeerId) -> Result<Option<Contact>, ContactsError> {
        self.change(|write| {
            let mut people = write.open_table(PEOPLE).map_err(storage)?;
            let removed = people.remove(peer.as_bytes()).map_err(storage)?;
            let mut relays = write.open_table(RELAY).map_err(storage)?;
            let choice = relays.remove(peer.as_bytes()).map_err(storage)?;
            let choice = RelayChoice::from_number(choice.map(|choice| choice.value()));
            let Some(contact) = removed.map(|row| contact_of(*peer, row.value(), choice)) else {
                return Ok(None);
            };
            let name = folded(&contact.petname);
            write.open_table(NAMES).map_err(storage)?.remove(&*name).map_err(storage)?;
            Ok(Some(contact))
        })
    }

    /// Runs one transaction: all of it is on disk afterwards, or nothing.
    fn change<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, ContactsError>,
    ) -> Result<T, ContactsError> {
        let write = self.database.begin_write().map_err(storage)?;
        let result = work(&write)?;
        let committed = write.commit().map_err(storage);
        // Also after a failure: what is on disk then is for the next look to say.
        self.remembered().clear();
        committed.map(|()| result)
    }

    fn remembered(&self) -> MutexGuard<'_, BTreeMap<PeerId, Option<Contact>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(
        &self,
        peer: &PeerId,
        work: impl FnOnce(&WriteTransaction, &mut Contact) -> Result<(), ContactsError>,
    ) -> Result<Contact, ContactsError> {
        self.change(|write| {
            let mut people = write.open_table(PEOPLE).map_err(storage)?;
            let choice = {
                let relays = write.open_table(RELAY).map_err(storage)?;
                let choice = relays.get(peer.as_bytes()).map_err(storage)?;
                RelayChoice::from_number(choice.map(|choice| choice.value()))
            };
            let found = people.get(peer.as_bytes()).map_err(storage)?;
            let found = found.map(|row| contact_of(*peer, row.value(), choice));
            let mut contact = found.ok_or(ContactsError::NotAContact { peer: *peer })?;
            work(write, &mut contact)?;
            people.insert(peer.as_bytes(), row_of(&contact)).map_err(storage)?;
            Ok(contact)
        })
    }

    /// Gives a name to a person inside a transaction, unless another person has it.
    fn claim_name(
        &self,
        write: &WriteTransaction,
        petname: &str,
        peer: &PeerId,
    ) -> Result<(), ContactsError> {
        let mut names = write.open_table(NAMES).map_err(storage)?;
        let owner = names.get(&*folded(petname)).map_err(storage)?.map(|owner| self.person(owner.value()));
        if let Some(owner) = owner {
            return Err(ContactsError::PetnameTaken { petname: petname.to_owned(), peer: owner? });
        }
        names.insert(&*folded(petname), peer.as_bytes()).map_err(storage)?;
        Ok(())
    }

    fn person(&self, stored: &[u8; 32]) -> Result<PeerId, ContactsError> {
        PeerId::from_own_record(*stored).ok_or_else(|| damaged(&self.path, "it holds a key that is none"))
    }
}

impl Trust {
    /// All states, in the order of their numbers on disk.
    const ALL: [Self; 4] = [Self::New, Self::Verified, Self::Introduced, Self::Changed];

    /// Returns the state's word, as commands and JSON show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Verified => "verified",
            Self::Introduced => "introduced",
            Self::Changed => "changed",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::New => 0,
            Self::Verified => 1,
            Self::Introduced => 2,
            Self::Changed => 3,
        }
    }

    /// A number that we never wrote reads as [`Trust::New`]: the state that claims nothing.
    fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }
}

impl RelayChoice {
    const ALL: [Self; 2] = [Self::Auto, Self::Never];

    /// Returns the choice's word, as commands and JSON show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }

    /// The number on disk; no row is [`Self::Auto`].
    fn number(self) -> Option<u8> {
        match self {
            Self::Auto => None,
            Self::Never => Some(1),
        }
    }

    /// A number that we never wrote reads as [`Self::Never`]: the choice that gives nothing away.
    fn from_number(number: Option<u8>) -> Self {
        if number.is_none() { Self::Auto } else { Self::Never }
    }
}

impl fmt::Display for RelayChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RelayChoice {
    type Err = UnknownRelayChoice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|choice| choice.as_str() == text).ok_or(UnknownRelayChoice)
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Trust {
    type Err = UnknownTrust;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|trust| trust.as_str() == text).ok_or(UnknownTrust)
    }
}

/// Makes the tables in a file that nobody else knows yet.
fn create_tables(file: std::fs::File, path: &Path) -> Result<(), ContactsError> {
    let database = open_database(file, path)?;
    let write = database.begin_write().map_err(storage)?;
    write.open_table(META).map_err(storage)?.insert(META_SCHEMA, SCHEMA).map_err(storage)?;
    write.open_table(PEOPLE).map_err(storage)?;
    write.open_table(NAMES).map_err(storage)?;
    write.commit().map_err(storage)
}

fn open_database(file: std::fs::File, path: &Path) -> Result<Database, ContactsError> {
    match Database::builder().set_cache_size(CACHE_BYTES).create_file(file) {
        Ok(database) => Ok(database),
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(ContactsError::InUse),
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(error)))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            Err(private_file::failed("open", path, error).into())
        }
        Err(error) => Err(damaged(path, &error.to_string())),
    }
}

fn check_addresses(addresses: &[String]) -> Result<(), ContactsError> {
    if addresses.len() > ADDRESSES_MAX {
        return Err(ContactsError::TooManyAddresses { found: addresses.len() });
    }
    let is_bad = |text: &&String| {
        text.is_empty() || text.len() > ADDRESS_BYTES_MAX || !text.chars().all(|c| c.is_ascii_graphic())
    };
    match addresses.iter().find(is_bad) {
        Some(bad) => Err(ContactsError::Address { address: bad.chars().take(ADDRESS_BYTES_MAX).collect() }),
        None => Ok(()),
    }
}

fn row_of(contact: &Contact) -> Row<'_> {
    let addresses = contact.addresses.iter().map(String::as_str).collect();
    (contact.trust.number(), contact.added_unix_s, &contact.petname, addresses)
}

/// A book in which nobody ever chose has no such table.
fn read_choice(read: &ReadTransaction, peer: &PeerId) -> Result<RelayChoice, ContactsError> {
    let relays = match read.open_table(RELAY) {
        Ok(relays) => relays,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(RelayChoice::Auto),
        Err(error) => return Err(storage(error)),
    };
    let choice = relays.get(peer.as_bytes()).map_err(storage)?;
    Ok(RelayChoice::from_number(choice.map(|choice| choice.value())))
}

fn write_choice(write: &WriteTransaction, contact: &Contact) -> Result<(), ContactsError> {
    let mut relays = write.open_table(RELAY).map_err(storage)?;
    match contact.relay.number() {
        Some(number) => relays.insert(contact.peer.as_bytes(), number).map(drop),
        None => relays.remove(contact.peer.as_bytes()).map(drop),
    }
    .map_err(storage)
}

fn contact_of(
    peer: PeerId,
    (trust, added_unix_s, petname, addresses): Row<'_>,
    relay: RelayChoice,
) -> Contact {
    Contact {
        peer,
        petname: petname.to_owned(),
        trust: Trust::from_number(trust),
        addresses: addresses.into_iter().map(str::to_owned).collect(),
        relay,
        added_unix_s,
    }
}

fn storage(error: impl Into<redb::Error>) -> ContactsError {
    ContactsError::Storage(Box::new(error.into()))
}

fn damaged(path: &Path, what: &str) -> ContactsError {
    ContactsError::Damaged { path: quoted(path), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;
    use crate::SecretKey;

    #[test]
    fn a_contact_is_found_by_key_and_by_name_and_after_reopening() {
        let book = Book::new();
        let bo = contact(1, "Bo");
        book.contacts().add(&bo).unwrap();
        let contacts = book.contacts();
        assert_eq!(contacts.get(&bo.peer).unwrap(), Some(bo.clone()));
        assert_eq!(contacts.by_petname("bO").unwrap(), Some(bo.clone()));
        assert_eq!(contacts.list().unwrap(), [bo]);
        assert_eq!(contacts.by_petname("mira").unwrap(), None);
        assert_eq!(contacts.get(&contact(2, "mira").peer).unwrap(), None);
    }

    #[test]
    fn what_was_looked_up_is_forgotten_with_every_change() {
        let book = Book::new();
        let contacts = book.contacts();
        let bo = contact(1, "Bo");
        let look = || contacts.get(&bo.peer).unwrap().map(|contact| (contact.petname, contact.trust));
        assert_eq!(look(), None);
        contacts.add(&bo).unwrap();
        assert_eq!(look(), Some(("Bo".to_owned(), bo.trust)));
        contacts.rename(&bo.peer, "Bob").unwrap();
        assert_eq!(look(), Some(("Bob".to_owned(), bo.trust)));
        contacts.set_trust(&bo.peer, Trust::Changed).unwrap();
        assert_eq!(look(), Some(("Bob".to_owned(), Trust::Changed)));
        contacts.remove(&bo.peer).unwrap();
        assert_eq!(look(), None);
        for seed in 0..=u16::try_from(REMEMBERED_MAX).unwrap() {
            let mut bytes = [7; 32];
            bytes[..2].copy_from_slice(&seed.to_be_bytes());
            assert_eq!(contacts.get(&SecretKey::from_seed(bytes).peer_id()).unwrap(), None);
        }
        assert!(contacts.remembered().len() <= REMEMBERED_MAX);
    }

    #[test]
    fn a_name_belongs_to_one_person_in_capital_and_small_letters() {
        let book = Book::new();
        let contacts = book.contacts();
        let (bo, other) = (contact(1, "Bo"), contact(2, "bO"));
        contacts.add(&bo).unwrap();
        let error = contacts.add(&other).unwrap_err();
        assert!(matches!(error, ContactsError::PetnameTaken { peer, .. } if peer == bo.peer), "{error}");
        let error = contacts.add(&contact(1, "someone")).unwrap_err();
        assert!(
            matches!(error, ContactsError::AlreadyContact { ref petname, .. } if petname == "Bo"),
            "{error}"
        );
        assert_eq!(contacts.list().unwrap(), [bo], "a refused change left something behind");
    }

    #[test]
    fn renaming_frees_the_old_name_and_may_change_only_its_case() {
        let book = Book::new();
        let contacts = book.contacts();
        let (bo, mira) = (contact(1, "bo"), contact(2, "mira"));
        contacts.add(&bo).unwrap();
        contacts.add(&mira).unwrap();
        assert_eq!(contacts.rename(&bo.peer, "BO").unwrap().petname, "BO");
        assert!(matches!(contacts.rename(&bo.peer, "Mira"), Err(ContactsError::PetnameTaken { .. })));
        assert_eq!(
            contacts.by_petname("bo").unwrap().unwrap().petname,
            "BO",
            "a refused renaming changed something"
        );
        contacts.rename(&bo.peer, "bob").unwrap();
        contacts.rename(&mira.peer, "bo").unwrap();
        assert_eq!(contacts.by_petname("bo").unwrap().unwrap().peer, mira.peer);
        assert!(matches!(
            contacts.rename(&contact(3, "x").peer, "y"),
            Err(ContactsError::NotAContact { .. })
        ));
    }

    #[test]
    fn removing_frees_person_and_name() {
        let book = Book::new();
        let contacts = book.contacts();
        let bo = contact(1, "bo");
        contacts.add(&bo).unwrap();
        assert_eq!(contacts.remove(&bo.peer).unwrap(), Some(bo.clone()));
        assert_eq!(contacts.remove(&bo.peer).unwrap(), None);
        contacts.add(&contact(2, "bo")).unwrap();
    }

    #[test]
    fn trust_and_addresses_change_and_are_checked() {
        let book = Book::new();
        let contacts = book.contacts();
        let bo = contact(1, "bo");
        contacts.add(&bo).unwrap();
        assert_eq!(contacts.set_trust(&bo.peer, Trust::Verified).unwrap().trust, Trust::Verified);
        let addresses = vec!["example.org:4000".to_owned(); ADDRESSES_MAX];
        assert_eq!(contacts.set_addresses(&bo.peer, addresses.clone()).unwrap().addresses, addresses);
        let found = ADDRESSES_MAX + 1;
        let too_many = contacts.set_addresses(&bo.peer, vec!["a:1".to_owned(); found]);
        assert!(matches!(too_many, Err(ContactsError::TooManyAddresses { found: said }) if said == found));
        for bad in ["", "a b:1", "\u{1b}[2J:1", &"a".repeat(ADDRESS_BYTES_MAX + 1)] {
            let error = contacts.set_addresses(&bo.peer, vec![bad.to_owned()]).unwrap_err();
            assert!(matches!(error, ContactsError::Address { .. }));
            assert!(!error.to_string().contains('\u{1b}'));
        }
        assert_eq!(contacts.get(&bo.peer).unwrap().unwrap().addresses, addresses);
    }

    #[test]
    fn what_may_go_through_relays_is_kept_and_forgotten_with_the_person() {
        let book = Book::new();
        let bo = Contact { relay: RelayChoice::Never, ..contact(1, "bo") };
        book.contacts().add(&bo).unwrap();
        let contacts = book.contacts();
        assert_eq!(contacts.get(&bo.peer).unwrap().unwrap().relay, RelayChoice::Never);
        assert_eq!(contacts.rename(&bo.peer, "bob").unwrap().relay, RelayChoice::Never);
        assert_eq!(contacts.list().unwrap()[0].relay, RelayChoice::Never);
        assert_eq!(contacts.by_petname("bob").unwrap().unwrap().relay, RelayChoice::Never);
        assert_eq!(contacts.set_relay(&bo.peer, RelayChoice::Auto).unwrap().relay, RelayChoice::Auto);
        assert_eq!(contacts.get(&bo.peer).unwrap().unwrap().relay, RelayChoice::Auto);
        contacts.set_relay(&bo.peer, RelayChoice::Never).unwrap();
        assert_eq!(contacts.remove(&bo.peer).unwrap().unwrap().relay, RelayChoice::Never);
        contacts.add(&contact(1, "bo")).unwrap();
        assert_eq!(contacts.get(&bo.peer).unwrap().unwrap().relay, RelayChoice::Auto);
        let stranger = contact(2, "x").peer;
        let refused = contacts.set_relay(&stranger, RelayChoice::Never);
        assert!(matches!(refused, Err(ContactsError::NotAContact { .. })));
    }

    #[test]
    fn a_book_from_before_there_were_relays_is_read_and_written() {
        let book = Book::new();
        let bo = contact(1, "bo");
        {
            let contacts = book.contacts();
            contacts.add(&bo).unwrap();
            let older = contacts.change(|write| write.delete_table(RELAY).map_err(storage));
            assert!(older.unwrap());
        }
        let contacts = book.contacts();
        assert_eq!(contacts.list().unwrap(), std::slice::from_ref(&bo));
        assert_eq!(contacts.get(&bo.peer).unwrap(), Some(bo.clone()));
        assert_eq!(contacts.by_petname("bo").unwrap(), Some(bo.clone()));
        assert_eq!(contacts.set_relay(&bo.peer, RelayChoice::Never).unwrap().relay, RelayChoice::Never);
        assert_eq!(contacts.remove(&bo.peer).unwrap().unwrap().relay, RelayChoice::Never);
    }

    #[test]
    fn every_relay_choice_survives_its_word_and_an_unknown_number_forbids() {
        for choice in RelayChoice::ALL {
            assert_eq!(choice.as_str().parse(), Ok(choice));
            assert_eq!(RelayChoice::from_number(choice.number()), choice);
        }
        assert_eq!(RelayChoice::from_number(Some(200)), RelayChoice::Never);
        assert_eq!("always".parse::<RelayChoice>(), Err(UnknownRelayChoice));
    }

    #[test]
    fn the_list_is_ordered_by_name_without_regard_to_case() {
        let book = Book::new();
        let contacts = book.contacts();
        for (fill, name) in [(1, "mira"), (2, "Ana"), (3, "bo"), (4, "Zoë")] {
            contacts.add(&contact(fill, name)).unwrap();
        }
        let names: Vec<_> = contacts.list().unwrap().into_iter().map(|contact| contact.petname).collect();
        assert_eq!(names, ["Ana", "bo", "mira", "Zoë"]);
    }

    #[test]
    fn every_trust_state_survives_its_word_and_its_number() {
        for trust in Trust::ALL {
            assert_eq!(trust.as_str().parse(), Ok(trust));
            assert_eq!(Trust::from_number(trust.number()), trust);
        }
        assert_eq!(Trust::from_number(200), Trust::New);
        assert_eq!("friend".parse::<Trust>(), Err(UnknownTrust));
    }

    #[test]
    fn a_second_opener_is_told_that_the_book_is_in_use() {
        let book = Book::new();
        let _first = book.contacts();
        assert!(matches!(Contacts::open(&book.path), Err(ContactsError::InUse)));
    }

    #[test]
    fn the_file_is_private_and_refused_if_it_is_not() {
        let book = Book::new();
        drop(book.contacts());
        assert_eq!(fs::metadata(&book.path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&book.path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Contacts::open(&book.path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_book_is_called_damaged_and_left_alone() {
        let book = Book::new();
        for content in [&b"not a database at all"[..], &[0; 8192], &[0xff; 100_000]] {
            fs::write(&book.path, content).unwrap();
            fs::set_permissions(&book.path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = Contacts::open(&book.path).unwrap_err();
            assert!(matches!(error, ContactsError::Damaged { .. }), "{error:?}");
            assert_eq!(fs::read(&book.path).unwrap(), content);
        }
    }

    #[test]
    fn a_book_of_a_newer_schema_is_not_touched() {
        let book = Book::new();
        {
            let contacts = book.contacts();
            let newer = contacts.change(|write| {
                let mut meta = write.open_table(META).map_err(storage)?;
                meta.insert(META_SCHEMA, SCHEMA + 1).map_err(storage)?;
                Ok(())
            });
            newer.unwrap();
        }
        assert!(
            matches!(Contacts::open(&book.path), Err(ContactsError::Newer { found }) if found == SCHEMA + 1)
        );
    }

    #[test]
    fn a_key_that_the_disk_spoilt_is_damage_and_no_panic_later() {
        let book = Book::new();
        let contacts = book.contacts();
        let mut spoilt = [0; 32];
        spoilt[0] = 2;
        let written = contacts.change(|write| {
            write
                .open_table(PEOPLE)
                .map_err(storage)?
                .insert(&spoilt, (0, 0, "bo", Vec::new()))
                .map_err(storage)?;
            write.open_table(NAMES).map_err(storage)?.insert("bo", &spoilt).map_err(storage)?;
            Ok(())
        });
        written.unwrap();
        assert!(matches!(contacts.list(), Err(ContactsError::Damaged { .. })));
        assert!(matches!(contacts.by_petname("bo"), Err(ContactsError::Damaged { .. })));
        assert!(matches!(contacts.add(&contact(1, "bo")), Err(ContactsError::Damaged { .. })));
    }

    #[test]
    fn one_contact_more_than_the_limit_is_refused() {
        let book = Book::new();
        let contacts = book.contacts();
        let filled = contacts.change(|write| {
            let mut people = write.open_table(PEOPLE).map_err(storage)?;
            for number in 0..CONTACTS_MAX as u64 - 1 {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&number.to_be_bytes());
                people.insert(&key, (0, 0, "", Vec::new())).map_err(storage)?;
            }
            Ok(())
        });
        filled.unwrap();
        contacts.add(&contact(1, "last")).unwrap();
        assert!(matches!(contacts.add(&contact(2, "too many")), Err(ContactsError::Full)));
    }

    struct Book {
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Book {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { path: folder.path().join("contacts.redb"), _folder: folder }
        }

        fn contacts(&self) -> Contacts {
            Contacts::open(&self.path).unwrap()
        }
    }

    fn contact(fill: u8, petname: &str) -> Contact {
        Contact {
            peer: SecretKey::from_seed([fill; 32]).peer_id(),
            petname: petname.to_owned(),
            trust: Trust::New,
            relay: RelayChoice::Auto,
            addresses: vec!["192.0.2.7:4000".to_owned(), "[2001:db8::7]:4000".to_owned()],
            added_unix_s: 1_763_000_000,
        }
    }
}
