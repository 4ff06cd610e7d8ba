//! The Rust SDK against a daemon that is played here, over the sockets that a real one has.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2pos_identity::{PeerId, ProtocolName};
use p2pos_plugin_protocol::{
    client::{Client, Config, ConnectError, Endpoint, Error, Listener, OpenRequest},
    code::{Code, End},
    driver::{self, Inbound, Inbox, Session, Settings},
    hello::{Acceptor, AcceptorConfig, Opening},
    limits::Limits,
    message::{
        Attachment, Body, Cause, Contact, ErrorReply, Event, EventKind, GoAway, Health, Incoming, Kind,
        LaunchToken, Level, Open, Opened, PathKind, Refused, Registration, Rid, Shutdown, StreamClosed,
        StreamId, Ticket, Trust, Welcome,
    },
    streams::How,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

#[tokio::test]
async fn a_registered_protocol_is_accepted_served_and_closed() {
    let (client, mut daemon) = connected().await;
    let mut listener = registered(&client, &mut daemon, "/echo/1").await;
    let mut remote = daemon.incoming("/echo/1");
    remote.send.write(Bytes::from_static(b"hello")).await.unwrap();
    let incoming = soon(listener.accept()).await.unwrap();
    assert_eq!((incoming.info().peer, incoming.info().petname.as_deref()), (peer(), Some("bo")));
    let mut stream = incoming.accept_stream().unwrap();
    assert_eq!(soon(stream.read()).await.unwrap().unwrap(), "hello");
    stream.write(&b"back"[..]).await.unwrap();
    stream.close_write().unwrap();
    remote.send.finish().unwrap();
    assert_eq!(soon(remote.recv.read_chunk()).await.unwrap().unwrap(), "back");
    assert_eq!(soon(remote.recv.read_chunk()).await, Ok(None));
    assert_eq!(soon(stream.read()).await.unwrap(), None);
    let facts = soon(stream.closed()).await.unwrap();
    assert_eq!(facts, StreamClosed { cause: Cause::Finished, end: None, bytes_in: 5, bytes_out: 4 });
}

#[tokio::test]
async fn a_peer_that_gave_up_before_it_was_accepted_does_not_end_who_accepts() {
    let (client, mut daemon) = connected().await;
    let mut listener = registered(&client, &mut daemon, "/echo/1").await;
    let mut remote = daemon.incoming("/echo/1");
    remote.send.write(Bytes::from_static(b"never mind")).await.unwrap();
    remote.send.reset(End::app(3));
    let incoming = soon(listener.accept()).await.unwrap();
    // Whatever the daemon says next has come behind the stream's end.
    let answer = async {
        let inbound = daemon.next().await;
        daemon.session.reply(inbound.rid.unwrap(), Body::Contacts(Vec::new()));
    };
    assert_eq!(tokio::join!(client.contacts(), answer).0.unwrap(), []);
    let mut stream = incoming.accept_stream().unwrap();
    let reset =
        |ended| matches!(ended, Error::Stream(end) if (end.how, end.end) == (How::Reset, End::app(3)));
    assert!(reset(soon(stream.read()).await.unwrap_err()));
    assert!(reset(soon(stream.write(&b"back"[..])).await.unwrap_err()));
    drop(stream);
    assert!(client.session().end().is_none());
}

#[tokio::test]
async fn a_stream_is_opened_used_as_async_io_and_reset() {
    let (client, mut daemon) = connected().await;
    let opening = client.open(peer(), "/echo/1");
    let serve = async {
        let (rid, open) = daemon.open().await;
        let halves = daemon.session.adopt_stream(open.stream).unwrap();
        daemon.session.reply(rid, opened(open.stream, None));
        halves
    };
    let (stream, (mut send, mut recv)) = tokio::join!(opening, serve);
    let mut stream = stream.unwrap();
    assert_eq!((stream.info().protocol.as_str(), stream.info().path), ("/echo/1", PathKind::Lan));
    stream.write_all(&[1; 100_000]).await.unwrap();
    let mut got = 0;
    while got < 100_000 {
        got += soon(recv.read_chunk()).await.unwrap().unwrap().len();
    }
    send.write(Bytes::from_static(b"12345678")).await.unwrap();
    let mut eight = [0; 8];
    stream.read_exact(&mut eight[..3]).await.unwrap();
    stream.read_exact(&mut eight[3..]).await.unwrap();
    assert_eq!(&eight, b"12345678");
    stream.reset(77);
    assert_eq!(soon(recv.read_chunk()).await.unwrap_err().end, End::app(77));
}

#[tokio::test]
async fn a_raw_stream_has_a_socket_of_its_own_and_an_end_that_can_be_trusted() {
    let (client, mut daemon) = connected().await;
    let request = OpenRequest::new(peer(), name("/bulk/1"));
    let opening = client.open_raw(request);
    let serve = async {
        let (rid, open) = daemon.open().await;
        assert_eq!(open.attachment, Attachment::Socket);
        let detached = daemon.session.adopt_detached(open.stream).unwrap();
        daemon.session.reply(rid, opened(open.stream, Some(Ticket::from_random([8; 16]))));
        let (ticket, socket) = soon(daemon.attached.recv()).await.unwrap();
        assert!(ticket.matches(&Ticket::from_random([8; 16])));
        (detached, socket)
    };
    let (stream, (detached, mut socket)) = tokio::join!(opening, serve);
    let mut stream = stream.unwrap();
    stream.write_all(b"raw bytes").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(socket.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"raw bytes");
    socket.write_all(b"answer").await.unwrap();
    drop(socket);
    let facts = StreamClosed { cause: Cause::Finished, end: None, bytes_in: 6, bytes_out: 9 };
    detached.close(facts);
    let mut got = Vec::new();
    soon(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"answer");
    assert_eq!(soon(stream.closed()).await, Ok(facts));
}

#[tokio::test]
async fn a_raw_stream_that_is_dropped_in_the_middle_is_reset() {
    let (client, mut daemon) = connected().await;
    let opening = client.open_raw(OpenRequest::new(peer(), name("/bulk/1")));
    let serve = async {
        let (rid, open) = daemon.open().await;
        let detached = daemon.session.adopt_detached(open.stream).unwrap();
        daemon.session.reply(rid, opened(open.stream, Some(Ticket::from_random([8; 16]))));
        (detached, soon(daemon.attached.recv()).await.unwrap())
    };
    let (stream, (detached, _socket)) = tokio::join!(opening, serve);
    drop(stream.unwrap());
    let end = soon(detached.ended()).await;
    assert_eq!((end.how, end.end.code), (How::Reset, Code::APP));
}

#[tokio::test]
async fn datagrams_go_both_ways() {
    let (client, mut daemon) = connected().await;
    let opening = client.open_datagrams(OpenRequest::new(peer(), name("/game/1")));
    let serve = async {
        let (rid, open) = daemon.open().await;
        assert_eq!(open.kind, Kind::Datagram);
        let flow = daemon.session.adopt_flow(open.stream).unwrap();
        daemon.session.reply(rid, opened(open.stream, None));
        flow
    };
    let (datagrams, flow) = tokio::join!(opening, serve);
    let datagrams = datagrams.unwrap();
    assert_eq!(datagrams.bytes_max(), 1200);
    datagrams.send(&b"ping"[..]).unwrap();
    assert_eq!(soon(flow.recv()).await.unwrap(), "ping");
    flow.send(Bytes::from_static(b"pong")).unwrap();
    assert_eq!(soon(datagrams.recv()).await.unwrap(), "pong");
    datagrams.close();
    assert_eq!(soon(flow.recv()).await.unwrap_err().how, How::Reset);
}

#[tokio::test]
async fn nobody_listening_and_nobody_wanting_are_told_apart() {
    let (client, mut daemon) = connected().await;
    let unheard = daemon.incoming("/other/1");
    assert_eq!(soon(unheard.answer).await.unwrap_err().code(), Code::REFUSED);
    let mut listener = registered(&client, &mut daemon, "/echo/1").await;
    let busy = daemon.incoming("/echo/1");
    soon(listener.accept()).await.unwrap().reject(true, "busy");
    assert_eq!(soon(busy.answer).await.unwrap_err().code(), Code::NOT_READY);
    let unwanted = daemon.incoming("/echo/1");
    drop(soon(listener.accept()).await.unwrap());
    assert_eq!(soon(unwanted.answer).await.unwrap_err().code(), Code::REFUSED);
    drop(listener);
    let Body::Unregister(unregister) = daemon.next().await.body else { panic!("no Unregister") };
    assert_eq!(unregister.names, [name("/echo/1")]);
}

/// Else each would be owed an answer for ever, and after a thousand of them every request be refused.
#[tokio::test]
async fn who_waits_at_a_listener_that_goes_is_refused() {
    let (client, mut daemon) = connected().await;
    let listener = registered(&client, &mut daemon, "/echo/1").await;
    let waiting = [(); 3].map(|()| daemon.incoming("/echo/1"));
    // Its answer comes behind theirs on the way to the listener.
    let unheard = daemon.incoming("/other/1");
    assert_eq!(soon(unheard.answer).await.unwrap_err().code(), Code::REFUSED);
    drop(listener);
    for offer in waiting {
        assert_eq!(soon(offer.answer).await.unwrap_err().code(), Code::REFUSED);
    }
}

#[tokio::test]
async fn what_the_daemon_refuses_comes_with_code_and_hint() {
    let (client, mut daemon) = connected().await;
    let opening = client.open(peer(), "/echo/1");
    let serve = async {
        let (rid, _) = daemon.open().await;
        daemon.session.reply(rid, Body::Error(ErrorReply::new(Code::OFFLINE, "bo is not there")));
    };
    let (stream, ()) = tokio::join!(opening, serve);
    let error = stream.unwrap_err();
    assert_eq!(error.code(), Some(Code::OFFLINE));
    assert!(error.to_string().contains("bo is not there"), "{error}");
    assert!(matches!(client.open(peer(), "no name").await, Err(Error::Name(_))));
}

#[tokio::test]
async fn notes_requests_and_events_arrive() {
    let (client, mut daemon) = connected().await;
    client.ready();
    client.log(Level::Warn, "careful");
    client.status(Health::Degraded, "half of it");
    assert_eq!(daemon.next().await.body, Body::Ready);
    assert!(matches!(daemon.next().await.body, Body::Log(log) if log.text == "careful"));
    assert!(matches!(daemon.next().await.body, Body::Status(status) if status.health == Health::Degraded));

    let contact = Contact { peer: peer(), petname: "bo".to_owned(), is_connected: true };
    let serve = async {
        let asked = daemon.next().await;
        daemon.session.reply(asked.rid.unwrap(), Body::Contacts(vec![contact.clone()]));
        let asked = daemon.next().await;
        daemon.session.reply(asked.rid.unwrap(), Body::Done);
    };
    let ask =
        async { (client.contacts().await.unwrap(), client.subscribe(&[EventKind::Peer]).await.unwrap()) };
    let ((contacts, mut events), ()) = tokio::join!(ask, serve);
    assert_eq!(contacts, [contact]);
    let event = Event {
        seq: 1,
        kind: EventKind::Peer,
        missed: 0,
        peer: peer(),
        petname: None,
        what: "connected".to_owned(),
    };
    daemon.session.notify(Body::Event(event.clone()));
    assert_eq!(soon(events.next()).await, Some(event));
}

#[tokio::test]
async fn a_plugin_that_logs_without_end_loses_lines_and_not_its_session() {
    let (client, mut daemon) = connected().await;
    for n in 0..30_000 {
        client.log(Level::Debug, format!("{n}: {}", "x".repeat(100)));
    }
    while timeout(Duration::from_millis(100), daemon.inbox.recv()).await.is_ok() {}
    client.log(Level::Debug, "at last");
    let Body::Log(log) = daemon.next().await.body else { panic!("no Log") };
    assert!(
        log.text.starts_with("at last (") && log.text.ends_with("lines before this one were lost)"),
        "{log:?}"
    );
    assert_eq!((client.session().end(), daemon.session.end()), (None, None));
}

#[tokio::test]
async fn the_wish_to_end_is_heard_and_so_is_the_end() {
    let (client, daemon) = connected().await;
    let told = Shutdown { deadline: Duration::from_secs(5), reason: "the user stopped it".to_owned() };
    daemon.session.notify(Body::Shutdown(told.clone()));
    assert_eq!(soon(client.wait_shutdown()).await, told);
    let mut listener = {
        let (client, mut daemon) = connected().await;
        let listener = registered(&client, &mut daemon, "/echo/1").await;
        let waiting = tokio::spawn(async move { client.wait_shutdown().await });
        daemon.session.close(End::new(Code::SHUTTING_DOWN), "bye");
        drop(daemon);
        assert_eq!(soon(waiting).await.unwrap().deadline, Duration::ZERO);
        listener
    };
    assert!(soon(listener.accept()).await.is_none());
}

#[tokio::test]
async fn the_session_ends_with_the_last_thing_that_uses_it() {
    let (client, mut daemon) = connected().await;
    let mut listener = registered(&client, &mut daemon, "/echo/1").await;
    let mut remote = daemon.incoming("/echo/1");
    let stream = soon(listener.accept()).await.unwrap().accept_stream().unwrap();
    drop((client, listener));
    assert_eq!(daemon.session.end(), None, "the stream is still there");
    drop(stream);
    assert!(matches!(daemon.next().await.body, Body::Unregister(_)));
    assert!(matches!(daemon.next().await.body, Body::GoAway(GoAway { code: Code::SHUTTING_DOWN, .. })));
    assert!(soon(remote.recv.read_chunk()).await.is_err());
    assert_eq!(soon(daemon.session.ended()).await.code, Code::PLUGIN_GONE);
}

#[tokio::test]
async fn a_plugin_on_tcp_gets_in_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let daemon = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = socket.into_split();
        let mut buffer = BytesMut::new();
        let mut acceptor = acceptor();
        let opening = driver::greet(&mut read, &mut write, &mut buffer, &mut acceptor).await.unwrap();
        let Opening::Token { token, .. } = opening else { panic!("no token") };
        assert!(token.matches(&self::token()));
        let refused = Refused::new(Code::REVOKED, "not any more");
        write.write_all(&acceptor.refuse(refused)).await.unwrap();
    });
    let endpoint: Endpoint = format!("tcp:{address}").parse().unwrap();
    let error = Client::connect_with(Config::new(endpoint, token())).await.unwrap_err();
    assert!(error.to_string().contains("107 REVOKED"), "{error}");
    daemon.await.unwrap();
}

#[test]
fn an_endpoint_elsewhere_than_on_this_machine_is_none() {
    for good in ["unix:/run/user/1000/p2pos/plugin.sock", "tcp:127.0.0.1:4711"] {
        assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "unix:",
        "unix:plugin.sock",
        "tcp:192.0.2.1:4711",
        "tcp:localhost:1",
        "http://127.0.0.1:1",
        "tcp:127.0.0.1",
    ] {
        assert!(matches!(bad.parse::<Endpoint>(), Err(ConnectError::Endpoint(_))), "{bad}");
    }
}

#[tokio::test]
async fn a_daemon_that_does_not_run_is_named() {
    let endpoint = Endpoint::Unix("/nonexistent/p2pos/plugin.sock".into());
    let error = Client::connect_with(Config::new(endpoint, token())).await.unwrap_err();
    assert!(error.to_string().contains("unix:/nonexistent/p2pos/plugin.sock"), "{error}");
    assert!(error.to_string().contains("p2pos up"), "{error}");
}

// ---- The daemon that is played ----

/// A daemon's side of one session, and the sockets that attach beside it.
struct Daemon {
    session: Session,
    inbox: Inbox,
    attached: mpsc::Receiver<(Ticket, UnixStream)>,
    _directory: tempfile::TempDir,
}

async fn connected() -> (Client, Daemon) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (sessions_in, mut sessions) = mpsc::channel(1);
    let (attached_in, attached) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            serve(socket, &sessions_in, &attached_in).await;
        }
    });
    let client = soon(Client::connect_with(Config::new(Endpoint::Unix(path), token()))).await.unwrap();
    assert_eq!(client.welcome().plugin_id, "org.example.test");
    let (session, inbox) = soon(sessions.recv()).await.unwrap();
    (client, Daemon { session, inbox, attached, _directory: directory })
}

async fn serve(
    mut socket: UnixStream,
    sessions: &mpsc::Sender<(Session, Inbox)>,
    attached: &mpsc::Sender<(Ticket, UnixStream)>,
) {
    let mut buffer = BytesMut::new();
    let mut acceptor = acceptor();
    let (mut read, mut write) = socket.split();
    match driver::greet(&mut read, &mut write, &mut buffer, &mut acceptor).await.unwrap() {
        Opening::Token { hello, .. } => {
            socket.write_all(&acceptor.welcome(&hello, welcome())).await.unwrap();
            let (read, write) = socket.into_split();
            let settings = Settings::daemon(&Limits::default(), &hello);
            sessions.send(driver::spawn(read, write, buffer, settings)).await.unwrap();
        }
        Opening::Attach { ticket } => {
            socket.write_all(&acceptor.attached()).await.unwrap();
            attached.send((ticket, socket)).await.unwrap();
        }
        Opening::Proven { .. } => panic!("nobody here knows the secret"),
    }
}

impl Daemon {
    async fn next(&mut self) -> Inbound {
        soon(self.inbox.recv()).await.unwrap()
    }

    async fn open(&mut self) -> (Rid, Open) {
        let inbound = self.next().await;
        let Body::Open(open) = inbound.body else { panic!("no Open: {:?}", inbound.body) };
        (inbound.rid.unwrap(), open)
    }

    fn incoming(&self, protocol: &str) -> driver::OpeningStream {
        let incoming = |stream| {
            Body::Incoming(Incoming {
                stream,
                peer: peer(),
                protocol: name(protocol),
                kind: Kind::Stream,
                path: PathKind::Direct,
                petname: Some("bo".to_owned()),
                is_contact: true,
                ticket: None,
                datagram_max: 0,
            })
        };
        self.session.open_stream(incoming).unwrap()
    }
}

async fn registered(client: &Client, daemon: &mut Daemon, protocol: &str) -> Listener {
    let registration =
        Registration { trust: Trust::Anyone, ..Registration::new(name(protocol), Kind::Stream) };
    let serve = async {
        let asked = daemon.next().await;
        assert!(
            matches!(&asked.body, Body::Register(register) if register.protocols == [registration.clone()])
        );
        daemon.session.reply(asked.rid.unwrap(), Body::Done);
    };
    let (listener, ()) = tokio::join!(client.register_with(registration.clone()), serve);
    listener.unwrap()
}

fn opened(stream: StreamId, ticket: Option<Ticket>) -> Body {
    Body::Opened(Opened {
        stream,
        protocol: name("/echo/1"),
        path: PathKind::Lan,
        ticket,
        datagram_max: 1200,
    })
}

fn acceptor() -> Acceptor {
    Acceptor::new(AcceptorConfig { endpoint_secret: None, server_nonce: [0; 32] })
}

fn token() -> LaunchToken {
    LaunchToken::from_random([4; 32])
}

fn name(text: &str) -> ProtocolName {
    ProtocolName::parse(text).unwrap()
}

fn peer() -> PeerId {
    // The base point of Ed25519: a well-formed key that nobody needs to know a secret for.
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    PeerId::from_bytes(bytes).unwrap()
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: Vec::new(),
        daemon: "played".to_owned(),
        plugin_id: "org.example.test".to_owned(),
        instance_id: "1".to_owned(),
        peer_id: peer(),
        grants: Vec::new(),
        limits: Limits::default(),
    }
}

async fn soon<F: IntoFuture>(work: F) -> F::Output {
    timeout(Duration::from_secs(20), work).await.expect("it must not hang")
}
