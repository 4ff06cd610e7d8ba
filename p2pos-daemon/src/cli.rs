//! The command line: reads the words, does them (by asking the daemon, mostly), tells how it went.
//!
//! Every command is a function from a [`Context`] to a document on stdout or a [`Failure`]; this file owns the way in
//! and the way out. Exit codes are those of [`p2pos_control::Exit`] and nothing else.

mod args;
mod contacts;
mod dial;
mod explain;
#[cfg(test)]
mod golden;
mod identity;
mod netcheck;
mod output;
mod ping;
mod plugins;
mod relay;
mod render;
mod settings;
mod table;
mod units;

use std::env;
use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;
use p2pos_control::{Client, Document, Failure, Request};
use tokio::runtime;

use self::args::{Command, CommandLine, Demo, Relay, Up};
pub(crate) use self::output::Output;
pub(crate) use self::units::{micros, month};
use crate::paths::{Paths, Surroundings};
use crate::vigil::{self, Pulse};
use crate::{app, demo};

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) paths: Paths,
    pub(crate) output: Output,
}

impl Context {
    /// Connects to the daemon.
    pub(crate) async fn daemon(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.paths.control_socket()).await?)
    }

    /// Asks the daemon one question.
    pub(crate) async fn call(&self, request: Request) -> Result<Document, Failure> {
        Ok(self.daemon().await?.call(request).await?)
    }

    /// Asks the daemon one question and prints the answer.
    pub(crate) async fn show(&self, request: Request) -> Result<(), Failure> {
        self.output.document(&self.call(request).await?)
    }
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let line = CommandLine::parse();
    let words = line.words();
    let output = Output::of_process(line.json);
    match done(line, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(output.failure(&failure.during(words)).code()),
    }
}

fn done(line: CommandLine, output: Output) -> Result<(), Failure> {
    let paths = Paths::choose(line.data_dir.as_deref(), &Surroundings::of_process())?;
    let context = Context { paths, output };
    match line.command {
        Command::Up(up) => self::up(context, &up),
        Command::Status => on_runtime(context.show(Request::Status)),
        Command::Id(id) => identity::run(&context, id),
        Command::Contacts(command) => on_runtime(contacts::run(&context, command)),
        Command::Plugins(command) => on_runtime(plugins::run(&context, command)),
        Command::Dial(dial) => on_runtime(dial::run(&context, dial)),
        Command::Ping(ping) => on_runtime(ping::run(&context, ping)),
        Command::Explain { peer } => on_runtime(context.show(Request::Explain { who: peer })),
        Command::Netcheck => on_runtime(context.show(Request::Netcheck)),
        Command::Relay(Relay::Status) => on_runtime(context.show(Request::RelayStatus)),
        Command::Config(command) => settings::run(&context, command),
        Command::Demo(Demo { peers, bytes, keep }) => {
            on_runtime(demo::run(demo::Orders { peers, bytes, keep }, context.output))
        }
        Command::Completions { shell } => completions(&context, shell),
    }
}

fn up(context: Context, up: &Up) -> Result<(), Failure> {
    let loaded = settings::load(&context)?;
    let orders = app::Orders { port: up.port, until_stdin_closes: up.until_stdin_closes };
    let mut builder = runtime::Builder::new_current_thread();
    let pulse = Pulse::default();
    let vigil = env::var_os(vigil::SWITCH).map(|_| vigil::keep(&mut builder, pulse.clone()));
    on(builder, async {
        vigil.map(tokio::spawn);
        app::run(context.paths, &loaded, orders, context.output, pulse).await
    })
}

/// Runs one command on a runtime of its own, on this thread.
fn on_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    on(runtime::Builder::new_current_thread(), command)
}

fn on(
    mut builder: runtime::Builder,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(command);
    // A read of stdin that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    done
}

fn completions(context: &Context, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "p2pos", &mut script);
    context.output.data(&String::from_utf8_lossy(&script))
}
