//! Whether the process at the other end of a unix socket lives, asked without waiting.
//!
//! Asked when a detached stream's socket was closed whole: by a plugin that is done with the stream, or by the kernel for
//! a process that was killed? In the second case every thread of the process is marked as exiting before the first of its
//! descriptors is closed (Linux: `PF_EXITING`, set at the top of `do_exit`), so whoever sees the end of file sees the mark,
//! too. A pidfd would not do: it speaks only after the descriptors are closed. Nor would a look at the session's socket:
//! the kernel closes a dead process's descriptors in an order of its own.

use std::fs;

use tokio::net::UnixStream;

/// The mark in the ninth field of /proc/PID/stat (Linux `include/linux/sched.h`).
const PF_EXITING: u32 = 0x4;

/// Field `flags` of /proc/PID/stat, counted from the state, which follows the name in brackets.
const FLAGS_AFTER_STATE: usize = 6;

/// What could be found out about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vitality {
    /// It runs, and has not begun to end.
    Alive,
    /// It is ending or gone.
    Dying,
    /// The system does not say.
    Unknown,
}

/// The process that connected this socket.
pub(super) fn of_peer(socket: &UnixStream) -> Vitality {
    match socket.peer_cred().ok().and_then(|credentials| credentials.pid()) {
        Some(pid) => of_process(pid),
        None => Vitality::Unknown,
    }
}

fn of_process(pid: i32) -> Vitality {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => judge(&stat),
        // Gone, unless there is no /proc at all.
        Err(_) if fs::exists("/proc/self/stat").unwrap_or(false) => Vitality::Dying,
        Err(_) => Vitality::Unknown,
    }
}

/// `pid (name) state ppid pgrp session tty tpgid flags ...`, where the name may contain anything.
fn judge(stat: &[u8]) -> Vitality {
    let after_name = stat.iter().rposition(|byte| *byte == b')').map_or(&[][..], |at| &stat[at + 1..]);
    let mut fields = after_name.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = fields.next();
    let flags =
        fields.nth(FLAGS_AFTER_STATE - 1).and_then(|flags| std::str::from_utf8(flags).ok()?.parse().ok());
    match (state, flags) {
        (Some(b"Z" | b"X"), _) => Vitality::Dying,
        (Some(_), Some(flags)) => {
            let flags: u32 = flags;
            if flags & PF_EXITING == 0 { Vitality::Alive } else { Vitality::Dying }
        }
        (Some(_) | None, _) => Vitality::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        os::unix::net::UnixListener,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_name_with_brackets_hides_nothing() {
        assert_eq!(judge(b"7 (a) Z (b) S 1 2 3 0 -1 4194304 9"), Vitality::Alive);
        assert_eq!(judge(b"7 (sleep) S 1 2 3 0 -1 4194308 9"), Vitality::Dying);
        assert_eq!(judge(b"7 (sleep) Z 1 2 3 0 -1 4194304 9"), Vitality::Dying);
        assert_eq!(judge(b"7 (sleep"), Vitality::Unknown);
        assert_eq!(judge(b""), Vitality::Unknown);
    }

    #[test]
    fn we_live_and_a_child_that_was_waited_for_does_not() {
        assert_eq!(of_process(i32::try_from(std::process::id()).unwrap()), Vitality::Alive);
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!(of_process(pid), Vitality::Dying);
    }

    /// What `a_killed_process_is_known_as_such_the_moment_its_socket_ends` kills.
    #[test]
    fn helper_that_connects_and_waits() {
        let Some(path) = std::env::var_os("P2POS_TEST_CONNECT_TO") else { return };
        let _sockets: Vec<_> =
            (0..8).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
        println!("connected");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(std::thread::park);
            }
        });
    }

    #[test]
    fn a_killed_process_is_known_as_such_the_moment_its_socket_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        for _ in 0..20 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "stream::vitality::tests::helper_that_connects_and_waits", "--nocapture"])
                .env("P2POS_TEST_CONNECT_TO", &path)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut sockets: Vec<_> = (0..8).map(|_| listener.accept().unwrap().0).collect();
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("connected") {
                assert!(lines.read_line(&mut line).unwrap() > 0, "the helper failed: {line}");
            }
            let pid = i32::try_from(child.id()).unwrap();
            assert_eq!(of_process(pid), Vitality::Alive);
            child.kill().unwrap();
            // The last one made is the one that the kernel may close first.
            assert_eq!(sockets.pop().unwrap().read(&mut [0]).unwrap(), 0);
            assert_eq!(of_process(pid), Vitality::Dying);
            child.wait().unwrap();
        }
    }
}
