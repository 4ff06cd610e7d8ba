//! Who may connect, and what a session may ask for: real sockets, the Rust SDK and raw bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use common::{LONG, TestHost, config, connect, env, name, peer, until};
use p2pos_host::{Code, ContactInfo, EventKind, Kind, NetworkEvent, PluginId, State};
use p2pos_plugin_protocol::{
    client::{Client, Config, ConnectError, Error},
    driver::CallFailure,
    hello::{CallError, Credential, EndpointSecret},
    limits::PREFIX_BYTES,
    message::{
        Accept, Body, Event, Frame, GoAway, Handshake, LaunchToken, Message, Registration, StreamId,
        Subscribe, Trust,
    },
};

fn socket_path(test: &TestHost) -> PathBuf {
    test.root.path().join("run/plugin.sock")
}

/// The code of the Refused that a connection got.
fn refused(outcome: Result<Client, ConnectError>) -> Code {
    let error = outcome.expect_err("it was let in");
    let ConnectError::Handshake(CallFailure::Call(CallError::Refused(refused))) = error else {
        panic!("{error:?}")
    };
    refused.code
}

fn code(error: Error) -> Code {
    error.code().unwrap_or_else(|| panic!("{error:?}"))
}

/// Says `bytes` and returns everything that comes back until the end.
async fn say(mut socket: impl Read + Write + Send + 'static, bytes: Vec<u8>) -> Vec<u8> {
    let talk = move || {
        let mut answer = Vec::new();
        // A socket that is closed early breaks the write; what matters is what came back.
        let _sent = socket.write_all(&bytes);
        let _read = socket.read_to_end(&mut answer);
        answer
    };
    tokio::time::timeout(LONG, tokio::task::spawn_blocking(talk)).await.expect("it is closed").unwrap()
}

fn hello(token: &str) -> Vec<u8> {
    let mut body = vec![0x08, 1, 0x82, 0x01, 0];
    let mut fields = b"\x0a\x05p2pOS\x10\x01\x18\x01\x32".to_vec();
    fields.push(u8::try_from(token.len()).unwrap());
    fields.extend_from_slice(token.as_bytes());
    body[4] = u8::try_from(fields.len()).unwrap();
    body.extend(fields);
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

#[tokio::test]
async fn a_token_opens_one_session_and_wrong_ones_burn_nothing() {
    let test = TestHost::start().await;
    let grants = p2pos_host::ToolGrants {
        name: "t".into(),
        open: p2pos_host::ToolOpen::Any,
        accept: Vec::new(),
        peers_any: false,
    };
    let launch = test.host.mint_tool(grants).unwrap().env;
    let wrong =
        Config { credential: Credential::Token(LaunchToken::from_random([7; 32])), ..config(&launch) };
    assert_eq!(refused(Client::connect_with(wrong).await), Code::AUTH);
    let mut old = config(&launch);
    (old.hello.min_version, old.hello.max_version) = (7, 9);
    assert_eq!(refused(Client::connect_with(old).await), Code::VERSION);
    let client = connect(&launch).await.unwrap();
    assert!(client.welcome().plugin_id.starts_with("tool:t#"));
    assert_eq!(client.welcome().peer_id, peer(9));
    assert_eq!(refused(connect(&launch).await), Code::AUTH);
}

#[tokio::test]
async fn browsers_tls_clients_and_json_get_not_a_byte() {
    let test = TestHost::start().await;
    let endpoint = test.host.run_dev(&tcp_plugin(&test)).await.unwrap();
    let port: u16 =
        env(&endpoint.env, "P2POS_ENDPOINT").strip_prefix("tcp:127.0.0.1:").unwrap().parse().unwrap();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01".to_vec(),
        b"{\"hello\":1}\n".to_vec(),
        vec![0xff; 100],
    ] {
        let unix = UnixStream::connect(socket_path(&test)).unwrap();
        assert_eq!(say(unix, bytes.clone()).await, b"");
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(say(tcp, bytes).await, b"");
    }
    test.tool(&[]).await;
}

fn tcp_plugin(test: &TestHost) -> PathBuf {
    let dir = test.root.path().join("dev-tcp");
    std::fs::create_dir_all(&dir).unwrap();
    let manifest = "manifest = 1\nid = \"org.tcp\"\nsocket = \"tcp\"\n[run]\nexec = [\"sh\"]\n";
    std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
    dir
}

#[tokio::test]
async fn a_plugin_that_asks_for_tcp_gets_it_and_another_user_does_not_get_in() {
    let test = TestHost::start().await;
    let launch = test.host.run_dev(&tcp_plugin(&test)).await.unwrap();
    let endpoint = env(&launch.env, "P2POS_ENDPOINT").to_owned();
    let file = std::fs::read_to_string(test.root.path().join("run/endpoint.json")).unwrap();
    assert!(file.contains(&endpoint), "{file}");
    if rustix::process::geteuid().is_root() {
        // As `nobody`, with a good token.
        let script = "import encodings.idna, os, socket, sys\nos.setuid(65534)\ns = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
                      s.sendall(bytes.fromhex(sys.argv[2]))\ntry: print(len(s.recv(99)))\nexcept OSError: print(0)";
        let port = endpoint.rsplit_once(':').unwrap().1.to_owned();
        let frame: String =
            hello(env(&launch.env, "P2POS_TOKEN")).iter().map(|byte| format!("{byte:02x}")).collect();
        let flood = "import encodings.idna, os, socket, sys\nos.setuid(65534)\nfor n in range(500): socket.create_connection(('127.0.0.1', int(sys.argv[1])))\nprint(0)";
        for script in [script, flood] {
            let (port, frame) = (port.clone(), frame.clone());
            let run = move || Command::new("python3").args(["-c", script, &port, &frame]).output().unwrap();
            let output = tokio::task::spawn_blocking(run).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
        }
    } else {
        eprintln!("not root: another user's connection was not tried");
    }
    let client = connect(&launch.env).await.expect("the token is still good");
    assert_eq!(client.welcome().plugin_id, "org.tcp");
    drop(client);
    until("the run is over", || test.host.plugin("org.tcp").is_none()).await;
}

#[tokio::test]
async fn whoever_reads_the_endpoint_file_proves_it_and_learns_that_we_are_the_daemon() {
    let test = TestHost::start().await;
    let path = test.root.path().join("run/endpoint.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let secret = file["secret"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..32).map(|n| u8::from_str_radix(&secret[2 * n..2 * n + 2], 16).unwrap()).collect();
    let with = |secret: [u8; 32]| {
        let credential = Credential::Secret { secret: EndpointSecret::new(secret), client_nonce: [3; 32] };
        let endpoint = file["endpoints"][0].as_str().unwrap().parse().unwrap();
        Config { credential, ..Config::new(endpoint, LaunchToken::from_random([0; 32])) }
    };
    let client = Client::connect_with(with(bytes.try_into().unwrap())).await.unwrap();
    assert_eq!(client.contacts().await.unwrap().len(), 1);
    assert_eq!(code(client.register("/x/1").await.unwrap_err()), Code::PERMISSION_DENIED);
    let error = Client::connect_with(with([0; 32])).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(CallFailure::Call(CallError::Impostor))), "{error:?}");
}

#[tokio::test]
async fn a_second_hello_and_words_before_the_first_end_the_connection_with_a_code() {
    let test = TestHost::start().await;
    let launch = test.host.run_dev(&tcp_plugin(&test)).await.unwrap();
    let frame = hello(env(&launch.env, "P2POS_TOKEN"));
    let twice = [frame.clone(), frame].concat();
    let answer = say(UnixStream::connect(socket_path(&test)).unwrap(), twice).await;
    let second = PREFIX_BYTES + u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize;
    assert!(answer.len() > second, "Welcome, then a complaint");
    let told = String::from_utf8_lossy(&answer[second..]);
    assert!(told.contains("PROTOCOL"), "{told}");
    // Ready (tag 28) without Hello.
    let answer = say(UnixStream::connect(socket_path(&test)).unwrap(), vec![0, 0, 0, 3, 0xe2, 0x01, 0]).await;
    assert!(String::from_utf8_lossy(&answer).contains("Welcome"), "{answer:?}");
    // A first frame over 4 KiB.
    let answer = say(UnixStream::connect(socket_path(&test)).unwrap(), vec![0, 0, 0x20, 0]).await;
    assert!(!answer.is_empty(), "103 is told: it may be a plugin");
    test.tool(&[]).await;
}

#[tokio::test]
async fn strangers_are_limited_and_silent_ones_are_let_go() {
    let test = TestHost::start().await;
    let mut silent: Vec<UnixStream> =
        (0..32).map(|_| UnixStream::connect(socket_path(&test)).unwrap()).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let extra = UnixStream::connect(socket_path(&test)).unwrap();
    assert_eq!(say(extra, Vec::new()).await, b"", "closed at once");
    let first = silent.remove(0);
    assert_eq!(say(first, Vec::new()).await, b"", "five seconds without a word");
    test.tool(&[]).await;
}

#[tokio::test]
async fn a_protocol_has_one_owner_and_needs_a_grant() {
    let test = TestHost::start().await;
    let chess = test.dev("org.chess", "[permissions]\nnet.accept = [\"/chess/1\", \"/go/1\"]\n").await;
    let listener = chess.register("/chess/1").await.unwrap();
    assert_eq!(test.host.protocols(), [name("/chess/1")]);
    assert_eq!(test.host.plugin("org.chess").unwrap().protocols, ["/chess/1"]);
    assert_eq!(code(chess.register("/other/1").await.unwrap_err()), Code::PERMISSION_DENIED);
    let for_all = Registration { trust: Trust::Anyone, ..Registration::new(name("/go/1"), Kind::Stream) };
    assert_eq!(code(chess.register_with(for_all).await.unwrap_err()), Code::PERMISSION_DENIED);
    chess.session().notify(Body::GoAway(GoAway { code: Code::SHUTTING_DOWN, reason: "soon gone".into() }));
    until("it serves no more", || test.host.protocols().is_empty()).await;
    chess.register("/go/1").await.unwrap();
    let listener = (listener, chess.register("/chess/1").await);
    let rival = test.dev("org.rival", "[permissions]\nnet.accept = [\"/chess/1\"]\n").await;
    assert_eq!(code(rival.register("/chess/1").await.unwrap_err()), Code::ALREADY_REGISTERED);
    drop(listener);
    drop(chess);
    until("the owner is gone", || test.host.plugin("org.chess").is_none()).await;
    rival.register("/chess/1").await.unwrap();
}

#[tokio::test]
async fn events_begin_with_what_is_and_go_on_with_what_changes() {
    let test = TestHost::start().await;
    let plain = test.dev("org.plain", "").await;
    assert_eq!(code(plain.subscribe(&[EventKind::Peer]).await.unwrap_err()), Code::PERMISSION_DENIED);
    assert_eq!(code(plain.contacts().await.unwrap_err()), Code::PERMISSION_DENIED);
    let client = test.dev("org.events", "[permissions]\ncontacts.read = true\n").await;
    let mut events = client.subscribe(&[EventKind::Peer, EventKind::Contact]).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let event = events.next().await.unwrap();
        seen.push((event.kind, event.what, event.petname));
    }
    let bo = Some("bo".to_owned());
    assert_eq!(
        seen,
        [
            (EventKind::Contact, "added".to_owned(), bo.clone()),
            (EventKind::Peer, "connected".to_owned(), bo.clone())
        ]
    );
    let event = |kind, petname: Option<String>, what| NetworkEvent { kind, peer: peer(1), petname, what };
    test.host.publish(event(EventKind::Path, bo.clone(), "direct"));
    test.host.publish(event(EventKind::Peer, None, "connected"));
    test.host.publish(event(EventKind::Peer, bo, "disconnected"));
    let next = events.next().await.unwrap();
    assert_eq!(
        (next.what.as_str(), next.seq, next.missed),
        ("disconnected", 3, 0),
        "no other kind, no stranger"
    );
    let contact = ContactInfo { peer: peer(2), petname: "mira".into(), is_connected: false };
    test.network.contacts.lock().unwrap().push(contact);
    assert_eq!(client.contacts().await.unwrap().len(), 2);
}

/// The next Event frame; others are passed over.
fn read_event(socket: &mut UnixStream) -> Event {
    loop {
        let mut length = [0; PREFIX_BYTES];
        socket.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        socket.read_exact(&mut body).unwrap();
        if let Message::Body(Body::Event(event)) = Frame::decode(body.into()).unwrap().message {
            return event;
        }
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_read_misses_events_and_is_told_how_many() {
    let test = TestHost::start().await;
    let dir = test.root.path().join("dev-slow");
    std::fs::create_dir_all(&dir).unwrap();
    let manifest =
        "manifest = 1\nid = \"org.slow\"\n[run]\nexec = [\"sh\"]\n[permissions]\ncontacts.read = true\n";
    std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
    let launch = test.host.run_dev(&dir).await.unwrap();
    let mut socket = UnixStream::connect(socket_path(&test)).unwrap();
    socket.write_all(&hello(env(&launch.env, "P2POS_TOKEN"))).unwrap();
    let subscribe = Body::Subscribe(Subscribe { kinds: vec![EventKind::Path] });
    socket.write_all(&Frame { rid: None, message: Message::Body(subscribe) }.to_bytes()).unwrap();
    let first = move || {
        assert_eq!(read_event(&mut socket).what, "lan", "what is comes first");
        socket
    };
    let mut socket = tokio::task::spawn_blocking(first).await.unwrap();
    let event =
        |what| NetworkEvent { kind: EventKind::Path, peer: peer(1), petname: Some("bo".into()), what };
    // The kernel's buffer, the session's backlog and the queue of 1,024 fill up; the rest is lost.
    for _ in 0..200 {
        for _ in 0..100 {
            test.host.publish(event("direct"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reading = tokio::task::spawn_blocking(move || {
        let (mut told, mut missed) = (1, 0);
        loop {
            let event = read_event(&mut socket);
            told += 1;
            missed += u64::from(event.missed);
            assert_eq!(event.seq, told);
            if event.what == "relayed" {
                return (told, missed);
            }
        }
    });
    // Read first, so that the last event is not among the lost ones.
    tokio::time::sleep(Duration::from_millis(300)).await;
    test.host.publish(event("relayed"));
    let (told, missed) = tokio::time::timeout(LONG, reading).await.unwrap().unwrap();
    assert!(missed > 0, "{told} were told");
    // What is (one path), what came, and the last.
    assert_eq!(told + missed, 20_002, "{told} + {missed}: none vanishes untold");
}

#[tokio::test]
async fn a_disabled_plugin_loses_its_session_and_its_protocols_at_once() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nplugin.register('/mini/1')\nsay('serving')\nuntil_shutdown(plugin)\n";
    test.install("org.mini", "[permissions]\nnet.accept = [\"/mini/1\"]\n", code).await;
    test.host.enable("org.mini").await.unwrap();
    test.logged("org.mini", "out   serving").await;
    assert_eq!(test.host.protocols(), [name("/mini/1")]);
    test.host.disable("org.mini").await.unwrap();
    assert_eq!(test.state("org.mini"), State::Disabled);
    assert!(test.host.protocols().is_empty());
    let refusal = test.host.offer(test.offer("/mini/1")).await.unwrap_err();
    assert_eq!(refusal.code, Code::PROTOCOL_NOT_SUPPORTED);
}

/// Reads frames until the connection ends, and tells the last but for Pings: how the session ended, as it was told.
fn last_word(mut socket: impl Read) -> Message {
    let mut last = None;
    loop {
        let mut length = [0; PREFIX_BYTES];
        if socket.read_exact(&mut length).is_err() {
            return last.expect("the daemon said something");
        }
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        socket.read_exact(&mut body).unwrap();
        last = Some(Frame::decode(body.into()).unwrap().message);
    }
}

/// A plugin that never ends by itself; its log tells how its session ended.
const STUBBORN: &str = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\nplugin = started()\n\
                        try:\n    while True:\n        tag, body, rid = plugin.receive()\n        \
                        say(f'heard {tag} {body.get(1, 0)}')\nexcept EOFError:\n    say('over')\n\
                        import time\ntime.sleep(60)\n";

#[tokio::test]
async fn only_what_the_user_took_back_hears_107() {
    let test = TestHost::start().await;
    for id in ["org.disabled", "org.removed", "org.stopped"] {
        test.install(id, "stop_timeout = \"100ms\"\n", STUBBORN).await;
        test.host.enable(id).await.unwrap();
    }
    test.host.disable("org.disabled").await.unwrap();
    test.host.stop_plugin("org.stopped").await.unwrap();
    std::fs::rename(test.plugin_dir("org.removed"), test.root.path().join("away")).unwrap();
    until("the removed one is gone", || test.host.plugin("org.removed").is_none()).await;
    for id in ["org.disabled", "org.removed"] {
        test.logged(id, "out   heard 36").await;
        test.logged(id, "out   heard 15 107").await;
    }
    let log = test.log_text("org.stopped").await;
    assert!(log.contains("heard 36") && !log.contains("107"), "{log}");
}

#[tokio::test]
async fn an_authors_run_that_is_over_is_no_revocation() {
    let test = TestHost::start().await;
    let client = test.dev("org.mine", "").await;
    test.host.end_dev("org.mine").await.unwrap();
    assert_eq!(client.session().ended().await.code, Code::SHUTTING_DOWN);
}

#[tokio::test]
async fn a_refusal_is_heard_behind_whatever_was_said_too_early() {
    let test = TestHost::start().await;
    let launch = test.host.run_dev(&tcp_plugin(&test)).await.unwrap();
    let port = env(&launch.env, "P2POS_ENDPOINT").strip_prefix("tcp:127.0.0.1:").unwrap().to_owned();
    let data = Frame { rid: None, message: Message::Body(Body::Ready) }.to_bytes().to_vec();
    // More than a socket's buffer: whoever is not listened to cannot even say it all.
    let early = [hello(&"0".repeat(64)), data.repeat(60_000)].concat();
    for round in 0..20 {
        let answer = if round % 2 == 0 {
            let socket = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
            refused_by(socket.try_clone().unwrap(), socket, early.clone()).await
        } else {
            let socket = UnixStream::connect(socket_path(&test)).unwrap();
            refused_by(socket.try_clone().unwrap(), socket, early.clone()).await
        };
        let Message::Handshake(Handshake::Refused(refused)) = answer else { panic!("{answer:?}") };
        assert_eq!(refused.code, Code::AUTH);
        assert!(refused.message.ends_with("[S-HELLO-3]"), "{}", refused.message);
    }
    connect(&launch.env).await.expect("a wrong token burns nothing");
}

/// Says all of it, and only then listens, as many simple plugins do.
async fn refused_by(
    mut write: impl Write + Send + 'static,
    read: impl Read + Send + 'static,
    early: Vec<u8>,
) -> Message {
    let talk = move || {
        write.write_all(&early).expect("the daemon listens to the end of it");
        last_word(read)
    };
    tokio::time::timeout(LONG, tokio::task::spawn_blocking(talk)).await.expect("it is answered").unwrap()
}

#[tokio::test]
async fn whoever_breaks_a_rule_finds_it_in_the_plugins_log() {
    let test = TestHost::start().await;
    let client = test.dev("org.wrong", "").await;
    client.session().notify(Body::Accept(Accept { stream: StreamId::new(78).unwrap() }));
    assert_eq!(client.session().ended().await.code, Code::PROTOCOL);
    until("the run is over", || test.host.plugin("org.wrong").is_none()).await;
    let id = PluginId::parse("org.wrong").unwrap();
    let lines = test.host.past_logs(&id, 99).await.unwrap();
    let told: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let told = told.iter().find(|line| line.starts_with("its session was ended: 100 PROTOCOL")).unwrap();
    assert!(told.contains("never opened [S-STREAM-9]"), "{told}");
}

#[tokio::test]
async fn a_plugin_that_is_cut_off_for_not_reading_is_told_so_in_its_log() {
    let test = TestHost::start().await;
    let dir = test.root.path().join("dev-deaf");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("plugin.toml"), "manifest = 1\nid = \"org.deaf\"\n[run]\nexec = [\"sh\"]\n")
        .unwrap();
    let launch = test.host.run_dev(&dir).await.unwrap();
    let mut socket = UnixStream::connect(socket_path(&test)).unwrap();
    let words = hello(env(&launch.env, "P2POS_TOKEN"));
    let ping = Frame { rid: None, message: Message::Ping(u64::MAX) }.to_bytes().to_vec();
    let asking = tokio::task::spawn_blocking(move || {
        let mut write = socket.try_clone().unwrap();
        // Pongs pile up; the daemon stops reading us once it has had enough.
        let _broken = write.write_all(&[words, ping.repeat(400_000)].concat());
        let mut rest = Vec::new();
        let _reset = socket.read_to_end(&mut rest);
    });
    until("the run is over", || test.host.plugin("org.deaf").is_none()).await;
    drop(asking);
    let lines = test.host.past_logs(&PluginId::parse("org.deaf").unwrap(), 99).await.unwrap();
    let is_told = |text: &str| text.contains("106 SLOW_CONSUMER") && text.contains("[S-FRAME-6]");
    assert!(lines.iter().any(|line| is_told(&line.text)), "{lines:?}");
}
