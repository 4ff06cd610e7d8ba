//! The bundled plugins in languages that have no test runner of their own here. Each brings one program that tests it and says
//! by its exit code how that went; in the end all of them run under two real daemons.

use std::time::Duration;

use anyhow::Result;

use super::machine::needs;
use crate::command::Command;
use crate::repo;
use crate::steps::Steps;

/// One plugin's test is a handful of exchanges over a local socket; a minute means that it hangs.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Two daemons and four plugins start, and each moves a few megabytes: some ten seconds, on a loaded machine several times that.
const DAEMONS_RUN_MAX: Duration = Duration::from_secs(180);

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("plugins: echo-tcl", || {
        needs("tclsh", "tcl")?;
        Command::new("python3").args(["plugins/echo-tcl/test_echo.py"]).deadline(RUN_MAX).run()
    });
    steps.run("plugins: hello-sh", || {
        Command::new("sh").args(["plugins/hello-sh/test.sh"]).deadline(RUN_MAX).run()
    });
    steps.run("plugins: echo-go", || {
        needs("go", "golang-go")?;
        Command::new("go").args(["vet", "./..."]).folder(repo::root().join("plugins/echo-go")).run()?;
        build_go()
    });
    steps.run("plugins: examples under daemons", || {
        needs("tclsh", "tcl")?;
        needs("node", "nodejs")?;
        Command::cargo(&["build", "--locked", "-p", "p2pos", "-p", "p2pos-conformance", "--bins"]).run()?;
        build_go()?;
        Command::new("python3").args(["plugins/test_examples.py"]).deadline(DAEMONS_RUN_MAX).run()
    });
}

/// The plugin in Go, and its agent for the conformance kit.
pub(super) fn build_go() -> Result<()> {
    needs("go", "golang-go")?;
    let folder = repo::root().join("plugins/echo-go");
    let made = repo::target().join("plugins/go/");
    std::fs::create_dir_all(&made)?;
    Command::new("go").args(["build", "-o"]).args([&made]).args([".", "./conformance"]).folder(folder).run()
}
