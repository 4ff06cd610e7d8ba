//! How far a plugin is fenced in. Owns the honest answer to "what is enforced?" and the place where it is enforced:
//! [`enter`] runs inside the plugin's own process, after the fork and before its program.
//!
//! This version enforces resource limits and "no new privileges", and says so. Namespaces, Landlock and seccomp come
//! with their own issue: [`Sandbox::probe`] will then return what this kernel really gave, strongest first
//! (reliability-ux.md C1), and [`enter`] will apply it.
//!
//! Refuses to know: manifests, sockets.

use std::{fs, io, os::fd::BorrowedFd};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde::Serialize;

/// What each process of a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessLimits {
    pub(crate) files: u64,
    /// Address space in bytes.
    pub(crate) memory_bytes: Option<u64>,
}

/// How strong the fence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Resource limits and no new privileges; the plugin has the user's own rights on files and network.
    None,
}

/// What this machine enforces on plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// How strong it is.
    pub level: Level,
    /// The same in words, for tables and `info`.
    pub words: &'static str,
}

impl Sandbox {
    /// Finds out what can be enforced here.
    #[must_use]
    pub const fn probe() -> Self {
        Self { level: Level::None, words: "none (rlimits)" }
    }
}

/// Fences the calling process in, for itself and all its descendants, for ever.
///
/// # Errors
/// When the kernel refuses any part: the plugin must not run then.
pub(crate) fn enter(limits: &ProcessLimits) -> io::Result<()> {
    keep_descriptors_back()?;
    limit(Resource::Nofile, limits.files)?;
    // A core dump would put a plugin's secrets on the disk.
    limit(Resource::Core, 0)?;
    if let Some(bytes) = limits.memory_bytes {
        limit(Resource::As, bytes)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Keeps every descriptor but stdin, stdout and stderr from the program that comes next. Ours are close-on-exec anyway;
/// those that the daemon's own starter left open (a terminal multiplexer, a CI runner) are not.
fn keep_descriptors_back() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 2)
        else {
            continue;
        };
        #[expect(unsafe_code, reason = "the only way to reach a descriptor that nobody in this process owns")]
        // SAFETY: the number was just listed as open, the directory's own included; this process has one thread, and
        // nothing is closed before the next line has run.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// Lowers soft and hard limit. Where the user's own hard limit is lower still, that one stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}
