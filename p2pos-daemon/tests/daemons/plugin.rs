//! Plugins that the tests play themselves: sessions at a real daemon, in the way of an author who develops one.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use p2pos_control::{Client as Control, Document, Request, Step};
use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::{
    client::{Client, Config, Error, Listener, OpenRequest, RawStream, Stream},
    code::End,
    message::{Attachment, Cause, Kind, LaunchToken, Registration, StreamClosed},
    streams::How,
};
use tokio::time::timeout;

use crate::daemon::{User, write_plugin};

/// What the tests' own plugins speak.
pub(crate) const PROTOCOL: &str = "/t/1";
/// The same with a socket for each stream at the plugin that serves it.
pub(crate) const RAW_PROTOCOL: &str = "/t-raw/1";

/// Long enough for a machine that does something else too.
const SOON: Duration = Duration::from_secs(20);

/// A plugin whose program is the test.
pub(crate) struct Plugin {
    pub(crate) client: Client,
    /// The daemon forgets the plugin with this connection.
    _control: Control,
}

impl Plugin {
    /// A session at the user's daemon, with the rights that the manifest of a plugin called `id` asks for.
    pub(crate) async fn at(user: &User, id: &str) -> Self {
        let dir = user.data_dir().join("dev").join(id);
        let all = [PROTOCOL, RAW_PROTOCOL, "/echo/1", "/sink/1", "/source/1"];
        let rights = format!("net.open = {all:?}\nnet.accept = {all:?}\n");
        write_plugin(&dir, id, &format!("[run]\nexec = [\"true\"]\n[permissions]\n{rights}"), &[]);
        Self::in_dir(user, &dir).await
    }

    async fn in_dir(user: &User, dir: &Path) -> Self {
        let mut control = Control::connect(&user.file("run/control.sock")).await.unwrap();
        let dir = fs::canonicalize(dir).unwrap().to_str().unwrap().to_owned();
        let mut answers = control.ask(Request::PluginRun { dir }).await.unwrap();
        let Step::Item(Document::Session(session)) = answers.next().await.unwrap() else {
            panic!("the daemon gives no session");
        };
        let endpoint = session.variable("P2POS_ENDPOINT").unwrap().parse().unwrap();
        let token = LaunchToken::from_env_text(session.variable("P2POS_TOKEN").unwrap()).unwrap();
        let client = Client::connect_with(Config::new(endpoint, token)).await.unwrap();
        client.ready();
        Self { client, _control: control }
    }

    pub(crate) async fn open(&self, at: &User, protocol: &str) -> Result<Stream, Error> {
        soon(self.client.open(at.id(), protocol)).await
    }

    /// Opens as often as it takes until nobody says "not now".
    pub(crate) async fn open_at_last(&self, at: &User, protocol: &str) -> Stream {
        let begun = Instant::now();
        loop {
            let error = match timeout(SOON, self.client.open(at.id(), protocol)).await {
                Ok(Ok(stream)) => return stream,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if begun.elapsed() > SOON {
                let serving = at.run(&["plugins", "info", "echo", "--json"]);
                panic!("no {protocol} for {SOON:?}: {error}; {}", String::from_utf8_lossy(&serving.stdout));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Two users who know each other, and a plugin at each.
pub(crate) struct Pair {
    pub(crate) a: User,
    pub(crate) b: User,
    pub(crate) here: Plugin,
    pub(crate) there: Plugin,
    pub(crate) listener: Listener,
}

impl Pair {
    pub(crate) async fn up() -> Self {
        let (a, b) = User::pair();
        let here = Plugin::at(&a, "here").await;
        let there = Plugin::at(&b, "there").await;
        let listener = there.client.register(PROTOCOL).await.unwrap();
        Self { a, b, here, there, listener }
    }

    /// Another plugin instead of the one that has left.
    pub(crate) async fn replace_there(&mut self) {
        self.there = Plugin::at(&self.b, "there-2").await;
        self.listener = self.there.client.register(PROTOCOL).await.unwrap();
    }

    /// Both ends of a new stream.
    pub(crate) async fn stream(&mut self) -> (Stream, Stream) {
        let opened = self.here.open(&self.b, PROTOCOL);
        let accepted = async { soon(self.listener.accept()).await.unwrap().accept_stream().unwrap() };
        let (opened, accepted) = tokio::join!(opened, accepted);
        (opened.unwrap(), accepted)
    }

    /// Both ends of a new stream with a socket of its own at each of them.
    pub(crate) async fn raw_stream(&self) -> (RawStream, RawStream) {
        let name = ProtocolName::parse(RAW_PROTOCOL).unwrap();
        let mut registration = Registration::new(name.clone(), Kind::Stream);
        registration.attachment = Attachment::Socket;
        let mut listener = self.there.client.register_with(registration).await.unwrap();
        let opened = soon(self.here.client.open_raw(OpenRequest::new(self.b.id(), name)));
        let accepted = async { soon(listener.accept()).await.unwrap().accept_raw().await.unwrap() };
        let (opened, accepted) = tokio::join!(opened, accepted);
        (opened.unwrap(), accepted)
    }
}

/// Waits for something that is due.
pub(crate) async fn soon<T>(due: impl Future<Output = T>) -> T {
    timeout(SOON, due).await.expect("due, and not there after 20 s")
}

/// Reads to the end of a stream that ends well.
pub(crate) async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(more) = soon(stream.read()).await.unwrap() {
        all.extend_from_slice(&more);
    }
    all
}

/// Reads so many bytes.
pub(crate) async fn read_exactly(stream: &mut Stream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        all.extend_from_slice(&soon(stream.read()).await.unwrap().expect("the stream ended too early"));
    }
    all
}

/// Reads until the stream breaks, and says how it did.
pub(crate) async fn break_of(stream: &mut Stream) -> (How, End) {
    loop {
        match soon(stream.read()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if all were well"),
            Err(Error::Stream(end)) => return (end.how, end.end),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The other plugin answers what we say.
pub(crate) async fn assert_echoes(stream: &mut Stream) {
    stream.write(&b"are you there?"[..]).await.unwrap();
    assert_eq!(read_exactly(stream, 14).await, b"are you there?");
}

pub(crate) fn assert_closed(closed: &StreamClosed, cause: Cause, end: Option<End>) {
    assert_eq!((closed.cause, closed.end), (cause, end), "{closed:?}");
}
