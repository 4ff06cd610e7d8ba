//! Both ends of the control socket over a real unix socket, and what garbage does to it (nothing).

#![expect(clippy::unwrap_used, reason = "a test helper that fails should fail the test")]

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use p2pos_control::{
    BindError, CallError, Client, ConnectError, ContactRequest, Document, Done, Exit, Failure, Handler, Items,
};
use p2pos_control::{Request, Server, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Long enough for a loaded machine; nothing here waits for it when all is well.
const SOON: Duration = Duration::from_secs(10);

/// Answers a few requests in ways that tests need.
#[derive(Default)]
struct Toy {
    dropped: Arc<Notify>,
}

/// Tells that the request it lives in was dropped.
struct TellsWhenDropped(Arc<Notify>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn done(what: &str) -> Document {
    Document::Done(Done { what: what.into() })
}

impl Handler for Toy {
    async fn handle(&self, request: Request, items: Items) -> Result<Document, Failure> {
        match request {
            Request::Status => Ok(done("fine")),
            Request::Contacts(ContactRequest::Show { who }) => {
                Err(Failure::not_found(format!("no contact {who:?}")))
            }
            Request::PluginList => panic!("a bug in the daemon"),
            Request::PluginLogs { lines, follow, .. } => {
                for line in 0..lines {
                    items
                        .send(done(&line.to_string()))
                        .await
                        .map_err(|gone| Failure::failed(gone.to_string()))?;
                }
                let _told = TellsWhenDropped(Arc::clone(&self.dropped));
                if follow {
                    std::future::pending::<()>().await;
                }
                Ok(done("end"))
            }
            Request::Contacts(_)
            | Request::PluginInfo { .. }
            | Request::PluginStart { .. }
            | Request::PluginStop { .. }
            | Request::PluginRestart { .. }
            | Request::PluginEnable { .. }
            | Request::PluginDisable { .. }
            | Request::PluginRun { .. }
            | Request::Tool { .. }
            | Request::Explain { .. }
            | Request::Netcheck
            | Request::RelayStatus
            | Request::Ping { .. } => Err(Failure::failed("not in this toy")),
        }
    }
}

struct Daemon {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    toy: Arc<Toy>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn daemon() -> Daemon {
    let dir = private_tempdir();
    let socket = dir.path().join("control.sock");
    let toy = Arc::new(Toy::default());
    let task = tokio::spawn(Server::bind(&socket).unwrap().serve(Arc::clone(&toy)));
    Daemon { _dir: dir, socket, toy, task }
}

fn private_tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

async fn status(socket: &Path) -> Document {
    timeout(SOON, Client::connect(socket).await.unwrap().call(Request::Status)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_question_gets_its_answer_and_the_connection_takes_another() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.call(Request::Status).await.unwrap(), done("fine"));
    }
}

#[tokio::test]
async fn a_failure_keeps_its_kind() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    let error = client.call(Request::Contacts(ContactRequest::Show { who: "bo".into() })).await.unwrap_err();
    let failure = Failure::from(error);
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::NotFound, "no contact \"bo\""));
}

#[tokio::test]
async fn items_come_in_order_before_the_last_word() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    let logs = Request::PluginLogs { plugin: "x".into(), lines: 500, follow: false };
    let mut answers = client.ask(logs).await.unwrap();
    for line in 0..500 {
        let step = answers.next().await.unwrap();
        assert!(matches!(&step, Step::Item(item) if *item == done(&line.to_string())), "{step:?}");
    }
    assert!(matches!(answers.next().await.unwrap(), Step::Done(_)));
}

#[tokio::test]
async fn what_was_asked_is_dropped_when_the_asker_leaves() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    let logs = Request::PluginLogs { plugin: "x".into(), lines: 1, follow: true };
    let mut answers = client.ask(logs).await.unwrap();
    assert!(matches!(answers.next().await.unwrap(), Step::Item(_)));
    drop(client);
    timeout(SOON, daemon.toy.dropped.notified()).await.unwrap();
}

#[tokio::test]
async fn without_a_daemon_the_error_says_so_and_names_the_command() {
    let dir = private_tempdir();
    let error = Client::connect(&dir.path().join("control.sock")).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotRunning(_)));
    let failure = Failure::from(error);
    assert_eq!(failure.exit, Exit::NotRunning);
    assert!(failure.next.iter().any(|line| line.contains("p2pos up")));
}

#[tokio::test]
async fn a_daemon_that_dies_while_asked_is_told_apart_from_one_that_refuses() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    let logs = Request::PluginLogs { plugin: "x".into(), lines: 1, follow: true };
    let mut answers = client.ask(logs).await.unwrap();
    answers.next().await.unwrap();
    daemon.task.abort();
    assert!(matches!(answers.next().await, Err(CallError::Ended)));
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let dir = private_tempdir();
    let socket = dir.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a listener leaves its file behind, as a killed daemon does");
    let first = Server::bind(&socket).unwrap();
    assert!(matches!(Server::bind(&socket), Err(BindError::InUse(_))));
    drop(first);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = private_tempdir();
    let socket = dir.path().join("control.sock");
    std::fs::write(&socket, "precious").unwrap();
    assert!(matches!(Server::bind(&socket), Err(BindError::InTheWay(_))));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn nobody_binds_in_a_directory_that_others_can_enter() {
    let dir = private_tempdir();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Server::bind(&dir.path().join("control.sock")), Err(BindError::Io(_))));
}

#[tokio::test]
async fn garbage_closes_its_own_connection_and_nothing_else() {
    let daemon = daemon();
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let garbage: [Vec<u8>; 6] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0],
        vec![0xff; 64],
        frame(b"not json"),
        frame(b"{\"id\":1}"),
        frame(b""),
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        match timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap() {
            Ok(_) => {}
            // Closed with bytes of ours unread: the kernel says so this way.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        assert!(answer.is_empty(), "{bytes:?} was answered with {answer:?}");
        assert_eq!(status(&daemon.socket).await, done("fine"));
    }
}

#[tokio::test]
async fn a_request_of_another_version_is_answered_by_name() {
    let daemon = daemon();
    let body = br#"{"id":7,"request":{"do":"teleport"}}"#;
    let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
    stream.write_u32(u32::try_from(body.len()).unwrap()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let bytes = stream.read_u32().await.unwrap();
    let mut answer = vec![0; bytes as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["id"], 7);
    assert_eq!(answer["answer"]["failed"]["exit"], "usage");
}

#[tokio::test]
async fn a_request_that_panics_takes_nobody_with_it() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    let mut broken = client.ask(Request::PluginList).await.unwrap();
    assert!(matches!(timeout(SOON, broken.next()).await.unwrap(), Err(CallError::Failed(_))));
    assert_eq!(status(&daemon.socket).await, done("fine"));
}

#[tokio::test]
async fn the_33rd_command_line_is_told_that_it_is_one_too_many() {
    let daemon = daemon();
    let mut crowd = Vec::new();
    for _ in 0..32 {
        let mut client = Client::connect(&daemon.socket).await.unwrap();
        client.call(Request::Status).await.unwrap();
        crowd.push(client);
    }
    let mut late = Client::connect(&daemon.socket).await.unwrap();
    let error = timeout(SOON, late.call(Request::Status)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("32 command lines"), "{error}");
    drop(crowd);
    // The places are free again as soon as the daemon has seen them leave.
    timeout(SOON, async {
        while Client::connect(&daemon.socket).await.unwrap().call(Request::Status).await.is_err() {}
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_request_too_many_is_told_so_and_the_connection_goes_on() {
    const UNDER_WAY: u32 = 8;
    let daemon = daemon();
    let mut socket = UnixStream::connect(&daemon.socket).await.unwrap();
    let ask = |id: u32, request: &str| {
        let text = format!(r#"{{"id":{id},"request":{request}}}"#);
        [u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat()
    };
    let lasting = r#"{"do":"plugin_logs","plugin":"x","lines":0,"follow":true}"#;
    for id in 1..=UNDER_WAY {
        socket.write_all(&ask(id, lasting)).await.unwrap();
    }
    for id in [UNDER_WAY + 1, UNDER_WAY + 2] {
        socket.write_all(&ask(id, r#"{"do":"status"}"#)).await.unwrap();
        let length = timeout(SOON, socket.read_u32()).await.expect("it is read no more").unwrap();
        let mut answer = vec![0; length as usize];
        socket.read_exact(&mut answer).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["id"], id);
        let message = answer["answer"]["failed"]["message"].as_str().unwrap();
        assert_eq!(message, "8 requests are under way on this connection already");
    }
    drop(socket);
    timeout(SOON, daemon.toy.dropped.notified()).await.expect("what was under way goes with the connection");
    status(&daemon.socket).await;
}
