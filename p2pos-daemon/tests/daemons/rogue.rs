//! Every misdeed of `tools/rogue-plugin` against a real daemon: a coded answer, the daemon lives, and another plugin serves its peers.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use p2pos_plugin_protocol::client::Stream;
use p2pos_rogue_plugin::{Answer, Misdeed, ORPHAN_FILE, REPORT_FILE, misdeeds, plant};

use crate::{
    daemon::{User, eventually, is_alive, resident_kib},
    gone::ghost,
    plugin::{Plugin, assert_echoes},
};

/// A daemon that reads what it must not keep may not take more than this for it.
const RESIDENT_KIB_MAX: u64 = 128 << 10;

/// The whole ladder from Shutdown to SIGKILL takes 6 s; the rest is for the machine.
const DISABLED_WITHIN: Duration = Duration::from_secs(15);

/// The rogue's program, built if it is not there yet: a plugin of its own package has no other way into a test.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_p2pos"));
        let (profile, target) = (built.parent().unwrap(), built.parent().unwrap().parent().unwrap());
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "p2pos-rogue-plugin"]).arg("--target-dir").arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        profile.join("p2pos-rogue-plugin")
    })
}

/// A daemon with an honest plugin, a peer that uses it, and all the rogues in the plugins folder.
struct Scene {
    good: User,
    _peer: User,
    honest: Plugin,
    stream: Stream,
}

impl Scene {
    async fn set(deeds: &[&Misdeed]) -> Self {
        let (good, peer) = User::pair();
        let nobody = ghost(&good).to_string();
        for deed in deeds {
            plant(&good.file("plugins"), &id(deed), program(), deed.name, &nobody).unwrap();
        }
        good.run_echo();
        let honest = Plugin::at(&peer, "honest").await;
        let stream = honest.open(&good, "/echo/1").await.unwrap();
        Self { good, _peer: peer, honest, stream }
    }

    /// The daemon answers, and its good plugin serves: on an old stream and on a new one.
    async fn assert_well(&mut self, after: &str) {
        assert_eq!(self.good.json(&["status"])["pid"], self.good.pid(), "after {after}");
        assert_echoes(&mut self.stream).await;
        assert_echoes(&mut self.honest.open(&self.good, "/echo/1").await.unwrap()).await;
    }

    fn assert_comes_to(&self, id: &str, fates: &[&str]) {
        let has_come = || fates.contains(&self.good.plugin_state(id).as_str());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !has_come() {
            assert!(Instant::now() < deadline, "{id} is none of {fates:?}: {}", self.says(id));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a person is told about it.
    fn says(&self, id: &str) -> String {
        let info = self.good.json(&["plugins", "info", id]);
        format!("{} {} {} {}", info["state"], info["reason"], info["last_exit"], info["log_tail"])
    }
}

fn id(deed: &Misdeed) -> String {
    format!("rogue-{}", deed.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misdeed_on_the_socket_gets_its_code_and_harms_nobody() {
    let deeds: Vec<_> = misdeeds().filter(|deed| deed.answer != Answer::Unseen).collect();
    assert!(deeds.len() > 30);
    let mut scene = Scene::set(&deeds).await;
    let mut wrong = Vec::new();
    for deed in deeds {
        let id = id(deed);
        // Whether it counts as started is a race with its misdeed, which comes right behind Ready.
        let mut enabling = scene.good.begin_to_enable(&id);
        let report = scene.good.file("plugin-data").join(&id).join(REPORT_FILE);
        eventually(&format!("{} reports; {}", deed.name, scene.says(&id)), || report.exists());
        let seen = fs::read_to_string(report).unwrap();
        if seen.trim() != deed.answer.to_string() {
            wrong.push(format!("{}: {} instead of {}", deed.name, seen.trim(), deed.answer));
        }
        scene.assert_well(deed.name).await;
        enabling.wait().unwrap();
        scene.good.ok(&["plugins", "disable", &id]);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let resident = resident_kib(scene.good.pid());
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
}

/// What the list of plugins must come to say about a process that misbehaves, where it says anything.
fn fate(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "leave-before-hello" | "dies-in-frame" | "crash" => &["backoff", "failed"],
        "exit-tempfail" => &["waiting-network", "backoff"],
        "exit-config" => &["failed"],
        "never-connects" | "connects-only" | "hello-then-silence" => &["backoff", "failed"],
        _ => return None,
    })
}

/// Daemons that are misused at the same time: much of it is waiting for deadlines.
const SCENES: usize = 4;

#[test]
fn every_misdeed_of_a_process_is_told_contained_and_ended() {
    let deeds: Vec<_> = misdeeds().filter(|deed| deed.answer == Answer::Unseen).collect();
    assert!(deeds.len() > 10);
    let (slow, quick): (Vec<&Misdeed>, Vec<&Misdeed>) =
        deeds.into_iter().partition(|deed| is_slow(deed.name));
    thread::scope(|scope| {
        scope.spawn(|| in_a_runtime(wait_for_the_deadlines_of(&slow)));
        for first in 0..SCENES {
            let some: Vec<_> = quick.iter().copied().skip(first).step_by(SCENES).collect();
            scope.spawn(move || in_a_runtime(judge_one_after_the_other(&some)));
        }
    });
}

fn in_a_runtime(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

async fn wait_for_the_deadlines_of(deeds: &[&Misdeed]) {
    let mut scene = Scene::set(deeds).await;
    let enabling: Vec<_> = deeds.iter().map(|deed| scene.good.begin_to_enable(&id(deed))).collect();
    for deed in deeds {
        scene.assert_comes_to(&id(deed), fate(deed.name).unwrap());
        scene.assert_well(deed.name).await;
        assert_ends(&scene.good, &id(deed));
    }
    for mut command in enabling {
        command.wait().unwrap();
    }
}

async fn judge_one_after_the_other(deeds: &[&Misdeed]) {
    let mut scene = Scene::set(deeds).await;
    for deed in deeds {
        let id = id(deed);
        let mut enabling = scene.good.begin_to_enable(&id);
        match fate(deed.name) {
            Some(fates) => scene.assert_comes_to(&id, fates),
            None => {
                scene.assert_comes_to(&id, &["running"]);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        scene.assert_well(deed.name).await;
        if deed.name == "fork-away" {
            assert_orphan_ends(&scene.good, &id);
        } else {
            assert_ends(&scene.good, &id);
        }
        enabling.wait().unwrap();
    }
    scene.assert_well("all of them").await;
    let resident = resident_kib(scene.good.pid());
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
}

/// Those that only their start deadline ends.
fn is_slow(name: &str) -> bool {
    ["never-connects", "connects-only", "hello-then-silence"].contains(&name)
}

/// `disable` ends a process, also one that does not want to end.
fn assert_ends(user: &User, id: &str) {
    let pid = user.json(&["plugins", "info", id])["pid"].as_u64();
    let begun = Instant::now();
    user.ok(&["plugins", "disable", id]);
    assert!(begun.elapsed() < DISABLED_WITHIN, "{id} took {:?}", begun.elapsed());
    assert_eq!(user.plugin_state(id), "disabled");
    let is_there = pid.is_some_and(|pid| is_alive(u32::try_from(pid).unwrap()));
    assert!(!is_there, "{id} is disabled, and its process lives");
}

/// It left its process group and its parents; it ends with its plugin all the same.
fn assert_orphan_ends(user: &User, id: &str) {
    let file = user.file("plugin-data").join(id).join(ORPHAN_FILE);
    eventually("the orphan lives", || file.exists());
    let orphan: u32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!(is_alive(orphan));
    assert_ends(user, id);
    eventually("the orphan is gone too", || !is_alive(orphan));
}
