//! One daemon per data directory: a locked file, with the holder's process id in it for the message.
//!
//! The kernel drops the lock with the process, however it ends, so nothing is ever stale: the file itself stays and
//! means nothing. The descriptor is closed on exec, so no plugin inherits the lock.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use p2pos_control::{Failure, private_dir};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Longest text of a process id; whatever else stands in the file is not ours.
const PID_BYTES_MAX: u64 = 16;

/// Held for as long as the daemon lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let broken = |error: io::Error| Failure::failed(format!("cannot lock {}: {error}", path.display()));
        private_dir(path.parent().unwrap_or(path)).map_err(broken)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(broken)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(&mut file)),
            Err(error) => return Err(broken(error.into())),
        }
        write_pid(&mut file).map_err(broken)?;
        Ok(Self { _file: file })
    }
}

fn held(file: &mut File) -> Failure {
    let mut text = String::new();
    let holder = match file.take(PID_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        Ok(_) | Err(_) => "its process id is not known".to_owned(),
    };
    Failure::failed(format!("a daemon runs on this data directory already ({holder})"))
        .next("look at it: p2pos status")
        .next("run a second one beside it: p2pos --data-dir DIR up")
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_holds_it_and_a_released_lock_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lock");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.message.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn what_a_killed_daemon_left_in_the_file_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lock");
        drop(Lock::take(&path).unwrap());
        std::fs::write(&path, "4194304 and a long tail of rubbish").unwrap();
        let _held = Lock::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }
}
