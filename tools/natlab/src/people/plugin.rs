//! A plugin that the lab plays: a session at a real daemon, as an author has who develops one.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use p2pos_control::{Client as Control, Document, Request, Step};
use p2pos_identity::PeerId;
use p2pos_plugin_protocol::client::{Client, Config, Stream};
use p2pos_plugin_protocol::message::LaunchToken;
use tokio::time::timeout;

use super::daemon::Daemon;

/// What the lab's plugins speak: whatever is written comes back.
const PROTOCOL: &str = "/lab-echo/1";
/// Local work of a daemon: a loaded machine gets its time.
const LOCAL_WITHIN: Duration = Duration::from_secs(20);
/// Streams served at the same time by one echo.
const STREAMS_MAX: usize = 64;

/// A session at a daemon.
#[derive(Debug)]
pub struct Plugin {
    client: Client,
    /// The daemon forgets the plugin with this connection.
    _control: Control,
}

impl Plugin {
    /// A session that may open and serve the lab's protocol.
    ///
    /// # Errors
    /// The daemon said no.
    pub async fn at(daemon: &Daemon) -> Result<Self> {
        let dir = daemon.home().join("lab");
        fs::create_dir_all(&dir)?;
        let manifest = format!(
            "manifest = 1\nid = \"lab\"\nname = \"lab\"\nversion = \"1.0.0\"\n[run]\nexec = [\"true\"]\n\
             [permissions]\nnet.open = [{PROTOCOL:?}]\nnet.accept = [{PROTOCOL:?}]\n"
        );
        fs::write(dir.join("plugin.toml"), manifest)?;
        let mut control = daemon.control().await?;
        let dir = dir.to_str().context("the lab's folders are UTF-8")?.to_owned();
        let mut answers = control.ask(Request::PluginRun { dir }).await?;
        let step = timeout(LOCAL_WITHIN, answers.next()).await.context("the daemon gives no session")??;
        let Step::Item(Document::Session(session)) = step else {
            bail!("the daemon gives no session but {step:?}")
        };
        let variable =
            |name: &str| session.variable(name).with_context(|| format!("no {name} in the session"));
        let endpoint =
            variable("P2POS_ENDPOINT")?.parse().map_err(|error| anyhow!("P2POS_ENDPOINT: {error}"))?;
        let token =
            LaunchToken::from_env_text(variable("P2POS_TOKEN")?).context("P2POS_TOKEN is no token")?;
        let connected = Client::connect_with(Config::new(endpoint, token));
        let client = timeout(LOCAL_WITHIN, connected).await.context("the daemon does not greet")??;
        client.ready();
        Ok(Self { client, _control: control })
    }

    /// Serves the protocol until this is dropped.
    ///
    /// # Errors
    /// The daemon said no.
    pub async fn serve_echo(&self) -> Result<()> {
        let mut listener =
            timeout(LOCAL_WITHIN, self.client.register(PROTOCOL)).await.context("no answer")??;
        tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Some(incoming) = listener.accept().await {
                if streams.len() >= STREAMS_MAX {
                    streams.join_next().await;
                }
                if let Ok(mut stream) = incoming.accept_stream() {
                    // A peer that goes away ends its stream; that is its own affair.
                    streams.spawn(async move { echo(&mut stream).await.ok() });
                }
            }
        });
        Ok(())
    }

    /// Opens the protocol at a peer.
    ///
    /// # Errors
    /// What the daemon says about it.
    pub async fn open(&self, peer: PeerId) -> Result<Stream> {
        self.client.open(peer, PROTOCOL).await.map_err(Into::into)
    }
}

async fn echo(stream: &mut Stream) -> Result<()> {
    while let Some(bytes) = stream.read().await? {
        stream.write(bytes).await?;
    }
    Ok(stream.close_write()?)
}

/// Writes so many bytes of a pattern to an echo, and reads them back.
///
/// # Errors
/// The stream broke, or another byte came back than was sent.
pub async fn echo_back(stream: &mut Stream, bytes: usize, salt: u8) -> Result<()> {
    const PIECE: usize = 16 << 10;
    let mut done = 0;
    while done < bytes {
        let piece: Bytes =
            (done..bytes.min(done + PIECE)).map(|at| pattern(at, salt)).collect::<Vec<_>>().into();
        stream.write(piece.clone()).await?;
        let mut back = 0;
        while back < piece.len() {
            let more = stream.read().await?.context("the echo ended early")?;
            ensure!(piece[back..].starts_with(&more), "byte {} came back changed", done + back);
            back += more.len();
        }
        done += piece.len();
    }
    Ok(())
}

/// The byte at a place of the pattern: one that no shift or swap of pieces reproduces.
fn pattern(at: usize, salt: u8) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9) >> 7;
    mixed.to_le_bytes()[0] ^ salt
}
