//! Who has no business with a daemon: bytes that mean nothing on each of its sockets, and other users of the machine.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{
    daemon::{User, eventually, resident_kib},
    plugin::{Plugin, assert_echoes},
};

/// How long a socket is listened to for an answer that must not come.
const LISTENED: Duration = Duration::from_secs(1);
/// How long a stream socket may take to be closed: what might still become a frame has its deadline of 5 s, and a machine its load.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// `nobody` on every system.
const ANOTHER_UID: u32 = 65_534;

/// What scanners, browsers and broken programs say first.
fn openings() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Vec::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..1200 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        random.push(state.to_be_bytes()[0]);
    }
    random[0] = 0x7f;
    let mut tls = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    tls.resize(517, 0x41);
    // Long header, version 1, two connection ids of eight bytes, no token, a length, and a body; padded to 1200 bytes.
    let mut initial =
        vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0x44, 0x96];
    initial.resize(1200, 0x5a);
    let mut unknown_version = initial.clone();
    unknown_version[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    let mut short_header = vec![0x40];
    short_header.resize(1200, 0x33);
    vec![
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS ClientHello", tls),
        ("a QUIC v1 Initial", initial),
        ("a QUIC Initial of an unknown version", unknown_version),
        ("a QUIC packet of an unknown connection", short_header),
        ("random bytes", random),
        ("JSON", b"{\"jsonrpc\": \"2.0\", \"method\": \"stop\", \"id\": 1}\n".to_vec()),
        ("a STUN request", [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[9; 12]].concat()),
        ("one zero", vec![0]),
        ("nothing", Vec::new()),
    ]
}

/// Sends and reads to the end; what came back.
fn say(mut socket: impl Read + Write, bytes: &[u8]) -> Vec<u8> {
    // It may have hung up already, which is its good right.
    drop(socket.write_all(bytes));
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return answer,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

fn unix(path: &Path) -> UnixStream {
    let socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(CLOSED_WITHIN)).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_udp_port_answers_no_stranger_with_a_single_byte() {
    let (a, b) = User::pair();
    b.run_echo();
    let here = Plugin::at(&a, "here").await;
    let mut stream = here.open(&b, "/echo/1").await.unwrap();
    let before = resident_kib(b.pid());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(LISTENED)).unwrap();
    stranger.connect(b.address()).unwrap();
    for (_, bytes) in openings() {
        for length in [bytes.len(), bytes.len() / 2, bytes.len().min(21)] {
            stranger.send(&bytes[..length]).unwrap();
        }
    }
    for first in 0..=u8::MAX {
        stranger.send(&[&[first; 1][..], &[0; 1199]].concat()).unwrap();
        stranger.send(&[first]).unwrap();
    }
    let mut answer = [0; 2048];
    let heard = stranger.recv(&mut answer);
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock, "the port answered");
    assert_echoes(&mut stream).await;
    assert_eq!(b.json(&["status"])["pid"], b.pid());
    let after = resident_kib(b.pid());
    assert!(after < before + (8 << 10), "{before} KiB grew to {after} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugin_sockets_answer_no_stranger_and_go_on() {
    let (a, b) = User::pair();
    b.run_echo();
    let here = Plugin::at(&a, "here").await;
    let mut stream = here.open(&b, "/echo/1").await.unwrap();
    let tcp = tcp_endpoint(&b);
    let strangers = openings().into_iter().map(|(what, bytes)| {
        let (socket, tcp) = (b.file("run/plugin.sock"), tcp.clone());
        std::thread::spawn(move || {
            // Zeros are a frame's begin: those may be told why they are refused, all others nothing.
            let may_be_answered = bytes.first().is_none_or(|first| *first == 0);
            let tcp = TcpStream::connect(tcp).unwrap();
            tcp.set_read_timeout(Some(CLOSED_WITHIN)).unwrap();
            for answer in [say(unix(&socket), &bytes), say(tcp, &bytes)] {
                assert!(answer.is_empty() || may_be_answered, "{what} was answered: {answer:02x?}");
                assert!(answer.len() < 512, "{what} was answered at length: {answer:02x?}");
            }
        })
    });
    for stranger in strangers.collect::<Vec<_>>() {
        stranger.join().unwrap();
    }
    assert_echoes(&mut stream).await;
    assert_echoes(&mut here.open(&b, "/echo/1").await.unwrap()).await;
}

/// Where plugins reach the daemon by TCP. It listens there only once a plugin has asked for it.
fn tcp_endpoint(user: &User) -> String {
    let manifest = "socket = \"tcp\"\n[run]\nexec = [\"sleep\", \"600\"]\n";
    user.add_plugin("by-tcp", manifest, &[]);
    let mut enabling = user.begin_to_enable("by-tcp");
    let endpoint = || {
        let text = fs::read_to_string(user.file("run/endpoint.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = file["endpoints"].as_array().unwrap();
        all.iter().find_map(|one| one.as_str().unwrap().strip_prefix("tcp:")).map(str::to_owned)
    };
    eventually("the daemon listens for plugins on TCP", || endpoint().is_some());
    // The command waits for a plugin that never comes.
    enabling.kill().unwrap();
    enabling.wait().unwrap();
    endpoint().unwrap()
}

#[test]
fn the_control_socket_closes_on_gibberish_and_still_answers_its_user() {
    let user = User::up();
    let strangers = openings().into_iter().map(|(what, bytes)| {
        let path = user.file("run/control.sock");
        std::thread::spawn(move || {
            let mut socket = unix(&path);
            drop(socket.write_all(&bytes));
            socket.shutdown(std::net::Shutdown::Write).unwrap_or_default();
            let answer = say(socket, &[]);
            // It is our own user's socket: a reason may be told, but no more than that.
            assert!(answer.len() < 1024, "{what} was answered at length");
        })
    });
    for stranger in strangers.collect::<Vec<_>>() {
        stranger.join().unwrap();
    }
    assert_eq!(user.json(&["status"])["pid"], user.pid());
}

#[test]
fn a_thousand_silent_strangers_do_not_keep_the_user_out() {
    let user = User::up();
    let mut silent = Vec::new();
    for name in ["run/control.sock", "run/plugin.sock"] {
        for _ in 0..300 {
            match UnixStream::connect(user.file(name)) {
                Ok(socket) => silent.push(socket),
                // The queue is full: the daemon takes no more of them than it wants.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                    break;
                }
            }
        }
    }
    drop(silent);
    eventually("the daemon answers", || user.run(&["status"]).status.success());
}

#[test]
fn another_user_of_the_machine_gets_into_neither_socket_even_if_the_folders_are_open() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can become another user: not tested");
        return;
    }
    let user = User::up();
    let tcp = tcp_endpoint(&user);
    let sockets = ["run/control.sock", "run/plugin.sock"];
    for socket in sockets {
        let path = user.file(socket);
        let path = path.to_str().unwrap();
        assert_eq!(ask_as(ANOTHER_UID, path), "no way in", "{socket}");
        assert_ne!(ask_as(0, path), "b''", "{socket}: the question is so bad that nobody is answered");
    }
    assert_ne!(ask_as(0, &tcp), "b''");
    assert_eq!(ask_as(ANOTHER_UID, &tcp), "b''");
    // Somebody opened the doors by mistake: then the other side's uid still decides.
    for (name, mode) in [("", 0o755), ("run", 0o755), (sockets[0], 0o666), (sockets[1], 0o666)] {
        fs::set_permissions(user.file(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for socket in sockets {
        assert_eq!(ask_as(ANOTHER_UID, user.file(socket).to_str().unwrap()), "b''", "{socket}");
    }
    assert_eq!(user.json(&["status"])["pid"], user.pid());
}

/// What somebody hears who says a good first thing there.
fn ask_as(uid: u32, place: &str) -> String {
    const SCRIPT: &str = "\
import socket, sys
host, _, port = sys.argv[1].rpartition(':')
s = socket.socket(socket.AF_INET if port.isdigit() else socket.AF_UNIX)
s.settimeout(15)
try:
    s.connect((host, int(port)) if port.isdigit() else sys.argv[1])
except PermissionError:
    print('no way in'); sys.exit()
try:
    ask = b'{\"id\": 1, \"request\": {\"do\": \"status\"}}'
    s.sendall(len(ask).to_bytes(4, 'big') + ask)
    print(s.recv(1000))
except (BrokenPipeError, ConnectionResetError):
    print(b'')
";
    let mut python = Command::new("/usr/bin/env");
    python.args(["python3", "-c", SCRIPT, place]).current_dir("/").uid(uid).gid(uid);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
