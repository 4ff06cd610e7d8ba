//! Sessions of our own at the daemon: commands that move bytes speak as a plugin does, with a single-use token that the
//! control socket gives.

use p2pos_control::{Client as Control, ContactRequest, Document, Exit, Failure, Request, ToolSession};
use p2pos_identity::PeerId;
use p2pos_plugin_protocol::client::{Client, Config, Error};
use p2pos_plugin_protocol::code::Code;
use p2pos_plugin_protocol::message::LaunchToken;

/// Asks for a session and opens it.
pub(crate) async fn connect(control: &mut Control, what: &str) -> Result<Client, Failure> {
    let Document::Session(session) = control.call(Request::Tool { what: what.to_owned() }).await? else {
        return Err(odd_answer());
    };
    open(&session).await
}

async fn open(session: &ToolSession) -> Result<Client, Failure> {
    let missing = |name: &str| Failure::failed(format!("the daemon gave no {name}"));
    let endpoint = session.variable("P2POS_ENDPOINT").ok_or_else(|| missing("P2POS_ENDPOINT"))?;
    let token = session
        .variable("P2POS_TOKEN")
        .and_then(LaunchToken::from_env_text)
        .ok_or_else(|| missing("P2POS_TOKEN"))?;
    let endpoint =
        endpoint.parse().map_err(|error| Failure::failed(format!("the daemon's endpoint: {error}")))?;
    Client::connect_with(Config::new(endpoint, token))
        .await
        .map_err(|error| Failure::failed(format!("no session with the daemon: {error}")))
}

/// Whom the user means: a PeerId as it stands, or a contact's petname.
pub(crate) async fn resolve(control: &mut Control, who: &str) -> Result<PeerId, Failure> {
    if let Ok(peer) = who.parse() {
        return Ok(peer);
    }
    let show = ContactRequest::Show { who: who.to_owned() };
    let Document::Contact(contact) = control.call(Request::Contacts(show)).await? else {
        return Err(odd_answer());
    };
    contact.peer_id.parse().map_err(|error| Failure::failed(format!("the daemon's answer: {error}")))
}

/// For an answer that belongs to another question: a bug, or another version.
pub(crate) fn odd_answer() -> Failure {
    Failure::failed("the daemon answered another question than the one asked")
        .next("command and daemon may be of different versions: restart the daemon")
}

/// What a failed call means to the shell; the daemon's own words, with its hint as the next step.
pub(crate) fn failed(error: Error) -> Failure {
    let exit = error.code().map_or(Exit::Failed, exit_of);
    let Error::Refused(reply) = error else {
        return Failure::new(exit, error.to_string());
    };
    let failure = Failure::new(exit, format!("{} ({})", reply.message, reply.code));
    let failure = if reply.hint.is_empty() { failure } else { failure.next(reply.hint) };
    reply.details.into_iter().fold(failure, Failure::next)
}

/// The exit code of a code of the registry.
pub(crate) fn exit_of(code: Code) -> Exit {
    const KINDS: [(Code, Exit); 5] = [
        (Code::BAD_REQUEST, Exit::Usage),
        (Code::PERMISSION_DENIED, Exit::NeedsApproval),
        (Code::TIMEOUT, Exit::TimedOut),
        (Code::NOT_FOUND, Exit::NotFound),
        (Code::UNKNOWN, Exit::NotFound),
    ];
    KINDS.into_iter().find(|(known, _)| *known == code).map_or(Exit::Failed, |(_, exit)| exit)
}
