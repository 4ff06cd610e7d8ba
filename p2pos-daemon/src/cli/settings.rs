//! `p2pos config`: works on the file, without the daemon, which reads its settings when it starts.

use p2pos_control::{Document, Done, Exit, Failure, Problem};

use super::Context;
use super::args::Config;
use crate::config::{self, Loaded};

/// Does one `config` command.
pub(crate) fn run(context: &Context, command: Config) -> Result<(), Failure> {
    match command {
        Config::Get { key: None } => {
            let loaded = load(context)?;
            warn(context, loaded.problems());
            context.output.document(&Document::Config(loaded.settings()))
        }
        Config::Get { key: Some(key) } => get(context, &key),
        Config::Set { key, value } => set(context, &key, &value),
        Config::Check => check(context),
        Config::Path => path(context),
    }
}

/// Reads the settings of this process's data directory and environment.
pub(crate) fn load(context: &Context) -> Result<Loaded, Failure> {
    config::load(&context.paths.config_file, |name| std::env::var(name).ok())
}

/// Tells what is wrong in the file but stops nobody.
pub(crate) fn warn(context: &Context, problems: &[Problem]) {
    for problem in problems {
        let kind = if problem.is_error { "error" } else { "warning" };
        context.output.say(&format!("{kind}: {}: {}", problem.place, problem.message));
    }
}

fn get(context: &Context, key: &str) -> Result<(), Failure> {
    let loaded = load(context)?;
    let value = loaded.value(key)?;
    warn(context, loaded.problems());
    if !context.output.json {
        return context.output.data(&format!("{value}\n"));
    }
    let mut settings = loaded.settings();
    settings.settings.retain(|setting| setting.key == key);
    context.output.document(&Document::Config(settings))
}

fn set(context: &Context, key: &str, value: &str) -> Result<(), Failure> {
    config::set(&context.paths.config_file, key, value)?;
    let what = format!("{key} is {value} in {}", context.paths.config_file.display());
    context.output.say(&what);
    context.output.say("a running daemon takes it at its next start");
    if context.output.json { context.output.document(&Document::Done(Done { what })) } else { Ok(()) }
}

fn check(context: &Context) -> Result<(), Failure> {
    let loaded = load(context)?;
    let problems = loaded.problems();
    warn(context, problems);
    let errors = problems.iter().filter(|problem| problem.is_error).count();
    if errors > 0 {
        let mut failure =
            Failure::new(Exit::Usage, format!("{} cannot be used", context.paths.config_file.display()));
        for problem in problems.iter().filter(|problem| problem.is_error && context.output.json) {
            failure = failure.next(format!("{}: {}", problem.place, problem.message));
        }
        return Err(failure);
    }
    if context.output.json {
        return context.output.document(&Document::Config(loaded.settings()));
    }
    context.output.say(&format!("{} is fine", context.paths.config_file.display()));
    Ok(())
}

fn path(context: &Context) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&Document::Config(load(context)?.settings()));
    }
    context.output.data(&format!("{}\n", context.paths.config_file.display()))
}
