//! `p2pos contacts`: asks the daemon if one runs, since it holds the address book; otherwise opens the book itself.

use p2pos_control::{Client, ConnectError, ContactRequest, Document, Failure, Request};
use p2pos_identity::Contacts as Book;

use super::Context;
use super::args::{AddContact, Contacts};
use crate::contacts;

/// How many letters of a PeerId make the name of a contact that was given none.
const NAME_LETTERS: usize = 4;

/// Does one `contacts` command.
pub(crate) async fn run(context: &Context, command: Contacts) -> Result<(), Failure> {
    let (request, done) = match command {
        Contacts::Add(contact) => (add(contact), Some("added")),
        Contacts::List => (ContactRequest::List, None),
        Contacts::Show { who } => (ContactRequest::Show { who }, None),
        Contacts::Rename { who, name } => (ContactRequest::Rename { who, petname: name }, Some("renamed")),
        Contacts::Address { who, addresses } => {
            (ContactRequest::Addresses { who, addresses }, Some("changed"))
        }
        Contacts::Relay { who, relay } => (ContactRequest::Relay { who, relay }, Some("changed")),
        Contacts::Remove { who } => (ContactRequest::Remove { who }, Some("removed")),
    };
    let document = answer(context, request).await?;
    match (&document, done) {
        (Document::Contact(contact), Some(done)) if !context.output.json => {
            context.output.say(&format!("{done} {} ({})", contact.petname, contact.peer_id));
            Ok(())
        }
        (Document::Contacts(list), None) if list.contacts.is_empty() && !context.output.json => {
            context.output.say("there are no contacts yet");
            context
                .output
                .say("  add one: p2pos contacts add PEERID NAME --addr HOST:PORT   yours is: p2pos id");
            Ok(())
        }
        _ => context.output.document(&document),
    }
}

fn add(contact: AddContact) -> ContactRequest {
    let AddContact { peer_id, petname, name_option, addresses, relay } = contact;
    let petname = petname.or(name_option).unwrap_or_else(|| name_for(&peer_id));
    ContactRequest::Add { peer_id, petname, addresses, relay: Some(relay) }
}

/// A name to begin with: the last letters of the PeerId, which differ from person to person.
fn name_for(peer_id: &str) -> String {
    let letters: Vec<char> = peer_id.chars().collect();
    let last = letters.len().saturating_sub(NAME_LETTERS);
    format!("peer-{}", letters[last..].iter().collect::<String>())
}

async fn answer(context: &Context, request: ContactRequest) -> Result<Document, Failure> {
    match Client::connect(&context.paths.control_socket()).await {
        Ok(mut daemon) => Ok(daemon.call(Request::Contacts(request)).await?),
        Err(ConnectError::NotRunning(_)) => {
            let book = Book::open(&context.paths.contacts_file())
                .map_err(|error| Failure::failed(error.to_string()))?;
            contacts::answer(&book, request)
        }
        Err(error) => Err(error.into()),
    }
}
