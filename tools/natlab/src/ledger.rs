//! What has to be removed, whatever happens to us: one folder for each lab, locked by the process that owns it.
//!
//! A lab's namespaces carry its name in front, and everything that runs in them was started for it. So a name is all that is needed to clear
//! up: end what runs inside, delete the namespaces (their interfaces and rules go with them), delete the folder. That happens when the
//! [`Claim`] is dropped; and where nothing could be dropped (kill -9, a power cut), the kernel has let go of the lock, and the next lab
//! that starts on this machine finds an unlocked folder and clears up for the dead.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::{io, process};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::program;

/// Where the labs of this machine leave their folders. Short, because Unix sockets lie below it.
const ROOT: &str = "/run/p2pos-natlab";
/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// Labs of one process at the same time: each takes memory for some ten namespaces; more than this is a leak.
const LABS_MAX: u32 = 100;
/// Rounds of ending processes in a namespace: a plugin may be started while we count.
const END_ROUNDS_MAX: u32 = 20;

/// Whether this process has given up all its labs. Who makes namespaces holds it for reading, so that none appears behind the back of
/// whoever removes them.
static HAS_ABANDONED: RwLock<bool> = RwLock::new(false);

/// A name that is ours alone, with its folder.
#[derive(Debug)]
pub struct Claim {
    name: String,
    folder: PathBuf,
    /// Held, it says that somebody will clear up; it is the kernel's word, so it cannot lie.
    _lock: File,
}

impl Claim {
    /// Clears up after the dead, then claims a fresh name.
    ///
    /// # Errors
    /// The folder cannot be made, which mostly means: not root.
    pub fn new() -> Result<Self> {
        fs::create_dir_all(ROOT).with_context(|| format!("make {ROOT}"))?;
        let root = File::create(Path::new(ROOT).join("lock")).context("open the labs' common lock")?;
        // Between a folder's making and its lock nobody else may look: he would take it for a dead one.
        flock(&root, FlockOperation::LockExclusive).context("lock the labs' folder")?;
        sweep()?;
        for number in 0..LABS_MAX {
            let name = name_of(number);
            let folder = Path::new(ROOT).join(&name);
            match fs::create_dir(&folder) {
                Ok(()) => {
                    let lock = File::create(folder.join("lock")).context("open the lab's lock")?;
                    flock(&lock, FlockOperation::NonBlockingLockExclusive)
                        .context("lock the lab's folder")?;
                    return Ok(Self { name, folder, _lock: lock });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("make {}", folder.display())),
            }
        }
        bail!("{LABS_MAX} labs of this process are standing already");
    }

    /// The name that all namespaces begin with, followed by `-`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for logs, sockets and keys of this lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be removed now is the next start's: the lock goes with us.
        drop(clear(&self.name, &self.folder));
    }
}

/// Removes all labs of this process, for whoever is about to end without dropping anything. From then on no more can be built.
///
/// # Errors
/// Something cannot be removed; the next start of a lab will try again.
pub fn abandon() -> Result<()> {
    *HAS_ABANDONED.write().unwrap_or_else(PoisonError::into_inner) = true;
    for number in 0..LABS_MAX {
        let name = name_of(number);
        let folder = Path::new(ROOT).join(&name);
        if folder.is_dir() {
            clear(&name, &folder)?;
        }
    }
    Ok(())
}

/// Clears up after every lab whose process has died.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(ROOT).context("read the labs' folder")? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if !folder.is_dir() {
            continue;
        }
        let is_dead = match File::open(folder.join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => true,
        };
        if is_dead {
            clear(name, &folder).with_context(|| format!("clear up after the dead lab {name}"))?;
        }
    }
    Ok(())
}

/// Removes all that carries the name: processes, namespaces, files.
fn clear(name: &str, folder: &Path) -> Result<()> {
    remove_namespaces(&format!("{name}-"))?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes namespaces of these names.
///
/// # Errors
/// A name is taken, or this process has given up its labs.
pub(crate) fn make_namespaces(names: &[&str]) -> Result<()> {
    let has_abandoned = HAS_ABANDONED.read().unwrap_or_else(PoisonError::into_inner);
    ensure!(!*has_abandoned, "the lab is being removed");
    let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
    program::run("ip", &["-batch", "-"], &lines).map(drop)
}

/// Ends everything in the namespaces whose names begin so, and removes them.
pub(crate) fn remove_namespaces(prefix: &str) -> Result<()> {
    let names = names_with(prefix)?;
    if names.is_empty() {
        return Ok(());
    }
    let inodes: Vec<u64> = names
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NAMES).join(name)).ok())
        .map(|found| found.ino())
        .collect();
    for _ in 0..END_ROUNDS_MAX {
        let inside = processes_in(&inodes)?;
        if inside.is_empty() {
            break;
        }
        for pid in inside {
            // It may have ended by itself since we looked.
            kill_process(pid, Signal::KILL).ok();
        }
    }
    let lines: String = names.iter().map(|name| format!("netns del {name}\n")).collect();
    program::run("ip", &["-batch", "-"], &lines).map(drop)
}

/// Namespaces whose names begin so.
fn names_with(prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(NAMES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("read the list of namespaces"),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// Processes whose network is one of these, ourselves left out.
fn processes_in(inodes: &[u64]) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read the list of processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that has ended meanwhile has no network any more.
        let Ok(network) = fs::metadata(entry.path().join("ns/net")) else { continue };
        if inodes.contains(&network.ino()) && u32::try_from(pid) != Ok(process::id()) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// The name of this process's lab of that number.
fn name_of(number: u32) -> String {
    format!("nl{:x}{}", process::id(), letter(number))
}

/// a, b, ... z, then a0, b0, ...: short, since names of interfaces and sockets are.
fn letter(number: u32) -> String {
    let letter = char::from(b'a' + u8::try_from(number % 26).unwrap_or_default());
    match number / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{round}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn letters_never_repeat_within_a_process() {
        let all: BTreeSet<String> = (0..LABS_MAX).map(letter).collect();
        assert_eq!(all.len(), LABS_MAX as usize);
    }
}
