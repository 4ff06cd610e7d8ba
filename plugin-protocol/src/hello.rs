//! The handshake: how a plugin and a daemon find out that they are who they should be, and which version they speak.
//!
//! ```text
//! launched plugin                daemon        tool with the endpoint file           daemon
//!   Hello{launch_token}  ------->                Hello{client_nonce}    ------->
//!                        <------- Welcome                               <------- Challenge{nonce, proof}
//!                                                AuthProof{proof}       ------->
//! detached stream's socket                                              <------- Welcome
//!   Attach{ticket}       ------->
//!                        <------- Attached, then raw bytes
//! ```
//!
//! A launch token is a secret that only our child can know, good once. Whoever has only the endpoint file must not send
//! what stands in it: a program squatting on a stale port would learn it. So there both sides prove that they know it,
//! the daemon first.
//!
//! Both machines are pure. They take bytes in with `handle`, give bytes out with `poll_transmit`, and leave whatever
//! follows the handshake in the buffer. Nonces come from whoever makes them; deadlines are the driver's; whether a token
//! or ticket is good is the host's to say. SPEC.md, "Handshake".

use std::fmt;

use bytes::{Bytes, BytesMut};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{
    code::Code,
    frame::{self, Foreign, FrameError},
    limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX},
    message::{
        Auth, DecodeError, Frame, Handshake, Hello, LaunchToken, Message, Refused, Rid, Ticket, Violation,
        Welcome,
    },
};

/// First field of every Hello.
pub const MAGIC: &str = "p2pOS";

/// Oldest protocol version that this crate speaks.
pub const VERSION_MIN: u32 = 1;

/// Newest protocol version that this crate speaks.
pub const VERSION_MAX: u32 = 1;

const DAEMON_LABEL: &[u8] = b"p2pOS daemon v1";
const PLUGIN_LABEL: &[u8] = b"p2pOS plugin v1";

/// The secret of the endpoint file, which only the user can read.
#[derive(Clone)]
pub struct EndpointSecret([u8; 32]);

impl EndpointSecret {
    /// Takes 256 random bits.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    fn proof(&self, label: &[u8], nonces: &Nonces) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(label);
        mac.update(&nonces.client);
        mac.update(&nonces.server);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for EndpointSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecret(..)")
    }
}

#[derive(Clone, Copy, Debug)]
struct Nonces {
    client: [u8; 32],
    server: [u8; 32],
}

/// What a daemon needs to judge a fresh connection.
#[derive(Clone, Debug)]
pub struct AcceptorConfig {
    /// What the endpoint file says; `None`: only launch tokens and tickets get in.
    pub endpoint_secret: Option<EndpointSecret>,
    /// 32 fresh random bytes, for this connection only.
    pub server_nonce: [u8; 32],
}

/// What a connection turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Opening {
    /// A plugin with a token; whether it is a good one is for the host to find out.
    Token {
        /// What it showed.
        token: LaunchToken,
        /// What it said about itself.
        hello: Hello,
    },
    /// Somebody who has proved to know the endpoint secret.
    Proven {
        /// What it said about itself.
        hello: Hello,
    },
    /// A detached stream's socket; whether the ticket is good is for the host to find out.
    Attach {
        /// What it showed.
        ticket: Ticket,
    },
}

/// Says why a connection is closed, and what it is told before.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Rejection {
    /// What to send before closing; `None`: not a byte.
    pub answer: Option<Bytes>,
    /// Why.
    pub code: Code,
    /// Who seems to have spoken, if it was no plugin.
    pub spoke: Option<Foreign>,
    /// For the daemon's log.
    pub message: String,
}

/// The daemon's half of the handshake, for one connection.
#[derive(Debug)]
pub struct Acceptor {
    config: AcceptorConfig,
    state: Accepting,
    rid: Option<Rid>,
    version: u32,
    outgoing: Option<Bytes>,
}

#[derive(Debug)]
enum Accepting {
    First,
    Proof { hello: Hello, nonces: Nonces },
    Decided,
}

impl Acceptor {
    /// Starts with a connection that has not said anything.
    #[must_use]
    pub const fn new(config: AcceptorConfig) -> Self {
        Self { config, state: Accepting::First, rid: None, version: VERSION_MAX, outgoing: None }
    }

    /// Takes the next frame out of `buffer`, if it is whole, and tells what the connection is once it is clear. What
    /// follows that frame stays in `buffer` for the session.
    ///
    /// # Errors
    /// [`Rejection`]: send its answer, if it has one, and close.
    pub fn handle(&mut self, buffer: &mut BytesMut) -> Result<Option<Opening>, Rejection> {
        match std::mem::replace(&mut self.state, Accepting::Decided) {
            Accepting::First => self.handle_first(buffer),
            Accepting::Proof { hello, nonces } => self.handle_proof(buffer, hello, nonces),
            Accepting::Decided => Ok(None),
        }
    }

    /// Gives what has to be sent next: the Challenge, if there is one.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.outgoing.take()
    }

    /// Lets the plugin in. Version and features are what both sides know, whatever `welcome` says.
    #[must_use]
    pub fn welcome(&self, hello: &Hello, mut welcome: Welcome) -> Bytes {
        welcome.version = self.version;
        welcome.features.retain(|feature| hello.features.contains(feature));
        self.answer(Handshake::Welcome(Box::new(welcome)))
    }

    /// Turns the connection away.
    #[must_use]
    pub fn refuse(&self, refused: Refused) -> Bytes {
        self.answer(Handshake::Refused(refused))
    }

    /// Makes the connection a detached stream.
    #[must_use]
    pub fn attached(&self) -> Bytes {
        self.answer(Handshake::Attached)
    }

    fn answer(&self, handshake: Handshake) -> Bytes {
        Frame { rid: self.rid, message: Message::Handshake(handshake) }.to_bytes()
    }

    fn handle_first(&mut self, buffer: &mut BytesMut) -> Result<Option<Opening>, Rejection> {
        let Some(handshake) = self.next(buffer, true)? else {
            self.state = Accepting::First;
            return Ok(None);
        };
        match handshake {
            Handshake::Attach(ticket) => Ok(Some(Opening::Attach { ticket })),
            Handshake::Hello(hello, auth) => {
                self.agree_on_version(&hello)?;
                match auth {
                    Auth::LaunchToken(token) => Ok(Some(Opening::Token { token, hello })),
                    Auth::ClientNonce(client) => self.challenge(hello, client),
                    Auth::None => Err(self.reject(
                        Code::AUTH,
                        "a Hello without launch_token or client_nonce [S-HELLO-3] [S-HELLO-4]",
                    )),
                }
            }
            Handshake::Challenge { .. }
            | Handshake::AuthProof { .. }
            | Handshake::Welcome(_)
            | Handshake::Refused(_)
            | Handshake::Attached => {
                Err(self.reject(Code::PROTOCOL, "the first frame must be Hello or Attach [S-HELLO-1]"))
            }
        }
    }

    fn agree_on_version(&mut self, hello: &Hello) -> Result<(), Rejection> {
        self.version = hello.max_version.min(VERSION_MAX);
        if hello.min_version.max(VERSION_MIN) <= self.version {
            return Ok(());
        }
        let message = format!(
            "the plugin speaks versions {} to {}, this daemon {VERSION_MIN} to {VERSION_MAX} [S-HELLO-2]",
            hello.min_version, hello.max_version
        );
        Err(self.reject(Code::VERSION, message))
    }

    fn challenge(&mut self, hello: Hello, client: [u8; 32]) -> Result<Option<Opening>, Rejection> {
        let Some(secret) = &self.config.endpoint_secret else {
            return Err(self.reject(Code::AUTH, "this endpoint takes launch tokens only [S-HELLO-4]"));
        };
        let nonces = Nonces { client, server: self.config.server_nonce };
        let challenge = Handshake::Challenge {
            server_nonce: nonces.server,
            server_proof: secret.proof(DAEMON_LABEL, &nonces),
        };
        self.outgoing = Some(self.answer(challenge));
        self.state = Accepting::Proof { hello, nonces };
        Ok(None)
    }

    fn handle_proof(
        &mut self,
        buffer: &mut BytesMut,
        hello: Hello,
        nonces: Nonces,
    ) -> Result<Option<Opening>, Rejection> {
        let Some(handshake) = self.next(buffer, false)? else {
            self.state = Accepting::Proof { hello, nonces };
            return Ok(None);
        };
        let Handshake::AuthProof { client_proof } = handshake else {
            return Err(self.reject(Code::PROTOCOL, "a Challenge is answered by AuthProof [S-HELLO-5]"));
        };
        let secret =
            self.config.endpoint_secret.as_ref().expect("only a daemon with a secret sends a Challenge");
        if !bool::from(secret.proof(PLUGIN_LABEL, &nonces).ct_eq(&client_proof)) {
            return Err(self.reject(Code::AUTH, "the proof does not fit the endpoint secret [S-HELLO-4]"));
        }
        Ok(Some(Opening::Proven { hello }))
    }

    /// Takes the next frame, which before Welcome can only be the handshake's. A stranger, who speaks something else from
    /// the first byte on, is told nothing.
    fn next(&mut self, buffer: &mut BytesMut, is_first: bool) -> Result<Option<Handshake>, Rejection> {
        let frame = match next_frame(buffer, HELLO_BYTES_MAX) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(Bad::Frame(FrameError::Foreign(first))) if is_first => {
                let spoke = Foreign::from_first_byte(first);
                let message = format!("no plugin spoke: {spoke:?}");
                return Err(Rejection { answer: None, code: Code::PROTOCOL, spoke: Some(spoke), message });
            }
            Err(bad) => {
                self.rid = bad.rid();
                return Err(self.reject(bad.code(), bad.to_string()));
            }
        };
        self.rid = frame.rid;
        match frame.message {
            Message::Handshake(handshake) => Ok(Some(handshake)),
            Message::Stream(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Body(_)
            | Message::Unknown => {
                Err(self.reject(Code::PROTOCOL, "nothing may be said before Welcome [S-HELLO-1]"))
            }
        }
    }

    fn reject(&self, code: Code, message: impl Into<String>) -> Rejection {
        let message = message.into();
        let answer = Some(self.refuse(Refused::new(code, message.clone())));
        Rejection { answer, code, spoke: None, message }
    }
}

/// Says why a daemon and this plugin do not come together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The daemon said no, and why.
    #[error("the daemon refused: {}: {}; {}", .0.code, .0.message, .0.hint)]
    Refused(Refused),
    /// Whoever listens there does not know the endpoint secret.
    #[error(
        "what listens there is not our daemon: its proof is wrong; start `p2pos up`, its endpoint file is newer"
    )]
    Impostor,
    /// What came back is no handshake.
    #[error("what listens there does not speak the plugin protocol: {0}")]
    Protocol(String),
}

/// How a caller proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// By the token of its launch environment.
    Token(LaunchToken),
    /// By the endpoint file.
    Secret {
        /// What stands in it.
        secret: EndpointSecret,
        /// 32 fresh random bytes, for this connection only.
        client_nonce: [u8; 32],
    },
}

/// The plugin's half of the handshake.
#[derive(Debug)]
pub struct Caller {
    state: Calling,
    outgoing: Option<Bytes>,
}

#[derive(Debug)]
enum Calling {
    Challenge { secret: EndpointSecret, client_nonce: [u8; 32] },
    Welcome,
    Done,
}

impl Caller {
    /// Starts by saying Hello.
    #[must_use]
    pub fn new(hello: Hello, credential: Credential) -> Self {
        let (auth, state) = match credential {
            Credential::Token(token) => (Auth::LaunchToken(token), Calling::Welcome),
            Credential::Secret { secret, client_nonce } => {
                (Auth::ClientNonce(client_nonce), Calling::Challenge { secret, client_nonce })
            }
        };
        Self { state, outgoing: Some(handshake_frame(Handshake::Hello(hello, auth))) }
    }

    /// Gives what has to be sent next: Hello, then perhaps AuthProof.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.outgoing.take()
    }

    /// Tells whether [`Caller::poll_transmit`] has something.
    #[must_use]
    pub const fn has_transmit(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Takes the next frame out of `buffer`, if it is whole; the Welcome ends the handshake. What follows stays in
    /// `buffer` for the session.
    ///
    /// # Errors
    /// [`CallError`]: close.
    pub fn handle(&mut self, buffer: &mut BytesMut) -> Result<Option<Welcome>, CallError> {
        while let Some(handshake) = next_handshake(buffer)? {
            match (std::mem::replace(&mut self.state, Calling::Done), handshake) {
                (_, Handshake::Refused(refused)) => return Err(CallError::Refused(refused)),
                (
                    Calling::Challenge { secret, client_nonce },
                    Handshake::Challenge { server_nonce, server_proof },
                ) => {
                    let nonces = Nonces { client: client_nonce, server: server_nonce };
                    if !bool::from(secret.proof(DAEMON_LABEL, &nonces).ct_eq(&server_proof)) {
                        return Err(CallError::Impostor);
                    }
                    let client_proof = secret.proof(PLUGIN_LABEL, &nonces);
                    self.outgoing = Some(handshake_frame(Handshake::AuthProof { client_proof }));
                    self.state = Calling::Welcome;
                }
                (Calling::Challenge { .. }, _) => return Err(CallError::Impostor),
                (Calling::Welcome, Handshake::Welcome(welcome))
                    if (VERSION_MIN..=VERSION_MAX).contains(&welcome.version) =>
                {
                    return Ok(Some(*welcome));
                }
                (Calling::Welcome | Calling::Done, other) => {
                    return Err(CallError::Protocol(format!("instead of Welcome came {}", name(&other))));
                }
            }
        }
        Ok(None)
    }
}

/// The plugin's half for a detached stream's socket: the frame to send first.
#[must_use]
pub fn attach(ticket: Ticket) -> Bytes {
    handshake_frame(Handshake::Attach(ticket))
}

/// Tells whether the answer to [`attach`] is there and good. What follows it in `buffer` is the stream's.
///
/// # Errors
/// [`CallError`]: close.
pub fn handle_attached(buffer: &mut BytesMut) -> Result<bool, CallError> {
    match next_handshake(buffer)? {
        None => Ok(false),
        Some(Handshake::Attached) => Ok(true),
        Some(Handshake::Refused(refused)) => Err(CallError::Refused(refused)),
        Some(other) => Err(CallError::Protocol(format!("instead of Attached came {}", name(&other)))),
    }
}

fn next_handshake(buffer: &mut BytesMut) -> Result<Option<Handshake>, CallError> {
    match next_frame(buffer, FRAME_BYTES_MAX) {
        Ok(None) => Ok(None),
        Ok(Some(Frame { message: Message::Handshake(handshake), .. })) => Ok(Some(handshake)),
        Ok(Some(_)) => Err(CallError::Protocol("a frame that is no part of the handshake".to_owned())),
        Err(bad) => Err(CallError::Protocol(bad.to_string())),
    }
}

fn handshake_frame(handshake: Handshake) -> Bytes {
    Frame { rid: None, message: Message::Handshake(handshake) }.to_bytes()
}

const fn name(handshake: &Handshake) -> &'static str {
    match handshake {
        Handshake::Hello(..) => "Hello",
        Handshake::Challenge { .. } => "Challenge",
        Handshake::AuthProof { .. } => "AuthProof",
        Handshake::Welcome(_) => "a Welcome of another version",
        Handshake::Refused(_) => "Refused",
        Handshake::Attach(_) => "Attach",
        Handshake::Attached => "Attached",
    }
}

#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Content(#[from] DecodeError),
}

impl Bad {
    const fn code(&self) -> Code {
        match self {
            Self::Frame(error) => error.code(),
            Self::Content(DecodeError::Violation { violation: Violation { code, .. }, .. }) => *code,
            Self::Content(DecodeError::BadRequest { .. }) => Code::PROTOCOL,
        }
    }

    /// The number of the frame, which the refusal echoes.
    const fn rid(&self) -> Option<Rid> {
        match self {
            Self::Frame(_) => None,
            Self::Content(DecodeError::Violation { rid, .. } | DecodeError::BadRequest { rid, .. }) => *rid,
        }
    }
}

fn next_frame(buffer: &mut BytesMut, bytes_max: u32) -> Result<Option<Frame>, Bad> {
    match frame::measure(buffer, bytes_max)? {
        None => Ok(None),
        Some(length) => Ok(Some(Frame::decode(frame::take_body(buffer, length))?)),
    }
}
