//! `p2pos plugins`: asks the daemon; only `check` works on the files alone, and `run` starts the author's own process.

use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use p2pos_control::{
    Answers, CheckReport, Document, Exit, Failure, PluginDetail, Problem, Request, Step, ToolSession,
};
use p2pos_identity::Untrusted;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::args::{Logs, Plugins};
use super::{Context, Output};
use crate::tool;

/// How long the daemon's last words about a plugin that has ended may take: they are written when it ends.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(200);

/// Does one `plugins` command.
pub(crate) async fn run(context: &Context, command: Plugins) -> Result<(), Failure> {
    match command {
        Plugins::List => list(context).await,
        Plugins::Info { plugin } => context.show(Request::PluginInfo { plugin }).await,
        Plugins::Start(several) => context.show(Request::PluginStart { plugins: several.plugins }).await,
        Plugins::Stop(several) => context.show(Request::PluginStop { plugins: several.plugins }).await,
        Plugins::Restart(several) => context.show(Request::PluginRestart { plugins: several.plugins }).await,
        Plugins::Enable { plugin, yes } => enable(context, plugin, yes).await,
        Plugins::Disable { plugin } => disable(context, plugin).await,
        Plugins::Logs(logs) => self::logs(context, logs).await,
        Plugins::Run { dir, command } => run_own(context, &dir, command).await,
        Plugins::Check { dir } => check(context, &dir),
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let document = context.call(Request::PluginList).await?;
    if let Document::Plugins(list) = &document
        && list.plugins.is_empty()
    {
        context
            .output
            .say("there are no plugins; put one's folder, or a link to it, into the plugins folder");
        context
            .output
            .say("  which folder: p2pos config get plugins.dir (empty: `plugins` in the data directory)");
    }
    context.output.document(&document)
}

async fn info(context: &Context, plugin: &str) -> Result<PluginDetail, Failure> {
    let Document::Plugin(detail) = context.call(Request::PluginInfo { plugin: plugin.to_owned() }).await?
    else {
        return Err(tool::odd_answer());
    };
    Ok(*detail)
}

/// What the user sees is what the user approves: the approval goes back with the answer, so that a manifest which
/// changes in between is not approved by accident.
async fn enable(context: &Context, plugin: String, yes: bool) -> Result<(), Failure> {
    let detail = info(context, &plugin).await?;
    let asks = asks(&detail);
    for line in &asks {
        context.output.say(line);
    }
    let has_agreed = yes || (context.output.is_interactive && context.output.agrees("Let it run?")?);
    if !has_agreed {
        let mut failure = Failure::new(Exit::NeedsApproval, format!("{plugin} needs your approval"));
        for line in asks {
            failure = if context.output.json { failure.next(line.trim()) } else { failure };
        }
        return Err(failure.next(format!("approve: p2pos plugins enable {plugin} --yes")));
    }
    let document = context.call(Request::PluginEnable { plugin, approval: detail.approval }).await?;
    if context.output.json {
        return context.output.document(&document);
    }
    if let Document::Plugin(detail) = &document {
        context.output.say(&format!("{} is enabled and {}", detail.row.id, detail.row.state));
    }
    Ok(())
}

fn asks(detail: &PluginDetail) -> Vec<String> {
    let row = &detail.row;
    let head = format!("{} {}", Untrusted(&row.id), Untrusted(&row.version));
    let mut lines =
        vec![if row.name.is_empty() { head } else { format!("{head}: {}", Untrusted(&row.name)) }];
    if detail.asks.is_empty() {
        lines.push("  asks for nothing".to_owned());
    }
    lines.extend(detail.asks.iter().map(|ask| format!("  asks for {}", Untrusted(ask))));
    lines.extend(detail.sandbox.iter().map(|fact| format!("  held by  {}", Untrusted(fact))));
    lines
}

async fn disable(context: &Context, plugin: String) -> Result<(), Failure> {
    let document = context.call(Request::PluginDisable { plugin }).await?;
    if context.output.json {
        return context.output.document(&document);
    }
    if let Document::Plugin(detail) = &document {
        context.output.say(&format!("{} is disabled", detail.row.id));
    }
    Ok(())
}

async fn logs(context: &Context, logs: Logs) -> Result<(), Failure> {
    let mut daemon = context.daemon().await?;
    let request = Request::PluginLogs { plugin: logs.plugin, lines: logs.lines, follow: logs.follow };
    let mut answers = daemon.ask(request).await?;
    while let Step::Item(line) = answers.next().await? {
        context.output.document(&line)?;
    }
    Ok(())
}

fn check(context: &Context, dir: &Path) -> Result<(), Failure> {
    if !dir.is_dir() {
        return Err(Failure::not_found(format!("there is no folder {}", dir.display())));
    }
    let found = p2pos_host::check(dir);
    let is_working = found.errors.is_empty();
    let problem = |is_error: bool| {
        move |problem: &p2pos_host::Problem| Problem {
            is_error,
            place: match problem.line {
                0 => problem.file.clone(),
                line => format!("{}:{line}:{}", problem.file, problem.column),
            },
            message: problem.text.clone(),
        }
    };
    let errors = found.errors.iter().map(problem(true));
    let problems = errors.chain(found.warnings.iter().map(problem(false))).collect();
    let report = CheckReport { directory: dir.display().to_string(), id: found.id, problems };
    context.output.document(&Document::Check(report))?;
    // The command was right; the manifest is not.
    if is_working { Ok(()) } else { Err(Failure::failed(format!("{} is no working plugin", dir.display()))) }
}

/// Runs the author's process in the author's terminal. The daemon knows the plugin for as long as we hold the
/// connection, so that it is gone with us however we end.
async fn run_own(context: &Context, dir: &Path, command: Vec<OsString>) -> Result<(), Failure> {
    let dir =
        dir.canonicalize().map_err(|error| Failure::not_found(format!("{}: {error}", dir.display())))?;
    let mut daemon = context.daemon().await?;
    let text = dir.to_str().ok_or_else(|| Failure::usage("the directory's name is not UTF-8"))?.to_owned();
    let mut answers = daemon.ask(Request::PluginRun { dir: text }).await?;
    let Step::Item(Document::Session(session)) = answers.next().await? else {
        return Err(tool::odd_answer());
    };
    let mut telling = pin!(tell(answers, &context.output));
    let mut child = start_child(&dir, &session, command)?;
    let mut is_told = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => {
                break status.map_err(|error| Failure::failed(format!("cannot wait for the plugin: {error}")))?;
            }
            // Ctrl-C reaches the plugin by itself, as it is in our terminal's group: we stay until it has ended.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::failed(format!("cannot watch for Ctrl-C: {error}")))?;
            }
            () = &mut telling, if !is_told => is_told = true,
        }
    };
    if !is_told {
        // What the daemon said last, perhaps why it ended the session, may still be on its way.
        drop(timeout(LAST_WORDS_WITHIN, telling).await);
    }
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!("the plugin ended with {status}")))
}

/// Shows the author what the daemon has to say about the plugin, until the daemon ends.
async fn tell(mut answers: Answers<'_>, output: &Output) {
    loop {
        match answers.next().await {
            Ok(Step::Item(Document::LogLine(line))) => {
                output.say(&format!("[{} {}] {}", line.source, line.level, Untrusted(&line.text)));
            }
            Ok(Step::Item(_) | Step::Done(_)) => {}
            Err(error) => return output.say(&format!("[p2pos] {error}")),
        }
    }
}

fn start_child(dir: &Path, session: &ToolSession, command: Vec<OsString>) -> Result<Child, Failure> {
    let words = if command.is_empty() { session.exec.iter().map(OsString::from).collect() } else { command };
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| Failure::usage("the manifest names no command; give one after --"))?;
    Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .envs(session.environment.iter().map(|(name, value)| (name, value.reveal())))
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::failed(format!("cannot start {}: {error}", program.display())))
}
