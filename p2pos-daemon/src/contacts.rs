//! Questions about contacts, answered from the address book: by the daemon, which holds it open, or by the command line
//! itself while no daemon runs. One place for both, so that the answers cannot differ.

use std::time::{SystemTime, UNIX_EPOCH};

use p2pos_control::{Contact as ContactDocument, ContactList, ContactRequest, Document, Failure};
use p2pos_discovery::PeerAddress;
use p2pos_identity::{
    Contact, Contacts, ContactsError, ParsePeerIdError, PeerId, RelayChoice, Trust, UnknownRelayChoice,
    Untrusted,
};

use crate::config::nearest;

/// How every PeerId begins: what begins so is never a petname, and a slip in it is named as such.
const PEER_ID_START: &str = "p2p1";

/// Answers one question. Blocks for as long as the disk takes.
pub(crate) fn answer(book: &Contacts, request: ContactRequest) -> Result<Document, Failure> {
    let contact = match request {
        ContactRequest::List => {
            let contacts = book.list().map_err(failed)?.iter().map(document).collect();
            return Ok(Document::Contacts(ContactList { contacts }));
        }
        ContactRequest::Show { who } => find(book, &who)?,
        ContactRequest::Add { peer_id, petname, addresses, relay } => {
            let relay = relay.as_deref().map(relay_choice).transpose()?.unwrap_or_default();
            add(book, &peer_id, petname, (addresses, relay))?
        }
        ContactRequest::Rename { who, petname } => {
            book.rename(&find(book, &who)?.peer, &petname).map_err(failed)?
        }
        ContactRequest::Addresses { who, addresses } => {
            check_addresses(&addresses)?;
            book.set_addresses(&find(book, &who)?.peer, addresses).map_err(failed)?
        }
        ContactRequest::Relay { who, relay } => {
            let relay = relay_choice(&relay)?;
            book.set_relay(&find(book, &who)?.peer, relay).map_err(failed)?
        }
        ContactRequest::Remove { who } => {
            let contact = find(book, &who)?;
            book.remove(&contact.peer).map_err(failed)?;
            contact
        }
    };
    Ok(Document::Contact(document(&contact)))
}

/// Whom the user means, by petname or PeerId; a PeerId need not be a contact's.
pub(crate) fn resolve(book: &Contacts, who: &str) -> Result<PeerId, Failure> {
    if who.starts_with(PEER_ID_START) { parse_peer_id(who) } else { Ok(find(book, who)?.peer) }
}

/// The contact that the user means.
fn find(book: &Contacts, who: &str) -> Result<Contact, Failure> {
    if who.starts_with(PEER_ID_START) {
        let peer = parse_peer_id(who)?;
        let found = book.get(&peer).map_err(failed)?;
        return found.ok_or_else(|| failed(ContactsError::NotAContact { peer }));
    }
    if let Some(contact) = book.by_petname(who).map_err(failed)? {
        return Ok(contact);
    }
    let contacts = book.list().map_err(failed)?;
    let failure = Failure::not_found(format!("there is no contact \"{who}\""));
    Err(match nearest(who, contacts.iter().map(|contact| contact.petname.as_str())) {
        Some(near) => failure.next(format!("did you mean {near}?")),
        None => failure.next("see them: p2pos contacts list"),
    })
}

fn add(
    book: &Contacts,
    peer_id: &str,
    petname: String,
    (addresses, relay): (Vec<String>, RelayChoice),
) -> Result<Contact, Failure> {
    check_addresses(&addresses)?;
    // A clock before 1970 is wrong by so much that no date would help anyone.
    let added_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let contact =
        Contact { peer: parse_peer_id(peer_id)?, petname, trust: Trust::New, addresses, relay, added_unix_s };
    book.add(&contact).map_err(failed)?;
    Ok(contact)
}

fn relay_choice(text: &str) -> Result<RelayChoice, Failure> {
    text.parse().map_err(|error: UnknownRelayChoice| Failure::usage(error.to_string()))
}

fn parse_peer_id(text: &str) -> Result<PeerId, Failure> {
    text.parse().map_err(|error: ParsePeerIdError| Failure::usage(error.to_string()))
}

/// An address that is none would only be noticed when it is dialled.
fn check_addresses(addresses: &[String]) -> Result<(), Failure> {
    for address in addresses {
        address
            .parse::<PeerAddress>()
            .map_err(|error| Failure::usage(format!("\"{}\": {error}", Untrusted(address))))?;
    }
    Ok(())
}

fn failed(error: ContactsError) -> Failure {
    let text = error.to_string();
    match error {
        ContactsError::Petname(_)
        | ContactsError::TooManyAddresses { .. }
        | ContactsError::Address { .. } => Failure::usage(text),
        ContactsError::NotAContact { .. } => Failure::not_found(text),
        ContactsError::PetnameTaken { .. }
        | ContactsError::AlreadyContact { .. }
        | ContactsError::Full
        | ContactsError::InUse
        | ContactsError::Newer { .. }
        | ContactsError::Damaged { .. }
        | ContactsError::File(_)
        | ContactsError::Storage(_)
        | _ => Failure::failed(text),
    }
}

fn document(contact: &Contact) -> ContactDocument {
    ContactDocument {
        petname: contact.petname.clone(),
        peer_id: contact.peer.to_string(),
        trust: contact.trust.to_string(),
        addresses: contact.addresses.clone(),
        relay: contact.relay.to_string(),
        added_unix_s: contact.added_unix_s,
    }
}

#[cfg(test)]
mod tests {
    use p2pos_control::Exit;
    use p2pos_identity::SecretKey;

    use super::*;

    struct Book {
        _dir: tempfile::TempDir,
        contacts: Contacts,
    }

    fn book() -> Book {
        let dir = tempfile::tempdir().unwrap();
        let contacts = Contacts::open(&dir.path().join("contacts.redb")).unwrap();
        Book { _dir: dir, contacts }
    }

    fn peer(seed: u8) -> String {
        SecretKey::from_seed([seed; 32]).peer_id().to_string()
    }

    fn add_to(book: &Book, seed: u8, petname: &str) -> Result<Document, Failure> {
        let addresses = vec!["192.0.2.7:4000".to_owned()];
        let request =
            ContactRequest::Add { peer_id: peer(seed), petname: petname.into(), addresses, relay: None };
        answer(&book.contacts, request)
    }

    #[test]
    fn a_contact_is_found_by_name_and_by_peer_id() {
        let book = book();
        let added = add_to(&book, 1, "bo").unwrap();
        for who in ["bo".to_owned(), "BO".to_owned(), peer(1)] {
            assert_eq!(answer(&book.contacts, ContactRequest::Show { who }).unwrap(), added);
        }
    }

    #[test]
    fn a_slip_in_a_name_and_a_slip_in_a_peer_id_are_told_apart() {
        let book = book();
        add_to(&book, 1, "beatrice").unwrap();
        let failure = resolve(&book.contacts, "betarice").unwrap_err();
        assert_eq!((failure.exit, failure.next), (Exit::NotFound, vec!["did you mean beatrice?".to_owned()]));
        let mut slip = peer(1);
        slip.replace_range(20..21, if &slip[20..21] == "q" { "p" } else { "q" });
        assert_eq!(resolve(&book.contacts, &slip).unwrap_err().exit, Exit::Usage);
        assert_eq!(resolve(&book.contacts, &peer(2)).unwrap().to_string(), peer(2));
    }

    #[test]
    fn an_address_needs_a_port_that_can_be_reached() {
        for good in ["192.0.2.7:1", "[2001:db8::7]:65535", "home.example.org:4000"] {
            check_addresses(&[good.to_owned()]).unwrap();
        }
        for bad in
            ["192.0.2.7", "192.0.2.7:0", "192.0.2.7:70000", ":4000", "2001:db8::7:4000", "home:http", ""]
        {
            assert_eq!(check_addresses(&[bad.to_owned()]).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn an_address_through_a_relay_of_the_longest_name_fits_into_the_book() {
        let book = book();
        let host = format!("{}.", "a".repeat(63)).repeat(3) + &"b".repeat(61);
        let address = format!("relay:{}@{host}:65535/00112233445566778899aabbccddeeff", peer(2));
        let (peer_id, addresses) = (peer(1), vec![address.clone()]);
        let request = ContactRequest::Add { peer_id, petname: "bo".into(), addresses, relay: None };
        let Document::Contact(added) = answer(&book.contacts, request).unwrap() else { panic!() };
        assert_eq!(added.addresses, [address]);
    }

    #[test]
    fn relays_are_forbidden_and_allowed_again_by_one_of_two_words() {
        let book = book();
        add_to(&book, 1, "bo").unwrap();
        let set = |relay: &str| {
            let request = ContactRequest::Relay { who: "bo".into(), relay: relay.into() };
            let Document::Contact(contact) = answer(&book.contacts, request)? else { panic!("no contact") };
            Ok(contact.relay)
        };
        assert_eq!(set("never").unwrap(), "never");
        assert_eq!(set("auto").unwrap(), "auto");
        let failure: Failure = set("always").unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.message.contains("auto, never"), "{failure}");
    }

    #[test]
    fn who_was_removed_is_gone_and_shown_once_more() {
        let book = book();
        let added = add_to(&book, 1, "bo").unwrap();
        let remove = || answer(&book.contacts, ContactRequest::Remove { who: "bo".into() });
        assert_eq!(remove().unwrap(), added);
        assert_eq!(remove().unwrap_err().exit, Exit::NotFound);
    }
}
