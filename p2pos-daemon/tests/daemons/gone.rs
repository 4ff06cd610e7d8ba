//! How streams end (SPEC.md, section 7) when somebody dies in the middle: the plugin, its daemon, the other daemon, the path.

use std::time::{Duration, Instant};

use p2pos_plugin_protocol::{
    client::Error,
    code::{Code, End},
    message::Cause,
    streams::How,
};

use crate::{
    daemon::{User, signal},
    plugin::{PROTOCOL, Pair, Plugin, assert_closed, assert_echoes, break_of, soon},
};

/// Promised for a daemon that comes back on its old port.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// After so long a silence of a peer, a stream is over. The daemons say 30 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);

const PLUGIN_GONE: End = End::new(Code::PLUGIN_GONE);
const PATH_LOST: End = End::new(Code::PATH_LOST);
const SHUTTING_DOWN: End = End::new(Code::SHUTTING_DOWN);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_plugin_is_403_then_not_ready_then_back_and_once_disabled_304() {
    let (a, b) = User::pair();
    b.run_echo();
    let here = Plugin::at(&a, "here").await;
    let mut stream = here.open(&b, "/echo/1").await.unwrap();
    assert_echoes(&mut stream).await;

    signal(b.plugin_pid("echo"), "KILL");
    assert_eq!(break_of(&mut stream).await, (How::Reset, PLUGIN_GONE));
    assert_closed(&soon(stream.closed()).await.unwrap(), Cause::ResetRemote, Some(PLUGIN_GONE));

    let mut was_not_ready = false;
    let mut stream = loop {
        match here.open(&b, "/echo/1").await {
            Ok(stream) => break stream,
            Err(Error::Refused(reply)) => {
                assert_eq!(reply.code, Code::NOT_READY, "{reply:?}");
                assert!(reply.retry_after.is_some_and(|after| after <= Duration::from_secs(60)), "{reply:?}");
                was_not_ready = true;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(was_not_ready, "a plugin is restarted after a second, not at once");
    assert_echoes(&mut stream).await;

    b.ok(&["plugins", "disable", "echo"]);
    assert_eq!(break_of(&mut stream).await, (How::Reset, PLUGIN_GONE));
    let error = here.open(&b, "/echo/1").await.unwrap_err();
    assert_eq!(error.code(), Some(Code::PROTOCOL_NOT_SUPPORTED), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_daemon_is_killed_every_call_and_stream_of_a_plugin_ends_with_105() {
    let mut pair = Pair::up().await;
    let ghost = ghost(&pair.b);
    let (_here, mut there) = pair.stream().await;
    let client = pair.there.client.clone();
    let pending = tokio::spawn(async move { client.open(ghost, PROTOCOL).await.map(drop) });
    let reading = tokio::spawn(async move { break_of(&mut there).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!pending.is_finished() && !reading.is_finished());

    pair.b.kill();
    assert_eq!(soon(reading).await.unwrap(), (How::Session, SHUTTING_DOWN));
    let error = soon(pending).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(Code::SHUTTING_DOWN), "{error}");
    assert!(soon(pair.listener.accept()).await.is_none());
    assert_eq!(soon(pair.there.client.session().ended()).await, SHUTTING_DOWN);
    assert_eq!(soon(pair.there.client.wait_shutdown()).await.deadline, Duration::ZERO);
    let error = pair.there.open(&pair.a, PROTOCOL).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::SHUTTING_DOWN), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_that_comes_back_ends_the_old_streams_of_its_peers_with_404_within_3_s() {
    let mut pair = Pair::up().await;
    let (mut here, _there) = pair.stream().await;
    pair.b.kill();
    pair.b.start();
    let back = Instant::now();
    let writing = async {
        loop {
            match here.write(&b"still there?"[..]).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(Error::Stream(end)) => return end.end,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(soon(writing).await, PATH_LOST);
    let took = back.elapsed();
    assert!(took < NOTICED_WITHIN, "{took:?}");
    assert_closed(&soon(here.closed()).await.unwrap(), Cause::ResetRemote, Some(PATH_LOST));
    // And the next stream finds the new daemon by itself.
    let there = Plugin::at(&pair.b, "there").await;
    let mut listener = there.client.register(PROTOCOL).await.unwrap();
    let accepted = async { soon(listener.accept()).await.unwrap().accept_stream().unwrap() };
    let (opened, _accepted) = tokio::join!(pair.here.open(&pair.b, PROTOCOL), accepted);
    opened.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_ends_in_order_tells_both_sides() {
    let mut pair = Pair::up().await;
    let (mut here, mut there) = pair.stream().await;
    pair.b.stop();
    assert_eq!(break_of(&mut there).await.0, How::Session);
    // 404 if the connection is told first, 403 if the plugin's end is: for the peer, both say "open it again".
    let (how, end) = break_of(&mut here).await;
    assert_eq!(how, How::Reset);
    assert!([PATH_LOST, PLUGIN_GONE].contains(&end), "{end:?}");
    assert_closed(&soon(here.closed()).await.unwrap(), Cause::ResetRemote, Some(end));
    let error = pair.here.client.open(pair.b.id(), PROTOCOL).await.unwrap_err();
    // The reason, and not only that time has passed.
    assert!([Code::OFFLINE, Code::UNREACHABLE].contains(&error.code().unwrap()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_ends_in_order_says_105_to_a_plugin_under_development() {
    let mut pair = Pair::up().await;
    pair.b.stop();
    assert_eq!(soon(pair.there.client.session().ended()).await, SHUTTING_DOWN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_goes_silent_is_404_at_last_and_nobody_else_notices() {
    let mut pair = Pair::up().await;
    let c = User::up();
    pair.a.knows(&c, "c");
    c.knows(&pair.a, "a");
    c.run_echo();
    let mut other = pair.here.open(&c, "/echo/1").await.unwrap();
    let (mut here, _there) = pair.stream().await;
    let silent = pair.b.pid();
    // No packet comes from it any more, as if a cable had been cut.
    signal(silent, "STOP");
    let begun = Instant::now();
    let broken = tokio::spawn(async move { (break_of_after(&mut here, SILENCE_MAX).await, here) });
    while !broken.is_finished() && begun.elapsed() < SILENCE_MAX {
        assert_echoes(&mut other).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    signal(silent, "CONT");
    let (end, here) = soon(broken).await.unwrap();
    assert_eq!(end, PATH_LOST);
    assert_closed(&soon(here.closed()).await.unwrap(), Cause::ResetRemote, Some(PATH_LOST));
    // The cable is back.
    let (mut one, mut two) = pair.stream().await;
    one.write(&b"x"[..]).await.unwrap();
    assert_eq!(soon(two.read()).await.unwrap().unwrap(), &b"x"[..]);
}

async fn break_of_after(stream: &mut p2pos_plugin_protocol::client::Stream, silence: Duration) -> End {
    match tokio::time::timeout(silence, stream.read()).await.expect("the silence is not noticed") {
        Err(Error::Stream(end)) => end.end,
        other => panic!("{other:?}"),
    }
}

/// A contact who never answers.
pub(crate) fn ghost(user: &User) -> p2pos_identity::PeerId {
    let home = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_p2pos"));
    let output = command.arg("--data-dir").arg(home.path()).args(["id", "--json"]).output().unwrap();
    let id: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let peer = id["peer_id"].as_str().unwrap();
    user.ok(&["contacts", "add", peer, "ghost", "--addr", "192.0.2.1:9"]);
    peer.parse().unwrap()
}
