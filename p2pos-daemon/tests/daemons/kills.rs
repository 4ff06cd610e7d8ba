//! kill -9 of a daemon under load, at any moment: the next one starts as if nothing had been, and nothing is left behind.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_plugin_protocol::client::Stream;

use crate::{
    daemon::{User, eventually, is_alive, processes_with, resident_kib},
    plugin::{Plugin, assert_echoes, read_exactly, soon},
};

/// No process of a plugin outlives its daemon by more.
const PLUGINS_GONE_WITHIN: Duration = Duration::from_secs(2);
const KILLS: usize = 10;

/// A plugin that leaves its process group, its session and its parents, and ignores what can be ignored.
const STUBBORN: &str = "\
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(600)
    os._exit(0)
time.sleep(600)
";

/// Puts bytes into the sink until the stream breaks.
async fn load(mut stream: Stream) {
    let piece = Bytes::from_static(&[1; 64 << 10]);
    while stream.write(piece.clone()).await.is_ok() {}
}

/// Another number below `below` each time.
fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_under_load_heal_lose_no_acknowledged_contact_and_leave_no_process() {
    let (mut a, b) = User::pair();
    b.run_echo();
    a.run_echo();
    let mark = format!("stubborn-{}", a.pid());
    let manifest = "[run]\nexec = [\"python3\", \"stubborn.py\", \"MARK\"]\nstart_timeout = \"60s\"\n";
    a.add_plugin("stubborn", &manifest.replace("MARK", &mark), &[("stubborn.py", STUBBORN)]);
    let mut enabling = a.begin_to_enable("stubborn");
    let known = fresh_peers(KILLS * 4);
    let mut acknowledged = vec![b.peer.clone()];
    for round in 0..KILLS {
        let there = Plugin::at(&b, &format!("load-{round}")).await;
        let here = Plugin::at(&a, &format!("load-{round}")).await;
        let _out = tokio::spawn(load(here.open_at_last(&b, "/sink/1").await));
        let _in = tokio::spawn(load(there.open_at_last(&a, "/sink/1").await));
        eventually("the stubborn one has left its parents", || processes_with(&mark).len() >= 2);
        let deadline = Instant::now() + Duration::from_millis(random(300));
        for (number, peer) in known[round * 4..][..4].iter().enumerate() {
            if number > 0 && Instant::now() > deadline {
                break;
            }
            a.ok(&["contacts", "add", peer, &format!("c{round}-{number}")]);
            acknowledged.push(peer.clone());
        }
        // One more on its way while the daemon dies: it may be there afterwards or not, but nothing else.
        let mut unheard = a.command(["contacts", "add", &fresh_peers(1)[0], &format!("u{round}")]);
        let mut unheard = unheard.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(random(40)));
        let echo = a.plugin_pid("echo");
        a.kill();
        let killed = Instant::now();
        while is_alive(echo) || !processes_with(&mark).iter().all(|pid| !is_alive(*pid)) {
            assert!(killed.elapsed() < PLUGINS_GONE_WITHIN, "plugins outlive their daemon");
            thread::sleep(Duration::from_millis(10));
        }
        unheard.wait().unwrap();

        a.start();
        let contacts = a.json(&["contacts", "list"]);
        let there: Vec<_> = contacts["contacts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["peer_id"].as_str().unwrap())
            .collect();
        let lost: Vec<_> = acknowledged.iter().filter(|peer| !there.contains(&peer.as_str())).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
        assert_eq!(a.json(&["id"])["peer_id"], a.peer);
        assert_second_is_sent_away(&a);
    }
    enabling.wait().unwrap();
    let here = Plugin::at(&a, "after").await;
    assert_echoes(&mut here.open_at_last(&b, "/echo/1").await).await;
    let there = Plugin::at(&b, "after").await;
    assert_echoes(&mut there.open_at_last(&a, "/echo/1").await).await;
}

/// A second daemon on the same data says who runs there, and ends with 1.
fn assert_second_is_sent_away(user: &User) {
    let second = user.run(&["up"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", user.pid())), "{said}");
}

/// People who exist, somewhere.
fn fresh_peers(count: usize) -> Vec<String> {
    let one = |_| {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pos"));
        let output = command.arg("--data-dir").arg(home.path()).args(["id", "--json"]).output().unwrap();
        let id: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        id["peer_id"].as_str().unwrap().to_owned()
    };
    (0..count).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_peer_that_was_killed_under_load_nothing_stays() {
    const STREAMS: usize = 40;
    /// What an allocator keeps of it.
    const KEPT_KIB_MAX: u64 = 48 << 10;
    let (a, mut b) = User::pair();
    b.run_echo();
    let here = Plugin::at(&a, "here").await;
    assert_echoes(&mut here.open(&b, "/echo/1").await.unwrap()).await;
    let before = resident_kib(a.pid());
    for _ in 0..3 {
        let mut loads = Vec::new();
        for _ in 0..STREAMS {
            loads.push(tokio::spawn(load(here.open_at_last(&b, "/sink/1").await)));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(a.streams() >= STREAMS as u64, "{} streams", a.streams());
        b.kill();
        b.start();
        for load in loads {
            soon(load).await.unwrap();
        }
        eventually("no stream is left", || a.streams() == 0);
        eventually("the session has none either", || here.client.session().stats().streams == 0);
        eventually("the plugin is back", || b.plugin_state("echo") == "running");
    }
    let after = resident_kib(a.pid());
    assert!(after < before + KEPT_KIB_MAX, "{before} KiB grew to {after} KiB");
    assert_echoes(&mut here.open_at_last(&b, "/echo/1").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_talks_with_two_others_at_once_and_loses_only_the_one_that_dies() {
    let (a, b) = User::pair();
    let mut c = User::up();
    a.knows(&c, "c");
    c.knows(&a, "a");
    for user in [&a, &b, &c] {
        user.run_echo();
    }
    let at_a = Plugin::at(&a, "mine").await;
    let at_b = Plugin::at(&b, "mine").await;
    let at_c = Plugin::at(&c, "mine").await;
    let mut to_b = at_a.open(&b, "/echo/1").await.unwrap();
    let mut to_c = at_a.open(&c, "/echo/1").await.unwrap();
    let mut from_b = at_b.open(&a, "/echo/1").await.unwrap();
    let mut from_c = at_c.open(&a, "/echo/1").await.unwrap();
    for stream in [&mut to_b, &mut to_c, &mut from_b, &mut from_c] {
        assert_echoes(stream).await;
    }
    let many = vec![9; 8 << 20];
    let ((), ()) = tokio::join!(pour(&mut to_b, &many), pour(&mut from_c, &many));
    c.kill();
    for _ in 0..10 {
        assert_echoes(&mut to_b).await;
        assert_echoes(&mut from_b).await;
    }
    c.start();
    assert_echoes(&mut at_a.open_at_last(&c, "/echo/1").await).await;
    assert_echoes(&mut to_b).await;
    // Strangers to each other: b and c never met, so nothing leads from one to the other.
    assert!(
        fs::read_to_string(b.file("contacts")).is_err() || !b.ok(&["contacts", "list"]).contains(&c.peer)
    );
    assert!(at_b.open(&c, "/echo/1").await.is_err());
}

/// All of it there and back, being written and read at the same time.
async fn pour(stream: &mut Stream, bytes: &[u8]) {
    for piece in bytes.chunks(64 << 10) {
        stream.write(piece.to_vec()).await.unwrap();
        assert_eq!(read_exactly(stream, piece.len()).await, piece);
    }
}
