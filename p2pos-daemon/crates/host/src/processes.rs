//! The process tables of the kernel: who are my children now. Owns the reading of `/proc`.
//!
//! A child's number belongs to it until its parent has waited for it, so whoever reads its own children here and is
//! the only one to wait for them may signal them by number without hitting a stranger (plugin-host.md B15).
//!
//! Refuses to know: plugins. Linux only; a port needs kqueue or job objects here.

use std::{fs, io};

use rustix::process::{Pid, Signal};

/// The live or unwaited children of this process, in no order.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn my_children() -> io::Result<Vec<Pid>> {
    let me = rustix::process::getpid();
    let mut children = Vec::new();
    let mut is_list_there = false;
    for task in fs::read_dir("/proc/self/task")? {
        // Kernels without CONFIG_PROC_CHILDREN have no such file; a thread may also just have ended.
        if let Ok(list) = fs::read_to_string(task?.path().join("children")) {
            is_list_there = true;
            children.extend(list.split_ascii_whitespace().filter_map(pid_of));
        }
    }
    if is_list_there { Ok(children) } else { children_by_scan(me) }
}

/// The slow way: asks every process for its parent.
fn children_by_scan(parent: Pid) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(pid_of) else { continue };
        if parent_of(pid) == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // "PID (name) STATE PPID ...", where the name may hold anything, also ") ".
    let (_, rest) = stat.rsplit_once(") ")?;
    pid_of(rest.split(' ').nth(1)?)
}

fn pid_of(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

/// Kills one child of ours. One that is dead already is as good.
pub(crate) fn kill_child(child: Pid) {
    if let Err(error) = rustix::process::kill_process(child, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = child.as_raw_nonzero().get(), %error, "a child could not be killed");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_seen_both_ways_until_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = pid_of(&child.id().to_string()).unwrap();
        assert!(my_children().unwrap().contains(&pid));
        assert!(children_by_scan(rustix::process::getpid()).unwrap().contains(&pid));
        kill_child(pid);
        child.wait().unwrap();
        assert!(!my_children().unwrap().contains(&pid));
    }
}
