//! The bundled plugins in languages that have no test runner of their own here. Each brings one program that tests it and says
//! by its exit code how that went.

use std::time::Duration;

use super::machine::needs;
use crate::command::Command;
use crate::steps::Steps;

/// One plugin's test is a handful of exchanges over a local socket; a minute means that it hangs.
const RUN_MAX: Duration = Duration::from_secs(60);

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("plugins: echo-tcl", || {
        needs("tclsh", "tcl")?;
        Command::new("python3").args(["plugins/echo-tcl/test_echo.py"]).deadline(RUN_MAX).run()
    });
    steps.run("plugins: hello-sh", || {
        Command::new("sh").args(["plugins/hello-sh/test.sh"]).deadline(RUN_MAX).run()
    });
}
