//! The guard: a tiny process of ours between the daemon and each plugin process, so that nothing a plugin starts can
//! outlive the daemon. Owns what `p2pos __guard` does, and the words it exchanges with the daemon.
//!
//! ```text
//!   daemon ──control socket──> guard (`watch`) ──> `enter` ──exec──> the plugin's program ──> whatever it forks
//! ```
//!
//! Why a process: a parent-death signal reaches only a direct child, and a program that forks twice and calls setsid
//! has left both its parent and its process group. The guard is the *subreaper* of all of them: whoever loses its
//! parent becomes the guard's child. When the control socket ends (the daemon let go, or died, also by kill -9) or the
//! program ends, the guard kills its children, again and again, until it has none; then it ends itself. A guard that
//! is killed takes the program along (parent-death signal), and the daemon, itself a subreaper, sweeps the rest. A
//! guard that was stopped by SIGSTOP is woken by the daemon's death (its own parent-death signal is SIGCONT).
//!
//! `enter` is a second run of the same binary: it makes a session of its own, fences itself in ([`crate::sandbox`]) and
//! becomes the program. So no code runs between fork and exec, and no `unsafe` is needed.
//!
//! The guard holds the children's numbers safely: it alone waits for them, so no number is used after its process was
//! reaped (plugin-host.md B15). It refuses to know manifests, restarts, sockets of the plugin protocol.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus},
};

use crate::{
    processes::{kill_child, my_children},
    sandbox::{self, ProcessLimits},
};

/// Daemon to guard: here are stdin, stdout and stderr (as ancillary data); start.
pub(crate) const START: u8 = b'S';
/// Daemon to guard: SIGTERM to the program's process group.
pub(crate) const TERMINATE: u8 = b'T';
/// Daemon to guard: kill everything. The end of the control socket means the same.
pub(crate) const KILL: u8 = b'K';
/// Bytes of a report to the daemon: one tag and an i32, big-endian.
pub(crate) const REPORT_BYTES: usize = 5;
/// Guard to daemon: the program runs under this number.
pub(crate) const STARTED: u8 = b'P';
/// Guard to daemon: it could not be started; the number is the errno.
pub(crate) const NOT_STARTED: u8 = b'F';
/// Guard to daemon: the program ended with this exit code. Its descendants are being swept.
pub(crate) const EXITED: u8 = b'E';
/// Guard to daemon: the program was killed by this signal.
pub(crate) const SIGNALLED: u8 = b'X';

/// Exit code of a program that cannot even be started: 78, "configuration error" of sysexits.h, is not retried.
const EXIT_CONFIG: i32 = 78;

/// Pause between two rounds of killing: short beside the promised 2 s, long enough not to burn a core on a zombie that
/// needs its time.
const SWEEP_PAUSE: Duration = Duration::from_millis(2);

/// Runs the guard and never returns. The binary calls this first of all in `main` when its first argument is the
/// hidden guard command, before any runtime, thread or logger exists; `arguments` are those behind that command.
pub fn guard_main(arguments: impl Iterator<Item = OsString>) -> ! {
    let mut arguments = arguments;
    let role = arguments.next();
    let outcome = match role.as_deref().and_then(|role| role.to_str()) {
        Some("watch") => watch(arguments.collect()),
        Some("enter") => enter(arguments.collect()),
        Some(_) | None => Err(io::Error::other("this command is p2pOS's own and of no use by hand")),
    };
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            // The plugin's log gets this (`enter`), or nobody (`watch`, whose stderr is /dev/null).
            report_words(&format!("p2pos: {error}\n"));
            EXIT_CONFIG
        }
    };
    std::process::exit(code)
}

fn report_words(words: &str) {
    if io::stderr().write_all(words.as_bytes()).is_err() {
        // Nobody reads any more: the exit code still tells.
    }
}

/// The guard itself. `arguments`: how many words re-run the guard command, those words, then what `enter` takes.
fn watch(arguments: Vec<OsString>) -> io::Result<()> {
    let me = rustix::process::getpid();
    // Out of the terminal's foreground group: Ctrl-C is for the daemon, which then stops us in order.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(me))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::CONT))?;

    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let [stdin, stdout, stderr] = receive_stdio(&control)?;
    let (again, rest) = split_counted(arguments)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("p2pos-launch").args(again).arg("enter").arg(me.as_raw_nonzero().to_string()).args(rest);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let started = command.spawn();
    // Our copies of the plugin's stdio go now, so that its closing of stdout is seen as such.
    drop(command);
    let program = match started {
        Ok(child) => {
            let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            number.ok_or_else(|| io::Error::other("the kernel gave a process number that is none"))?
        }
        Err(error) => {
            report(&control, NOT_STARTED, error.raw_os_error().unwrap_or(0));
            return Ok(());
        }
    };
    report(&control, STARTED, program.as_raw_nonzero().get());

    let held = Arc::new(Mutex::new(Some(program)));
    obey_in_background(control.try_clone()?, held.clone())?;
    let (tag, number) = await_end(program, &held)?;
    report(&control, tag, number);
    sweep()
}

/// Becomes the plugin's program. `arguments`: the guard's number, `dir=PATH`, limits as `files=N` and `memory=N`, `--`, the
/// command.
///
/// The program's folder is entered here and nowhere earlier: it may lie on a share that does not answer, and this process
/// is the first that has nobody else to keep waiting.
fn enter(arguments: Vec<OsString>) -> io::Result<()> {
    let mut arguments = arguments.into_iter();
    let guard = arguments.next().and_then(|text| text.to_str()?.parse().ok()).and_then(Pid::from_raw);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The guard may have died before the line above; then the signal would never come.
    if rustix::process::getppid() != guard || guard.is_none() {
        return Err(io::Error::other("the guard is gone"));
    }
    rustix::process::setsid()?;
    let mut limits = ProcessLimits { files: u64::MAX, memory_bytes: None };
    for argument in arguments.by_ref().take_while(|argument| argument != "--") {
        if let Some(dir) = argument.as_bytes().strip_prefix(b"dir=") {
            enter_dir(Path::new(OsStr::from_bytes(dir)))?;
            continue;
        }
        match argument.to_str().and_then(|text| text.split_once('=')) {
            Some(("files", number)) => limits.files = parse_number(number)?,
            Some(("memory", number)) => limits.memory_bytes = Some(parse_number(number)?),
            Some(_) | None => return Err(io::Error::other("an unknown limit was given to the guard")),
        }
    }
    let program = arguments.next().ok_or_else(|| io::Error::other("no program was given to the guard"))?;
    sandbox::enter(&limits)
        .map_err(|error| io::Error::other(format!("the limits cannot be set: {error}")))?;
    let error = Command::new(&program).args(arguments).exec();
    Err(io::Error::other(format!("{} cannot be run: {error}", program.display())))
}

fn enter_dir(dir: &Path) -> io::Result<()> {
    let entered = std::env::set_current_dir(dir);
    entered.map_err(|error| io::Error::other(format!("{} cannot be entered: {error}", dir.display())))
}

fn parse_number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::other("a limit given to the guard is no number"))
}

fn split_counted(mut words: Vec<OsString>) -> io::Result<(Vec<OsString>, Vec<OsString>)> {
    let count = words.first().and_then(|word| word.to_str()?.parse::<usize>().ok());
    match count {
        Some(count) if count < words.len() => {
            let rest = words.split_off(count + 1);
            words.remove(0);
            Ok((words, rest))
        }
        Some(_) | None => Err(io::Error::other("the guard's arguments are cut short")),
    }
}

/// The first message on the control socket carries the three descriptors.
fn receive_stdio(control: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let mut word = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(control, &mut [IoSliceMut::new(&mut word)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let missing = || io::Error::other("the daemon gave no stdio to the guard");
    if received.bytes != 1 || word[0] != START {
        return Err(missing());
    }
    descriptors.try_into().map_err(|_| missing())
}

fn report(control: &UnixStream, tag: u8, number: i32) {
    let mut words = [tag, 0, 0, 0, 0];
    words[1..].copy_from_slice(&number.to_be_bytes());
    if (&mut &*control).write_all(&words).is_err() {
        // The daemon is gone: the control thread sees the same end and kills everything.
    }
}

/// Reads the daemon's orders until the socket ends, then kills the program: the main thread does the rest.
///
/// `held` is the program's number while it has not been reaped; the lock is held over each use of it.
fn obey_in_background(mut control: UnixStream, held: Arc<Mutex<Option<Pid>>>) -> io::Result<()> {
    let obey = move || {
        let mut order = [0_u8; 1];
        loop {
            let is_over = match control.read(&mut order) {
                Ok(0) => true,
                Ok(_) => order[0] == KILL,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => true,
            };
            let program = held.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(program) = *program {
                let signal = if is_over { Signal::KILL } else { Signal::TERM };
                signal_group(program, signal);
                if is_over {
                    // It may not have made its group yet.
                    kill_child(program);
                }
            }
            drop(program);
            if is_over {
                return;
            }
        }
    };
    thread::Builder::new().name("guard-control".into()).stack_size(64 * 1024).spawn(obey)?;
    Ok(())
}

/// A group that does not exist is as good as signalled.
fn signal_group(leader: Pid, signal: Signal) {
    if rustix::process::kill_process_group(leader, signal).is_err() {
        // ESRCH: not made yet, or empty. EPERM cannot be: the members are our own descendants.
    }
}

/// Waits until the program has ended, reaping strays that were handed to us meanwhile.
fn await_end(program: Pid, held: &Mutex<Option<Pid>>) -> io::Result<(u8, i32)> {
    loop {
        // Looks without taking, so that the program's number stays ours until the lock is held.
        match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if let Ok(Some(_)) = rustix::process::waitid(WaitId::Pid(program), peek) {
            // One blow at the whole group while its leader's number is still taken.
            signal_group(program, Signal::KILL);
            *held = None;
            let status = rustix::process::waitpid(Some(program), WaitOptions::empty())?;
            return Ok(status.map_or((EXITED, 0), |(_, status)| report_of(status)));
        }
        while let Ok(Some((ended, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if ended == program {
                // It ended between the look above and here. Its group, if any, falls to the sweep.
                *held = None;
                return Ok(report_of(status));
            }
        }
    }
}

fn report_of(status: WaitStatus) -> (u8, i32) {
    match status.terminating_signal() {
        Some(signal) => (SIGNALLED, signal),
        None => (EXITED, status.exit_status().unwrap_or(0)),
    }
}

/// Kills all children until there are none: those that a killed child leaves behind become ours, and are next.
fn sweep() -> io::Result<()> {
    loop {
        for child in my_children()? {
            kill_child(child);
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(SWEEP_PAUSE);
    }
}
