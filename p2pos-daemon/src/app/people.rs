//! The people this user knows, as the daemon needs them: the address book, who may connect, and where to find them.
//!
//! The book is the truth; the resolver's entries follow it after every change. Disk work goes to the blocking pool.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use p2pos_control::{ContactRequest, Document, Failure};
use p2pos_discovery::{PeerAddress, Resolver};
use p2pos_identity::{Contacts, ContactsError, PeerId, RelayChoice};
use p2pos_node::{Admission, Policy};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::config::Strangers;
use crate::contacts;

/// A `p2pos contacts` command without a daemon holds the book for some milliseconds; whoever holds it longer is not
/// one of those, and the user should hear it.
const BOOK_FREE_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two tries.
const BOOK_RETRY: Duration = Duration::from_millis(20);

/// Address book, resolver entries and admission, kept together.
#[derive(Debug)]
pub(super) struct People {
    contacts: Arc<Contacts>,
    resolver: Resolver,
}

impl People {
    /// Opens the book and tells the resolver what stands in it.
    pub(super) async fn open(path: &Path) -> Result<Self, Failure> {
        let contacts = Arc::new(open_book(path).await?);
        let people = Self { contacts, resolver: Resolver::new() };
        for contact in people.contacts.list().map_err(|error| Failure::failed(error.to_string()))? {
            people.tell_resolver(contact.peer, &contact.addresses);
        }
        Ok(people)
    }

    pub(super) fn contacts(&self) -> Arc<Contacts> {
        Arc::clone(&self.contacts)
    }

    pub(super) fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }

    /// Who may connect. Contacts always; strangers as the user set it.
    pub(super) fn policy(&self, strangers: Strangers) -> Arc<dyn Policy> {
        Arc::new(BookPolicy { contacts: self.contacts(), strangers })
    }

    /// All contacts.
    pub(super) fn everybody(&self) -> Vec<PeerId> {
        let contacts = self.contacts.list().unwrap_or_default();
        contacts.into_iter().map(|contact| contact.peer).collect()
    }

    /// How many contacts there are.
    pub(super) fn count(&self) -> usize {
        self.contacts.list().map_or(0, |contacts| contacts.len())
    }

    /// The user's name for someone.
    pub(super) fn petname(&self, peer: &PeerId) -> Option<String> {
        self.contacts.get(peer).ok().flatten().map(|contact| contact.petname)
    }

    /// Whom the user means.
    pub(super) fn resolve(&self, who: &str) -> Result<PeerId, Failure> {
        contacts::resolve(&self.contacts, who)
    }

    /// Answers a question about contacts, and lets the resolver follow.
    pub(super) async fn answer(&self, request: ContactRequest) -> Result<Document, Failure> {
        let is_removal = matches!(request, ContactRequest::Remove { .. });
        let book = self.contacts();
        let document = spawn_blocking(move || contacts::answer(&book, request))
            .await
            .map_err(|error| Failure::failed(format!("the address book's task broke off: {error}")))??;
        if let Document::Contact(contact) = &document {
            let peer: PeerId = contact.peer_id.parse().expect("the address book holds PeerIds");
            self.tell_resolver(peer, if is_removal { &[] } else { &contact.addresses });
        }
        Ok(document)
    }

    /// Every address was checked when it came into the book; one that is none all the same is left out.
    fn tell_resolver(&self, peer: PeerId, addresses: &[String]) {
        let (mut direct, mut relays) = (Vec::new(), Vec::new());
        for address in addresses {
            match address.parse() {
                Ok(PeerAddress::Direct(address)) => direct.push(address),
                Ok(PeerAddress::Relay(address)) => relays.push(address),
                Err(error) => warn!(%peer, %error, "an address of a contact cannot be used"),
            }
        }
        let kept = self.resolver.set(peer, direct).and_then(|()| self.resolver.set_relays(peer, relays));
        if let Err(error) = kept {
            warn!(%peer, %error, "the addresses of a contact cannot be used");
        }
    }
}

/// The address book's word on who may connect, and how.
struct BookPolicy {
    contacts: Arc<Contacts>,
    strangers: Strangers,
}

impl Policy for BookPolicy {
    fn admits(&self, peer: &PeerId) -> Admission {
        let is_contact = self.contacts.get(peer).map(|found| found.is_some()).unwrap_or_else(|error| {
            // Whoever cannot be looked up is nobody we know.
            warn!(%error, "the address book could not be read");
            false
        });
        match self.strangers {
            _ if is_contact => Admission::Contact,
            Strangers::Admit => Admission::Stranger,
            Strangers::Refuse => Admission::Refuse,
        }
    }

    fn may_relay(&self, peer: &PeerId) -> bool {
        match self.contacts.get(peer) {
            Ok(Some(contact)) => contact.relay != RelayChoice::Never,
            Ok(None) => true,
            Err(error) => {
                // It may say never.
                warn!(%error, "the address book could not be read");
                false
            }
        }
    }
}

async fn open_book(path: &Path) -> Result<Contacts, Failure> {
    let give_up = Instant::now() + BOOK_FREE_WITHIN;
    loop {
        match Contacts::open(path) {
            Ok(contacts) => return Ok(contacts),
            Err(ContactsError::InUse) if Instant::now() < give_up => sleep(BOOK_RETRY).await,
            Err(error) => return Err(Failure::failed(error.to_string())),
        }
    }
}
