//! The C SDK: its own tests plain, under the sanitizers and under valgrind; installed and used as an author does; and its examples as
//! plugins of two real daemons. What is tested stands in `sdk-c/tests`; this file only says in which builds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::machine::needs;
use crate::command::Command;
use crate::repo;
use crate::steps::Steps;

const SDK: &str = "sdk-c";
/// Each of these takes ten seconds on a quiet machine; the tests within have limits of their own.
const RUN_MAX: Duration = Duration::from_secs(300);

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("c: tests", || {
        build("sdk-c", &[])?;
        run_tests("sdk-c", &["--exclude-regex", "^valgrind"])
    });
    steps.run("c: sanitizers", || {
        build("sdk-c-sanitized", &["-DP2POS_SANITIZE=ON"])?;
        run_tests("sdk-c-sanitized", &[])
    });
    steps.run("c: valgrind", || {
        needs("valgrind", "valgrind")?;
        build("sdk-c", &[])?;
        // Without this a build that was configured before valgrind came would have no such tests, and pass.
        run_tests("sdk-c", &["--no-tests=error", "--tests-regex", "^valgrind"])
    });
    steps.run("c: installed", || {
        needs("pkg-config", "pkg-config")?;
        needs("mandoc", "mandoc")?;
        build("sdk-c", &[])?;
        Command::new("sh").args(["sdk-c/tests/install.sh"]).args([folder("sdk-c")]).deadline(RUN_MAX).run()
    });
    steps.run("c: whole daemons", || {
        build("sdk-c", &[])?;
        Command::cargo(&["build", "--locked", "--package", "p2pos", "--bin", "p2pos"]).run()?;
        Command::new("python3")
            .args(["-B", "sdk-c/tests/daemons.py"])
            .args([repo::target().join("debug/p2pos"), folder("sdk-c").join("examples")])
            .deadline(RUN_MAX)
            .run()
    });
}

/// The shared library as it is now.
pub(crate) fn library() -> Result<PathBuf> {
    build("sdk-c", &[])?;
    Ok(folder("sdk-c").join("libp2pos.so"))
}

/// Configures and builds into a folder under target/.
fn build(name: &str, options: &[&str]) -> Result<()> {
    needs("cmake", "cmake")?;
    Command::new("cmake")
        .args(["-S", SDK, "-DP2POS_BUILD_TESTS=ON", "-DP2POS_WERROR=ON", "-B"])
        .args([folder(name)])
        .args(options)
        .deadline(RUN_MAX)
        .run()?;
    Command::new("cmake")
        .args(["--build"])
        .args([folder(name)])
        .args(["--parallel", "2"])
        .deadline(RUN_MAX)
        .run()
}

fn run_tests(name: &str, which: &[&str]) -> Result<()> {
    Command::new("ctest")
        .args(["--output-on-failure"])
        .args(which)
        .folder(folder(name))
        .deadline(RUN_MAX)
        .run()
}

fn folder(name: &str) -> PathBuf {
    repo::target().join(name)
}
