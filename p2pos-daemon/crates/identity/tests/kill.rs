//! A process that is killed at a random moment while it changes the address book or makes a key: what it had
//! acknowledged is there afterwards, and what is there is whole.
//!
//! The child is this same test binary, run again with [`CHILD_FOLDER`] set; SIGKILL gives it no chance to tidy up.
#![cfg(feature = "store")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers may fail loudly and say their seed"
)]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use p2pos_identity::{Contact, Contacts, KeyFile, PeerId, RelayChoice, SecretKey, Trust};

/// The folder in which a child works.
const CHILD_FOLDER: &str = "P2POS_TEST_CHILD_FOLDER";
/// Lines that the child prints for its parent begin with this, since the test harness prints too.
const ACKNOWLEDGED: &str = "acknowledged ";
const ROUNDS: u64 = 20;

#[test]
fn a_kill_at_any_moment_loses_no_acknowledged_contact() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::from_system();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let (mut child, mut output) = start("child_adds_contacts", folder.path());
        let first = next_acknowledged(&mut output).expect("the child adds at least one contact");
        assert!(first > acknowledged, "round {round}: the child began again at {first}");
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        kill(&mut child);
        acknowledged = std::iter::from_fn(|| next_acknowledged(&mut output)).last().unwrap_or(first);
        assert_book_is_whole(folder.path(), acknowledged);
    }
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_key_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::from_system();
    for round in 0..ROUNDS {
        let round_folder = folder.path().join(round.to_string());
        std::fs::create_dir(&round_folder).unwrap();
        let (mut child, mut output) = start("child_makes_keys", &round_folder);
        next_acknowledged(&mut output).expect("the child makes at least one key");
        std::thread::sleep(Duration::from_micros(random.below(5_000)));
        kill(&mut child);
        while next_acknowledged(&mut output).is_some() {}
        for entry in std::fs::read_dir(&round_folder).unwrap() {
            let directory = entry.unwrap().path();
            let shown = directory.join("shown");
            let (key, _) = KeyFile::load_or_create(&directory).unwrap();
            if let Ok(peer) = std::fs::read_to_string(&shown).unwrap_or_default().parse::<PeerId>() {
                assert_eq!(key.peer_id(), peer, "an identity that was in use is gone");
            }
        }
    }
}

#[test]
#[ignore = "run as a child by a_kill_at_any_moment_loses_no_acknowledged_contact"]
fn child_adds_contacts() {
    let folder = env::var_os(CHILD_FOLDER).expect("the parent sets the folder");
    let contacts = Contacts::open(&Path::new(&folder).join("contacts.redb")).unwrap();
    let there = contacts.list().unwrap().len() as u64;
    // Contact 0 is renamed with each addition, so that a change of two tables is under fire too.
    if there == 0 {
        contacts.add(&contact(0)).unwrap();
    }
    for number in there.max(1).. {
        contacts.add(&contact(number)).unwrap();
        contacts.rename(&contact(0).peer, &format!("renamed {number}")).unwrap();
        acknowledge(number);
    }
}

#[test]
#[ignore = "run as a child by a_kill_at_any_moment_leaves_one_whole_key_or_none"]
fn child_makes_keys() {
    let folder = env::var_os(CHILD_FOLDER).expect("the parent sets the folder");
    for number in 0.. {
        let directory = Path::new(&folder).join(number.to_string());
        let (key, _) = KeyFile::load_or_create(&directory).unwrap();
        std::fs::write(directory.join("shown"), key.peer_id().to_string()).unwrap();
        acknowledge(number);
    }
}

fn assert_book_is_whole(folder: &Path, acknowledged: u64) {
    let contacts = Contacts::open(&folder.join("contacts.redb")).unwrap();
    let there = contacts.list().unwrap();
    let unacknowledged = there.len() as u64 - (acknowledged + 1);
    assert!(unacknowledged <= 1, "{unacknowledged} contacts appeared that nobody acknowledged");
    for number in 1..there.len() as u64 {
        let expected = contact(number);
        assert_eq!(contacts.get(&expected.peer).unwrap().as_ref(), Some(&expected));
        assert_eq!(contacts.by_petname(&expected.petname).unwrap(), Some(expected));
    }
    let renamed = contacts.get(&contact(0).peer).unwrap().unwrap();
    assert_eq!(contacts.by_petname(&renamed.petname).unwrap().as_ref(), Some(&renamed));
    let number: u64 = renamed.petname.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((acknowledged..=acknowledged + 1).contains(&number), "{} after {acknowledged}", renamed.petname);
}

fn contact(number: u64) -> Contact {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Contact {
        peer: SecretKey::from_seed(seed).peer_id(),
        petname: format!("contact {number}"),
        trust: Trust::Verified,
        relay: RelayChoice::Auto,
        addresses: vec![format!("host-{number}.example:4000")],
        added_unix_s: number,
    }
}

fn start(child_test: &str, folder: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", child_test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn acknowledge(number: u64) {
    // One write call, so that a line is there wholly or not at all.
    std::io::stdout().lock().write_all(format!("\n{ACKNOWLEDGED}{number}\n").as_bytes()).unwrap();
}

fn next_acknowledged(output: &mut impl BufRead) -> Option<u64> {
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if let Some(number) = line.strip_prefix(ACKNOWLEDGED).filter(|number| number.ends_with('\n')) {
            return Some(number.trim_end().parse().unwrap());
        }
    }
}

/// Enough randomness for moments to kill at; the seed is printed, so that a failure can be looked at again.
struct Random(u64);

impl Random {
    fn from_system() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).unwrap();
        let seed = u64::from_le_bytes(seed) | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
