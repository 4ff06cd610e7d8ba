//! The SDKs beside each other: the same work by a plugin in each language, on both sides of the same pair of daemons.
//!
//! The Rust plugin is this program; the others lie in `plugins/`. Both ends speak one language, so what is measured is its worst case: an
//! author's program that sends, and another that receives and looks at every message's length.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result};

use crate::{
    processes,
    report::{Budget, Options, Samples, failed, push, wanted},
    systems::p2pos::Pair,
};

/// What is measured: name here, name in `work.rs`, how much for programs and for scripts (seconds for bulk, else messages).
const JOBS: [(&str, &str, [&str; 2]); 3] = [
    ("sdk-bulk", "bulk", ["3", "3"]),
    ("sdk-messages-batched", "messages-batched", ["3000000", "1000000"]),
    ("sdk-messages-flushed", "messages-flushed", ["300000", "100000"]),
];

/// Language, and whether its streams have sockets of their own.
pub const SYSTEMS: [&str; 8] = [
    "rust",
    "rust-detached",
    "c",
    "c-detached",
    "python-aio",
    "python-aio-detached",
    "python-sync",
    "python-sync-detached",
];
pub const PYTHON_DETACHED: [&str; 2] = ["python-aio-detached", "python-sync-detached"];

/// Units for the report.
pub const UNITS: [(&str, &str); 3] =
    [("sdk-bulk", "MiB/s"), ("sdk-messages-batched", "messages/s"), ("sdk-messages-flushed", "messages/s")];

/// A link of 1 Gbit/s carries so much, MiB/s.
const GIGABIT: f64 = 119.0;
/// For each of the SDKs.
pub const BUDGETS: [Budget; 1] =
    [Budget { job: "sdk-bulk", beside: None, limit: GIGABIT, more_is_better: true }];
/// For [`PYTHON_DETACHED`].
pub const PYTHON_BUDGETS: [Budget; 1] =
    [Budget { job: "sdk-bulk", beside: Some("rust-detached"), limit: 0.8, more_is_better: true }];

/// One round of all the jobs asked for.
pub fn run(options: &Options, samples: &mut Samples, round: usize) {
    for (job, work, amounts) in JOBS.into_iter().filter(|(job, ..)| wanted(&options.only, job)) {
        for turn in 0..SYSTEMS.len() {
            let system = SYSTEMS[(turn + round) % SYSTEMS.len()];
            if !wanted(&options.systems, system) {
                continue;
            }
            eprint!("\rround {}: {job} {system}          ", round + 1);
            let amount = amounts[usize::from(system.starts_with("python"))];
            let measured = plugin(system).and_then(|plugin| {
                let pair = Pair::start_plugin(&options.p2pos, &plugin)?;
                match &plugin.drive {
                    Drive::Own(system) => pair.drive(system, &[work, amount]),
                    Drive::Words(words) => pair.drive_plugin(words, &[work, amount]),
                }
            });
            match measured {
                Ok(measured) => push(samples, job, system, measured.value),
                Err(error) => failed(job, system, &error),
            }
        }
    }
}

/// How a plugin is started, at the serving end and at the driving one.
pub struct Plugin {
    pub serve: Vec<String>,
    pub drive: Drive,
}

pub enum Drive {
    /// This program, as this system.
    Own(&'static str),
    /// Followed by the PeerId, the job and its amount.
    Words(Vec<String>),
}

fn plugin(system: &str) -> Result<Plugin> {
    let (language, mode) = match system.strip_suffix("-detached") {
        Some(language) => (language, "detached"),
        None => (system, "mux"),
    };
    let words = match language {
        "rust" => {
            let system = if mode == "mux" { "p2pos" } else { "p2pos-detached" };
            let own = text(std::env::current_exe()?)?;
            return Ok(Plugin { serve: vec![own, "plugin".to_owned()], drive: Drive::Own(system) });
        }
        "c" => vec![c_program()?],
        shell => {
            let script = text(folder("tools/bench/plugins/bench.py"))?;
            let shell = shell.trim_start_matches("python-").to_owned();
            vec![python()?, "-B".to_owned(), script, shell]
        }
    };
    let with = |action: &str| [&words[..], &[mode.to_owned(), action.to_owned()]].concat();
    Ok(Plugin { serve: with("serve"), drive: Drive::Words(with("drive")) })
}

/// The interpreter itself: a launcher before it would need an environment that plugins do not get.
fn python() -> Result<String> {
    let mut command = Command::new("python3");
    command.args(["-c", "import sys; print(sys.executable)"]);
    Ok(processes::output(command)
        .context("the Python plugin needs python3 (3.11 or newer)")?
        .trim()
        .to_owned())
}

/// Compiles the C plugin with the SDK's sources, once for a run, and puts it beside this program.
fn c_program() -> Result<String> {
    static MADE: OnceLock<String> = OnceLock::new();
    if let Some(program) = MADE.get() {
        return Ok(program.clone());
    }
    let program = text(std::env::current_exe()?.with_file_name("p2pos-bench-plugin-c"))?;
    let sdk = folder("sdk-c");
    let mut command = Command::new("cc");
    command.args(["-O2", "-g", "-std=c99", "-D_POSIX_C_SOURCE=200809L", "-DP2POS_BUILD", "-o", &program]);
    for include in ["include", "src"] {
        command.arg("-I").arg(sdk.join(include));
    }
    command.args(["-I", "/usr/include/nanopb"]).arg(folder("tools/bench/plugins/bench.c"));
    for sources in ["src", "src/pb"] {
        for entry in std::fs::read_dir(sdk.join(sources))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c") {
                command.arg(path);
            }
        }
    }
    command.arg("-lprotobuf-nanopb");
    processes::output(command).context("the C plugin needs a C compiler and nanopb (libnanopb-dev)")?;
    Ok(MADE.get_or_init(|| program).clone())
}

/// A folder or file of the checkout that this program was built from.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn text(path: PathBuf) -> Result<String> {
    path.into_os_string().into_string().ok().context("a path that is not UTF-8")
}
