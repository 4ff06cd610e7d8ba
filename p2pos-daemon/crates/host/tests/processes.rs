//! Plugins as real processes: started, stopped, killed, and what they try against that.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod common;

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{LONG, TestHost, mark, processes_with, until, write_python_plugin};
use p2pos_host::{CommandError, State};

/// Two children: one in the plugin's process group, one that has left session, group and parent.
fn forker(mark: &str) -> String {
    format!(
        "import subprocess\n\
         subprocess.Popen(['sleep', '{mark}'])\n\
         subprocess.Popen(['sh', '-c', 'setsid sh -c \"setsid sleep {mark} & setsid sleep {mark} &\"'])\n\
         plugin = started()\n\
         until_shutdown(plugin)\n"
    )
}

#[tokio::test]
async fn a_plugin_starts_says_ready_and_leaves_in_order() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nsay('hello')\nprint('oops', file=sys.stderr, flush=True)\n\
                plugin.send(LOG, field(1, 3) + field(2, 'by frame'))\n\
                plugin.send(STATUS, field(1, 2) + field(2, 'half asleep'))\nuntil_shutdown(plugin)\nsay('bye')";
    test.install("org.a", "autostart = false\n", code).await;
    assert_eq!(test.state("org.a"), State::Disabled);
    assert!(matches!(test.host.start_plugin("org.a").await, Err(CommandError::NeedsApproval { .. })));
    assert_eq!(test.host.enable("org.a").await.unwrap().state, State::Stopped);
    let up = test.host.start_plugin("org.a").await.unwrap();
    assert!(up.state.is_up() && up.pid.is_some());
    test.until_state("org.a", State::Degraded).await;
    assert_eq!(test.host.plugin("org.a").unwrap().status, "half asleep");
    let down = test.host.stop_plugin("org.a").await.unwrap();
    assert_eq!((down.state, down.reason.as_str(), down.pid), (State::Stopped, "stopped by the user", None));
    let log = test.log_text("org.a").await;
    for line in
        ["out   hello", "err   oops", "warn  by frame", "out   bye", "p2pos started, process", "exit code 0"]
    {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
    assert!(
        matches!(test.host.stop_plugin("org.b").await, Err(CommandError::NotFound { nearest: Some(near), .. }) if near == "org.a")
    );
    test.host.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_forks_away_with_setsid_is_gone_after_stop() {
    let test = TestHost::start().await;
    let mark = mark();
    test.install("org.forker", "", &forker(&mark)).await;
    test.host.enable("org.forker").await.unwrap();
    until("all its children run", || processes_with(&mark) == 3).await;
    test.host.stop_plugin("org.forker").await.unwrap();
    assert_eq!(processes_with(&mark), 0);
}

#[tokio::test]
async fn no_process_of_a_plugin_outlives_a_killed_daemon_by_two_seconds() {
    let root = tempfile::tempdir().unwrap();
    let mark = mark();
    write_python_plugin(&root.path().join("plugins"), "org.forker", "", &forker(&mark));
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_p2pos-host-fixture"))
        .arg("daemon")
        .arg(root.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("the daemon is up", || root.path().join("up").exists() && processes_with(&mark) == 3).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let killed = Instant::now();
    until("nothing is left", || processes_with(&mark) == 0).await;
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn a_plugin_that_kills_its_own_guard_does_not_get_away() {
    let root = tempfile::tempdir().unwrap();
    let mark = mark();
    let code = format!(
        "import subprocess, signal, time\n\
         subprocess.Popen(['sh', '-c', 'setsid sh -c \"setsid sleep {mark} & setsid sleep {mark} &\"'])\n\
         plugin = started()\n\
         while not os.path.exists('{0}/go'): time.sleep(0.01)\n\
         os.kill(os.getppid(), signal.SIGKILL)\n\
         time.sleep(60)\n",
        root.path().display()
    );
    write_python_plugin(&root.path().join("plugins"), "org.evil", "restart = \"never\"\n", &code);
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_p2pos-host-fixture"))
        .arg("daemon")
        .arg(root.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("the daemon is up", || root.path().join("up").exists() && processes_with(&mark) == 2).await;
    fs::write(root.path().join("go"), "").unwrap();
    until("nothing is left", || processes_with(&mark) == 0).await;
    let log = || fs::read_to_string(root.path().join("logs/org.evil.log")).unwrap();
    until("the end is told", || log().contains("its guard was killed")).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[tokio::test]
async fn a_plugin_that_ignores_shutdown_stdin_and_sigterm_is_killed() {
    let test = TestHost::start().await;
    let code = "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: say('not me'))\n\
                plugin = started()\nwhile True:\n    time.sleep(1)";
    test.install("org.deaf", "stop_timeout = \"100ms\"\n", code).await;
    test.host.enable("org.deaf").await.unwrap();
    let start = Instant::now();
    let down = test.host.stop_plugin("org.deaf").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(down.last_exit, Some(p2pos_host::Exit::Signal(9)));
    assert!(test.log_text("org.deaf").await.contains("not me"), "SIGTERM came first");
}

#[tokio::test]
async fn a_plugin_that_ends_before_hello_waits_longer_each_time() {
    let test = TestHost::start().await;
    test.install("org.short", "", "say('out of luck')\nsys.exit(1)").await;
    let error = test.host.enable("org.short").await.unwrap_err();
    let CommandError::Failed { state: State::Backoff, reason, recent, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(reason, "exit code 1 before it was ready");
    assert!(recent.iter().any(|line| line.contains("out of luck")), "{recent:?}");
    let next = test.host.plugin("org.short").unwrap().next_try.unwrap();
    assert!(next < Duration::from_millis(1300));
    until("it was tried again", || test.host.plugin("org.short").unwrap().restarts == 1).await;
    assert_eq!(test.host.stop_plugin("org.short").await.unwrap().state, State::Stopped);
}

#[tokio::test]
async fn what_cannot_be_run_is_given_up_at_once_and_says_why() {
    let test = TestHost::start().await;
    test.install_raw("org.gone", "[run]\nexec = [\"./no-such-program\"]\n").await;
    let error = test.host.enable("org.gone").await.unwrap_err();
    let CommandError::Failed { state: State::Failed, recent, .. } = error else { panic!("{error:?}") };
    let told = recent.iter().any(|line| line.contains("./no-such-program cannot be run: No such file"));
    assert!(told, "{recent:?}");
}

#[tokio::test]
async fn a_plugin_gets_a_clean_environment_and_its_limits() {
    let test = TestHost::start().await;
    let code = "import resource\nplugin = started()\n\
                say('env ' + ' '.join(sorted(os.environ)))\n\
                say('files %d core %d' % (resource.getrlimit(resource.RLIMIT_NOFILE)[1], resource.getrlimit(resource.RLIMIT_CORE)[1]))\n\
                say('fds ' + ' '.join(sorted(os.listdir('/proc/self/fd'), key=int)))\n\
                say('privs ' + [l for l in open('/proc/self/status') if l.startswith('NoNewPrivs')][0].split()[1])\n\
                say('dir ' + os.getcwd() + ' ' + os.environ['P2POS_DATA_DIR'])\nuntil_shutdown(plugin)";
    test.install("org.env", "[limits]\nfiles = 99\n", code).await;
    test.host.enable("org.env").await.unwrap();
    let env = test.logged("org.env", "env ").await;
    // Under cargo the test program's own environment is full of its variables.
    assert!(!env.contains("CARGO"), "{env}");
    for key in
        ["P2POS_ENDPOINT", "P2POS_TOKEN", "P2POS_PLUGIN_ID", "P2POS_DATA_DIR", "P2POS_PROTOCOL_VERSIONS"]
    {
        assert!(env.contains(key), "{key}");
    }
    assert_eq!(test.logged("org.env", "files ").await, "99 core 0");
    // 0 to 2, the session, and the directory that lists them.
    assert_eq!(test.logged("org.env", "fds ").await, "0 1 2 3 4");
    assert_eq!(test.logged("org.env", "privs ").await, "1");
    let dir = test.logged("org.env", "dir ").await;
    assert!(dir.ends_with("/data/org.env") && dir.contains("/plugins/org.env "), "{dir}");
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_hurts_nobody() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nfor n in range(200000): print('x' * 100)\nsay('')\nsay('the end')\nuntil_shutdown(plugin)";
    test.install("org.flood", "stop_timeout = \"100ms\"\n", code).await;
    test.host.enable("org.flood").await.unwrap();
    let start = Instant::now();
    let client =
        tokio::time::timeout(Duration::from_secs(5), test.tool(&[])).await.expect("others are served");
    drop(client);
    assert!(start.elapsed() < Duration::from_secs(5));
    test.host.stop_plugin("org.flood").await.unwrap();
    assert!(test.log_text("org.flood").await.contains("lines dropped: more than 1048576 bytes a second"));
    let bytes: u64 = ["org.flood.log", "org.flood.log.1"]
        .iter()
        .filter_map(|file| Some(fs::metadata(test.root.path().join("logs").join(file)).ok()?.len()))
        .sum();
    assert!(bytes < 18_000_000, "{bytes} bytes were written");
}

#[tokio::test]
async fn a_changed_program_needs_approval_and_more_wishes_do_too() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nuntil_shutdown(plugin)";
    test.install("org.change", "", code).await;
    test.host.enable("org.change").await.unwrap();
    test.host.stop_plugin("org.change").await.unwrap();
    let main = test.plugin_dir("org.change").join("main.py");
    fs::write(&main, format!("from mini import *\n{code}\n# new\n")).unwrap();
    test.until_state("org.change", State::NeedsApproval).await;
    let error = test.host.start_plugin("org.change").await.unwrap_err();
    assert!(
        matches!(&error, CommandError::NeedsApproval { reason, .. } if reason.contains("files changed")),
        "{error:?}"
    );
    assert!(test.host.enable("org.change").await.unwrap().state.is_up());
    let manifest = test.plugin_dir("org.change").join("plugin.toml");
    let wanting = fs::read_to_string(&manifest).unwrap() + "[permissions]\ncontacts.read = true\n";
    fs::write(&manifest, wanting).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(test.state("org.change").is_up(), "what runs was approved as it is");
    let error = test.host.restart_plugin("org.change").await.unwrap_err();
    let CommandError::NeedsApproval { reason, new_permissions, .. } = error else { panic!("{error:?}") };
    assert_eq!(
        (reason.as_str(), new_permissions),
        ("it asks for more: contacts.read", vec!["contacts.read".to_owned()])
    );
}

#[tokio::test]
async fn approvals_survive_the_daemon_and_directories_come_and_go() {
    let test = TestHost::start().await;
    test.install("org.stay", "", "plugin = started()\nuntil_shutdown(plugin)").await;
    test.host.enable("org.stay").await.unwrap();
    test.host.shutdown().await;
    let test = TestHost::start_in(test.root).await;
    test.until_state("org.stay", State::Running).await;
    assert_eq!(test.host.disable("org.stay").await.unwrap().state, State::Disabled);
    test.host.enable("org.stay").await.unwrap();
    fs::rename(test.plugin_dir("org.stay"), test.root.path().join("away")).unwrap();
    until("it is gone", || test.host.plugin("org.stay").is_none()).await;
}

#[tokio::test]
async fn a_directory_that_comes_back_while_its_plugin_is_stopping_is_found_again() {
    let test = TestHost::start().await;
    // Deaf to Shutdown and to its closed input: the ladder gives the directory time to come back.
    let code = "plugin = started()\nimport time\nwhile True: time.sleep(1)";
    let more = "stop_timeout = \"1s\"\n";
    test.install("org.back", more, code).await;
    test.host.enable("org.back").await.unwrap();
    let first = test.host.plugin("org.back").unwrap().pid;
    let away = test.root.path().join("away");
    fs::rename(test.plugin_dir("org.back"), &away).unwrap();
    test.until_state("org.back", State::Stopping).await;
    fs::rename(&away, test.plugin_dir("org.back")).unwrap();
    until("it runs again", || {
        test.host.plugin("org.back").is_some_and(|back| back.state == State::Running && back.pid != first)
    })
    .await;
    tokio::time::timeout(LONG, test.host.shutdown()).await.unwrap();
    assert!(test.host.plugins().is_empty(), "nothing looks again after the end");
}

#[tokio::test]
async fn a_manifest_with_errors_is_listed_as_invalid_with_them() {
    let test = TestHost::start().await;
    let dir = test.plugin_dir("org.bad");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("plugin.toml"), "manifest = 1\nid = \"org.bad\"\n[run]\nexec = 7\n").unwrap();
    until("it is seen", || test.host.plugin("org.bad").is_some()).await;
    let plugin = test.host.plugin("org.bad").unwrap();
    assert_eq!(plugin.state, State::Invalid);
    assert!(plugin.errors.iter().any(|error| error.starts_with("plugin.toml:4:8: ")), "{:?}", plugin.errors);
    assert!(matches!(test.host.enable("org.bad").await, Err(CommandError::Invalid { .. })));
    fs::write(dir.join("plugin.toml"), "manifest = 1\nid = \"other\"\n[run]\nexec = [\"sh\"]\n").unwrap();
    until("the id is told", || test.host.plugin("org.bad").unwrap().reason.contains("id = \"other\"")).await;
}

#[tokio::test]
async fn a_plugin_that_crashes_after_ready_comes_back_by_itself() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nif not os.path.exists(os.environ['P2POS_DATA_DIR'] + '/once'):\n\
                \x20   open(os.environ['P2POS_DATA_DIR'] + '/once', 'w')\n    os.abort()\nuntil_shutdown(plugin)";
    test.install("org.crash", "", code).await;
    let enabled = test.host.enable("org.crash").await;
    drop(enabled);
    until("it is back", || {
        let plugin = test.host.plugin("org.crash").unwrap();
        plugin.restarts == 1 && plugin.state == State::Running
    })
    .await;
    assert_eq!(test.host.plugin("org.crash").unwrap().last_exit, Some(p2pos_host::Exit::Signal(6)));
    let follow = test.host.logs("org.crash", 5).unwrap();
    assert_eq!(follow.recent.len(), 5);
    tokio::time::timeout(LONG, test.host.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_running_plugin_whose_new_files_are_approved_runs_the_new_files() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nsay('old')\nuntil_shutdown(plugin)";
    test.install("org.change", "", code).await;
    let old = test.host.enable("org.change").await.unwrap();
    assert_eq!(test.host.enable("org.change").await.unwrap().pid, old.pid, "nothing changed: it runs on");
    let main = test.plugin_dir("org.change").join("main.py");
    fs::write(&main, "from mini import *\nplugin = started()\nsay('new')\nuntil_shutdown(plugin)\n").unwrap();
    let new = test.host.enable("org.change").await.unwrap();
    assert!(new.state.is_up() && new.pid != old.pid, "{new:?}");
    test.logged("org.change", "out   new").await;
}

#[tokio::test]
async fn a_line_that_is_too_long_stays_one_line_with_a_mark() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nprint('q' * 70000)\nprint('next', flush=True)\n\
                plugin.send(LOG, field(1, 2) + field(2, 'z' * 70000))\nplugin.send(LOG, field(2, 'last'))\n\
                until_shutdown(plugin)";
    test.install("org.long", "", code).await;
    test.host.enable("org.long").await.unwrap();
    test.logged("org.long", "info  last").await;
    test.logged("org.long", "out   next").await;
    let log = test.log_text("org.long").await;
    for letter in ["q", "z"] {
        let long: Vec<&str> = log.lines().filter(|line| line.contains(&letter.repeat(100))).collect();
        let [line] = long[..] else { panic!("{} lines", long.len()) };
        assert_eq!(line.matches(letter).count(), 65_536, "{}", &line[..60]);
        assert!(line.ends_with(" ... [cut: the line was too long]"));
    }
}
