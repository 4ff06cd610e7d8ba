//! Steps that make sessions with running daemons.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Play, Subject, number};
use crate::agent::random_hex;
use crate::book::Part;
use crate::lend::Loan;
use crate::notation;
use crate::session::Session;
use crate::verdict::Stop;
use crate::wire::Wire;

/// What the cases open; the manifest of [`crate::manifest`] asks for it.
pub(crate) const PROTOCOL: &str = "/p2pos/conformance-stream/1";

impl Play<'_> {
    /// True: it was one of ours.
    pub(super) fn daemon_step(&mut self, verb: &str, words: &[String]) -> Result<bool> {
        let word = |at: usize| words.get(at).map(String::as_str);
        match verb {
            "lend" => self.lend(word(0).context("lend NAME here|there")?, word(1).unwrap_or("here"))?,
            "connect" => {
                let name = word(0).context("connect NAME [LOAN]")?;
                self.connect(name, word(1).unwrap_or(name))?;
            }
            "join" => {
                let name = word(0).context("join NAME here|there")?;
                self.join(name, word(1).unwrap_or("here"), words.get(2..).unwrap_or_default())?;
            }
            "challenge" => drop(self.challenge(word(0).context("challenge NAME")?)?),
            "tool" => self.tool(word(0).context("tool NAME")?, word(1) == Some("wrong"))?,
            "pair" => self.pair(words)?,
            "leave" => {
                let name = word(0).context("leave NAME")?;
                self.sessions.remove(name);
                self.loans.remove(name);
            }
            "attach" => self.attach_to(words)?,
            "raw" => self.raw(words)?,
            "wait" => {
                // Only for the protocol's own deadlines: nothing can be waited for but the time.
                let seconds = number(words, 0, "seconds")?;
                std::thread::sleep(Duration::from_secs(seconds));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Borrows a plugin's environment: `$NAME-token` afterwards.
    fn lend(&mut self, name: &str, place: &str) -> Result<()> {
        let Subject::Daemons(daemons) = self.subject else { bail!("this case judges a daemon") };
        let launcher = match place {
            "here" => &daemons.here,
            "there" => &daemons.there,
            other => bail!("{other:?} is neither here nor there"),
        };
        let loan = Loan::take(launcher, &daemons.program)?;
        self.variables.set(&format!("{name}-token"), loan.token.clone());
        self.loans.insert(name.to_owned(), loan);
        Ok(())
    }

    fn connect(&mut self, name: &str, loan: &str) -> Result<()> {
        let endpoint = self.loans.get(loan).with_context(|| format!("{loan} was not lent"))?.endpoint.clone();
        let session = Session::new(Wire::connect(&endpoint)?, Part::Plugin);
        self.sessions.insert(name.to_owned(), session);
        Ok(())
    }

    /// Lend, connect, Hello with these fields, Welcome. `$NAME` is the PeerId of that daemon's user.
    fn join(&mut self, name: &str, place: &str, fields: &[String]) -> Result<()> {
        self.lend(name, place)?;
        self.connect(name, name)?;
        let token = self.variables.get(&format!("{name}-token"))?;
        let line = format!(
            "hello rid=9000 magic=p2pOS min_version=1 max_version=1 sdk=p2pos-conformance launch_token={token} {}",
            fields.join(" ")
        );
        let hello = notation::frame(&notation::words(&line))?;
        let window = hello.fields.number("stream_window_bytes");
        let session = self.session(name)?;
        session.book.is_auto_window = hello.fields.number("auto_window") > 0;
        if window > 0 {
            session.book.their_window = window;
        }
        session.send(&hello)?;
        self.welcomed(name)
    }

    fn welcomed(&mut self, name: &str) -> Result<()> {
        let wanted = format!(
            "next welcome rid=9000 version=1 peer_id=?{name} limits={{data_bytes_max=?data-max,stream_window_bytes=?window,streams_max=?streams-max}}"
        );
        let words = notation::words(&wanted);
        self.frame_step(name, "next", &words[1..])?;
        let (data_max, window) =
            (self.variables.get("data-max")?.parse()?, self.variables.get("window")?.parse()?);
        let session = self.session(name)?;
        session.book.data_bytes_max = data_max;
        session.book.our_window = window;
        session.book.is_open = true;
        Ok(())
    }

    /// The first half of a tool's handshake: Hello with a nonce, Challenge with the daemon's proof. Returns the secret and both nonces.
    fn challenge(&mut self, name: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        let Subject::Daemons(daemons) = self.subject else { bail!("this case judges a daemon") };
        let Some(file) = &daemons.endpoint_file else {
            return Err(Stop::Unsupported("it has no endpoint file (--endpoint-file)".to_owned()).into());
        };
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let endpoint: serde_json::Value = serde_json::from_str(&text)?;
        let address = endpoint["endpoints"][0].as_str().context("endpoint.json names no endpoint")?;
        let secret = notation::unhex(endpoint["secret"].as_str().context("endpoint.json has no secret")?)?;
        self.sessions.insert(name.to_owned(), Session::new(Wire::connect(address)?, Part::Plugin));
        let nonce = random_hex(32)?;
        let hello = format!("hello rid=9000 magic=p2pOS min_version=1 max_version=1 client_nonce=0x{nonce}");
        let frame = notation::frame(&notation::words(&hello))?;
        self.session(name)?.send(&frame)?;
        let challenge =
            notation::words("challenge rid=9000 server_nonce=?server-nonce server_proof=?server-proof");
        self.frame_step(name, "next", &challenge)?;
        let server_nonce = notation::unhex(self.variables.get("server-nonce")?.trim_start_matches("0x"))?;
        ensure!(server_nonce.len() == 32, "a nonce of {} bytes [S-HELLO-4]", server_nonce.len());
        let nonces = [notation::unhex(&nonce)?, server_nonce].concat();
        let proof = prove(&secret, b"p2pOS daemon v1", &nonces)?;
        let is = self.variables.get("server-proof")?;
        ensure!(is == format!("0x{proof}"), "its proof is {is}, not 0x{proof} [S-HELLO-4]");
        Ok((secret, nonces))
    }

    /// The two-way proof with the secret of endpoint.json; `wrong`: with another secret.
    fn tool(&mut self, name: &str, is_wrong: bool) -> Result<()> {
        let (mut secret, nonces) = self.challenge(name)?;
        if is_wrong {
            secret.reverse();
        }
        let ours = prove(&secret, b"p2pOS plugin v1", &nonces)?;
        let words = notation::words(&format!("auth_proof rid=9001 client_proof=0x{ours}"));
        let frame = notation::frame(&words)?;
        self.session(name)?.send(&frame)?;
        if is_wrong {
            return Ok(());
        }
        let session = self.session(name)?;
        session.until("Welcome", crate::session::SOON, |session| {
            let at = session.queue.iter().position(|frame| frame.name == "welcome");
            Ok(at.and_then(|at| session.queue.remove(at)).map(|_| ()))
        })?;
        session.book.is_open = true;
        Ok(())
    }

    /// Two sessions, `a` here and `b` there, and a stream from a to b: `$s` at a, `$t` at b. `pair datagram` a flow, `pair detached` a stream
    /// with sockets (`$ticket-a`, `$ticket-b`); words with `=` go into both Hellos.
    fn pair(&mut self, words: &[String]) -> Result<()> {
        let hello: Vec<String> = words.iter().filter(|word| word.contains('=')).cloned().collect();
        let kind = words.iter().find(|word| !word.contains('=')).map_or("stream", String::as_str);
        let (register, open) = match kind {
            "datagram" => (",kind=DATAGRAM", "kind=DATAGRAM"),
            "detached" => (",attachment=SOCKET", "attachment=SOCKET"),
            _ => ("", ""),
        };
        let tickets = if kind == "detached" { ("ticket=?ticket-a", "ticket=?ticket-b") } else { ("", "") };
        self.join("a", "here", &hello)?;
        self.join("b", "there", &hello)?;
        let (a, b) = (self.variables.get("a")?.to_owned(), self.variables.get("b")?.to_owned());
        let lines = [
            ("b", "send", format!("register rid=9002 protocols={{name={PROTOCOL}{register}}}")),
            ("b", "expect", "done rid=9002".to_owned()),
            ("a", "send", format!("open rid=9003 stream=1 peer={b} protocols={PROTOCOL} {open}")),
            ("b", "late", format!("10 incoming rid=?r stream=?t peer={a} protocol={PROTOCOL} {}", tickets.1)),
        ];
        for (session, verb, line) in lines {
            self.frame_step(session, verb, &notation::words(&line))?;
        }
        let accept = format!("accept rid={} stream={}", self.variables.get("r")?, self.variables.get("t")?);
        self.frame_step("b", "send", &notation::words(&accept))?;
        let opened = format!("opened rid=9003 stream=1 protocol={PROTOCOL} {}", tickets.0);
        self.frame_step("a", "expect", &notation::words(&opened))?;
        self.variables.set("s", "1");
        Ok(())
    }

    /// Connects a second socket and says Attach: `attach NAME LOAN TICKET`.
    fn attach_to(&mut self, words: &[String]) -> Result<()> {
        let [name, loan, ticket, ..] = words else { bail!("attach NAME LOAN TICKET") };
        let endpoint = self.loans.get(loan).with_context(|| format!("{loan} was not lent"))?.endpoint.clone();
        let mut wire = Wire::connect(&endpoint)?;
        let frame = notation::frame(&notation::words(&format!("attach rid=7 ticket={ticket}")))?;
        wire.write(&frame.to_bytes()?)?;
        let wanted = if words.iter().any(|word| word == "refused") {
            "refused code=102 rid=7"
        } else {
            "attached rid=7"
        };
        let deadline = Instant::now() + crate::session::SOON;
        // Read four bytes, then the length: what follows Attached is the stream's.
        let prefix = wire.read_raw(4, deadline)?;
        let length: [u8; 4] =
            prefix.try_into().ok().context("the second socket was closed without an answer")?;
        let body = wire.read_raw(u32::from_be_bytes(length) as usize, deadline)?;
        let answer = crate::codec::Frame::from_body(&body)?;
        let does_fit =
            notation::fits(&notation::words(wanted), &answer, &mut notation::Variables::default())?;
        ensure!(does_fit, "the second socket was answered by {}", notation::show(&answer));
        self.raws.insert(name.clone(), wire);
        Ok(())
    }
}

fn prove(secret: &[u8], role: &[u8], nonces: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok().context("a secret of any length is a key")?;
    mac.update(role);
    mac.update(nonces);
    Ok(notation::hex(&mac.finalize().into_bytes()))
}
