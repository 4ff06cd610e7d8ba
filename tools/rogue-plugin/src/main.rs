//! The rogue plugin's program: commits the misdeed that its first argument names and writes down how the daemon answered.
//! Its second argument, if there is one, is the PeerId whom stream misdeeds open. `--list` prints all misdeeds.

#![expect(
    clippy::print_stdout,
    reason = "the report is for the test that started us, and a plugin's stdout is its log"
)]

use std::io::Write as _;

use anyhow::{Context as _, Result};
use p2pos_rogue_plugin::{Stage, commit, misdeeds, play_hidden_part};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    play_hidden_part(&arguments);
    let name = arguments.first().context("which misdeed? see --list")?;
    if name == "--list" {
        for misdeed in misdeeds() {
            // The reader may go away in the middle of the list.
            if writeln!(
                std::io::stdout(),
                "{:24} {:14} {}",
                misdeed.name,
                misdeed.answer.to_string(),
                misdeed.story
            )
            .is_err()
            {
                break;
            }
        }
        return Ok(());
    }
    let mut stage = Stage::from_environment(arguments.get(1).cloned())?;
    let answer = commit(name, &mut stage)?;
    println!("{name}: {answer}");
    stage.report(answer)
}
