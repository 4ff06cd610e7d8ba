//! The chores of the project, all in Rust, because Rust is the one tool that everybody who builds this surely has.
//!
//! One file per chore: [`ci`], [`mod@test`], [`tidy`], [`gen_code`], [`mod@bench`], [`lab`], [`fuzz`], [`release`], [`mutants`]. [`steps`] runs them one after the other and
//! keeps the score; [`command`] starts other programs; [`repo`] knows where the checkout is and which files are ours.
//! Knows nothing of what p2pOS does.

mod bench;
mod ci;
mod command;
mod deny;
mod fuzz;
mod gen_code;
mod lab;
mod mutants;
mod release;
mod repo;
mod say;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's chores. `cargo xtask ci` is what CI runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Everything that CI checks: format, lints, docs, tidy, dependencies, then all tests.
    Ci {
        /// Only the steps whose name contains this text.
        #[arg(value_name = "PART")]
        only: Option<String>,
    },
    /// Sets up what the tests need, then runs all of them: Rust, Python, plugins, the demo.
    Test {
        /// Only the steps whose name contains this text.
        #[arg(value_name = "PART")]
        only: Option<String>,
    },
    /// Checks the house rules that no compiler knows: floors, sizes, headers, generated code, papers.
    Tidy {
        /// Writes what may be written: lower numbers into the ratchet, the marks that tie SPEC.md to its .proto file.
        #[arg(long)]
        bless: bool,
    },
    /// Makes the committed protobuf code from the .proto files.
    Gen {
        /// Changes nothing, fails where the committed code is not what would be made.
        #[arg(long)]
        check: bool,
    },
    /// Breaks our code on purpose, a little at a time, and sees that something notices. Takes hours, or as long as it may.
    Mutants {
        /// Begin no more after so many minutes.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// The part of the crate's mutants to begin with.
        #[arg(long, default_value_t = 0)]
        from: u32,
        /// Only one kind: rules, or crate.
        #[arg(value_name = "KIND")]
        only: Option<String>,
    },
    /// Keeps the plugin protocol as it is now, with all that others build upon, in plugin-protocol/releases/NAME.
    ReleaseProtocol {
        /// The protocol's version, with a second number for a later state of it: 1, 1.1.
        name: String,
    },
    /// Measures plugin to plugin beside other stacks; arguments go to tools/bench.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Real daemons behind real NATs: prove, matrix, scenario, stand, wire; arguments go to tools/natlab. Needs root.
    Lab {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs the fuzz targets under libFuzzer.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only this target.
        target: Option<String>,
        /// Afterwards makes the committed corpora anew, as small as their coverage allows.
        #[arg(long)]
        minimise: bool,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_good = match arguments.chore {
        Chore::Ci { only } => ci::run(only.as_deref())?,
        Chore::Test { only } => test::run(only.as_deref())?,
        Chore::Tidy { bless } => tidy::run(bless)?,
        Chore::Gen { check } => gen_code::run(check)?,
        Chore::Mutants { minutes, from, only } => mutants::run(&mutants::Asked { only, minutes, from })?,
        Chore::ReleaseProtocol { name } => release::run(&name)?,
        Chore::Bench { arguments } => bench::run(&arguments)?,
        Chore::Lab { arguments } => lab::run(&arguments)?,
        Chore::Fuzz { seconds, target, minimise } => fuzz::run(seconds, target.as_deref(), minimise)?,
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
