//! The conformance kit: the golden vectors, and each implementation's agent at the level that it promises. Whoever adds a language adds a
//! row; the kit's own tests (every MUST has a case, the real daemon, the port guide) run with the Rust ones.

use std::time::Duration;

use anyhow::Result;

use super::machine::needs;
use super::plugins;
use crate::command::Command;
use crate::repo;
use crate::steps::Steps;

/// Some eighty cases of a tenth of a second each, four at a time; an interpreter on a loaded machine takes its time to start.
const RUN_MAX: Duration = Duration::from_secs(180);
/// Over three hundred cases, one after the other, each with plugins of its own: one minute, or two on a loaded machine.
const DAEMON_RUN_MAX: Duration = Duration::from_secs(300);

/// One implementation.
struct Agent {
    name: &'static str,
    level: &'static str,
    /// What the kit is told before the command: `--tcp`, `--tier0`, `--expected-failures FILE`.
    options: &'static [&'static str],
    /// Started in the checkout's root.
    command: &'static [&'static str],
    /// A program and the Debian package that brings it, if a machine may lack it.
    needs: Option<(&'static str, &'static str)>,
}

const PYTHON: Option<(&str, &str)> = Some(("python3", "python3"));

const AGENTS: &[Agent] = &[
    Agent {
        name: "conformance: rust",
        level: "gold",
        options: &[],
        command: &["target/debug/examples/agent-rust"],
        needs: None,
    },
    Agent {
        name: "conformance: rust over tcp",
        level: "gold",
        options: &["--tcp"],
        command: &["target/debug/examples/agent-rust"],
        needs: None,
    },
    Agent {
        name: "conformance: python aio",
        level: "gold",
        options: &[],
        command: &[
            "env",
            "PYTHONPATH=sdk-python/src",
            "python3",
            "-B",
            "sdk-python/conformance/agent_aio.py",
        ],
        needs: PYTHON,
    },
    Agent {
        name: "conformance: python sync",
        level: "gold",
        options: &[],
        command: &[
            "env",
            "PYTHONPATH=sdk-python/src",
            "python3",
            "-B",
            "sdk-python/conformance/agent_sync.py",
        ],
        needs: PYTHON,
    },
    Agent {
        name: "conformance: c",
        level: "gold",
        options: &[],
        command: &["target/sdk-c/conformance_agent"],
        needs: None,
    },
    Agent {
        name: "conformance: go",
        level: "silver",
        options: &[],
        command: &["target/plugins/go/conformance"],
        needs: Some(("go", "golang-go")),
    },
    Agent {
        name: "conformance: go over tcp",
        level: "silver",
        options: &["--tcp"],
        command: &["target/plugins/go/conformance"],
        needs: Some(("go", "golang-go")),
    },
    Agent {
        name: "conformance: node",
        level: "silver",
        options: &[],
        command: &["node", "plugins/echo-node/conformance/agent.mjs"],
        needs: Some(("node", "nodejs")),
    },
    Agent {
        name: "conformance: tcl",
        level: "silver",
        options: &["--tcp"],
        command: &["tclsh", "plugins/echo-tcl/conformance/agent.tcl"],
        needs: Some(("tclsh", "tcl")),
    },
    Agent {
        name: "conformance: bash",
        level: "bronze",
        options: &["--tier0"],
        command: &["bash", "plugins/hello-sh/conformance/agent.sh"],
        needs: Some(("bash", "bash")),
    },
];

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("conformance: build", build);
    steps.run("conformance: vectors", || kit().args(["wire"]).deadline(RUN_MAX).run());
    steps.run("conformance: build go", plugins::build_go);
    for agent in AGENTS {
        steps.run(agent.name, || judge(agent));
    }
    steps.run("conformance: daemon", daemon);
    steps.run("conformance: mutants", mutants);
}

/// The kit and the agent in Rust.
pub(crate) fn build() -> Result<()> {
    Command::cargo(&["build", "--locked", "-p", "p2pos-conformance", "-p", "p2pos", "--bins", "--examples"])
        .run()
}

fn kit() -> Command {
    Command::new(repo::target().join("debug/p2pos-conformance"))
}

fn judge(agent: &Agent) -> Result<()> {
    if let Some((program, package)) = agent.needs {
        needs(program, package)?;
    }
    // Ours also do what was asked for later than version 1.
    let head = ["plugin", "--strict", "--level", agent.level];
    kit()
        .args(head)
        .args(agent.options)
        .args(["--"])
        .args(agent.command)
        .folder(repo::root())
        .deadline(RUN_MAX)
        .run()
}

/// Two real daemons that know each other. What ours is known to do otherwise stands in a list, which may only shrink.
fn daemon() -> Result<()> {
    needs("python3", "python3")?;
    let known = "tools/conformance/p2pos-daemon.expected-failures";
    Command::new("python3")
        .args(["tools/conformance/daemons.py", "--strict", "--expected-failures", known])
        .folder(repo::root())
        .deadline(DAEMON_RUN_MAX)
        .run()
}

/// The mutants that need no long build; `cargo xtask mutants` tries those of Rust, too.
fn mutants() -> Result<()> {
    needs("python3", "python3")?;
    needs("cmake", "cmake")?;
    needs("node", "nodejs")?;
    needs("tclsh", "tcl")?;
    let fast = ["--only", "python", "--only", "node", "--only", "tcl", "--only", "c"];
    Command::new("python3")
        .args(["-B", "tools/conformance/mutants/run.py"])
        .args(fast)
        .folder(repo::root())
        .run()
}
