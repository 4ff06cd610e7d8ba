//! The Python tests: the SDK on the oldest and the newest protobuf runtime, types and style, the plugins written with it, the golden
//! vectors' own generator, and the second implementation of Noise-QUIC.
//!
//! Virtual environments lie under target/ and are made once; each requirement is pinned, because a test that fails for somebody
//! else's release teaches nobody anything. What needs no package is run without one, for that is a promise of the SDK.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::machine::needs;
use crate::command::Command;
use crate::repo;
use crate::steps::Steps;

const SDK: &str = "sdk-python";
const NEWEST: &str = "tools/xtask/python/newest.txt";
const OLDEST: &str = "tools/xtask/python/oldest.txt";
const INSTALL: &str = "tools/xtask/python/install.txt";
const SECOND_NOISE: &str = "p2pos-daemon/crates/noise-quic/tests/second";

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("python: no packages", || bare()?.args(["-I", "-S", "-B", "sdk-python/tests/bare.py"]).run());
    steps.run("vectors: as generated", || {
        bare()?.args(["-B", "plugin-protocol/vectors/generate.py", "--check"]).run()
    });
    steps.run("python: newest protobuf", || tests("venv-newest", NEWEST));
    steps.run("python: oldest protobuf", || {
        tests("venv-oldest", OLDEST)?;
        with("venv-oldest", OLDEST)?.args(["-B", "sdk-python/tests/generate_pb.py", "--check"]).run()
    });
    steps.run("python: types and style", types_and_style);
    steps.run("python: pip install", pip_install);
    steps.run("plugins: chat", || {
        let arguments = ["-B", "-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".", "../plugins/chat"];
        with("venv-newest", NEWEST)?.args(arguments).folder(sdk()).run()
    });
    steps.run("python: second noise-quic", || {
        let requirements = format!("{SECOND_NOISE}/requirements.txt");
        let folder = repo::root().join(SECOND_NOISE);
        with("venv-noise", &requirements)?.args(["-B", "-m", "pytest", "-q"]).folder(folder).run()
    });
}

fn tests(name: &str, requirements: &str) -> Result<()> {
    with(name, requirements)?.args(["-B", "-m", "pytest"]).folder(sdk()).run()
}

fn types_and_style() -> Result<()> {
    let tool =
        |arguments: &[&str]| with("venv-oldest", OLDEST)?.args(["-m"]).args(arguments).folder(sdk()).run();
    tool(&["ruff", "check", ".", "../plugins/chat", "../tools/bench/plugins"])?;
    tool(&["ruff", "format", "--check", ".", "../plugins/chat", "../tools/bench/plugins"])?;
    tool(&["mypy"])
}

/// Installs the SDK as an author does, and uses it from a folder where nothing of the checkout is on the path.
fn pip_install() -> Result<()> {
    let python = installer()?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-build-isolation",
        "--force-reinstall",
    ];
    Command::new(&python).args(pip).args(["./sdk-python"]).run()?;
    let proof = "import importlib.resources, p2pos, p2pos.aio, p2pos.sync, p2pos.testing; \
                 assert (importlib.resources.files(p2pos) / 'py.typed').is_file(); print('p2pos', p2pos.__version__)";
    Command::new(&python).args(["-I", "-B", "-W", "error", "-c", proof]).folder(repo::target()).run()
}

/// The interpreter of the environment in which the SDK's wheel is built.
pub(crate) fn installer() -> Result<PathBuf> {
    environment("venv-install", INSTALL)
}

/// The interpreter of an environment in which nothing but this wheel is installed.
pub(super) fn with_wheel(name: &str, wheel: &Path) -> Result<PathBuf> {
    needs("python3", "python3")?;
    let folder = repo::target().join(name);
    let python = folder.join("bin/python");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    Command::new("python3")
        .args(["-m", "venv"])
        .args([&folder])
        .run()
        .context("make a virtual environment")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"];
    Command::new(&python).args(pip).args([wheel]).run()?;
    Ok(python)
}

/// The system's Python, as a plugin of a fresh checkout finds it.
fn bare() -> Result<Command> {
    needs("python3", "python3")?;
    Ok(Command::new("python3"))
}

/// The Python of a virtual environment with these requirements.
fn with(name: &str, requirements: &str) -> Result<Command> {
    Ok(Command::new(environment(name, requirements)?))
}

fn sdk() -> PathBuf {
    repo::root().join(SDK)
}

/// Makes a virtual environment, unless it is there already with just these requirements, and gives its interpreter.
fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    needs("python3", "python3")?;
    let folder = repo::target().join(name);
    let python = folder.join("bin/python");
    let wanted = repo::read(requirements)?;
    let note = folder.join("requirements-installed.txt");
    if fs::read_to_string(&note).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    Command::new("python3")
        .args(["-m", "venv"])
        .args([&folder])
        .run()
        .context("make a virtual environment")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements];
    Command::new(&python).args(pip).run().context("install what the tests need: is there a network?")?;
    fs::write(note, wanted)?;
    Ok(python)
}
