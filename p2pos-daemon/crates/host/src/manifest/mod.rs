//! `plugin.toml`: what a plugin is, how to run it, what it asks for. Owns the format and every limit on it.
//!
//! Refuses to know: the file system (`check` does), grants, processes. Unknown keys warn and name the nearest known
//! one; wrong types are errors with file, line and column; no input makes it panic. Follows plugin-host.md C10, the
//! subset that this version honours: keys of later versions are accepted with a warning.

mod check;
mod digest;
mod reader;

use std::{collections::BTreeSet, time::Duration};

use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::message::Trust;
use toml::de::DeTable;

use self::reader::{At, Findings, Section};
pub(crate) use self::{
    check::{Loaded, load},
    reader::nearest,
};
pub use self::{
    check::{Report, check, check_manifest},
    reader::Problem,
};
use crate::{
    permissions::{Permission, Permissions},
    plugin_id::PluginId,
};

/// The manifest's file name in a plugin's directory.
pub const MANIFEST_FILE: &str = "plugin.toml";
/// Largest manifest in bytes. A hand-written one is under 4 KiB; more than this is somebody's mistake or malice.
pub const MANIFEST_BYTES_MAX: u64 = 256 * 1024;
/// Most protocols in one manifest, of each kind: the same as a session may register.
const PROTOCOLS_MAX: usize = 64;
/// Longest one-line text (name, version, description, ...) in characters: what a terminal row can show.
const TEXT_CHARS_MAX: usize = 200;
/// Most words of one command line. Far above real use, far below the kernel's limit.
const EXEC_WORDS_MAX: usize = 64;
/// The version of the plugin protocol that this daemon speaks.
const PROTOCOL_VERSION: u64 = 1;

/// How long a plugin may take from its launch to Ready, unless it says otherwise: slow interpreters on slow disks.
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// How long a plugin may take to leave after Shutdown, unless it says otherwise.
const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest patience a manifest may ask of a stop: with the rest of the ladder (5 s) it stays within the promised 15 s.
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Copies of one stream command at once, unless the manifest says otherwise.
const SERVE_DEFAULT: u16 = 8;
/// Most copies of one stream command at once: each is a process with its guard, about 3 MiB.
const SERVE_MAX: u64 = 64;
/// Open files a plugin may have, unless it says otherwise.
const FILES_DEFAULT: u64 = 256;
/// Streams a plugin may have at once, unless it says otherwise; also the most it may ask for (protocol limit).
const STREAMS_MAX: u64 = 256;

/// Where the plugin connects to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Unix,
    Tcp,
}

/// When a plugin that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    OnFailure,
    Always,
    Never,
}

/// `[run]`: the plugin's own process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) exec: Vec<String>,
    pub(crate) autostart: bool,
    pub(crate) restart: Restart,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_timeout: Duration,
}

/// `[[serve]]`: a command that is run once for each inbound stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    pub(crate) protocol: ProtocolName,
    pub(crate) exec: Vec<String>,
    pub(crate) copies_max: u16,
    pub(crate) trust: Trust,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Address space of each process, bytes.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) files: u64,
    pub(crate) streams: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: None, files: FILES_DEFAULT, streams: 256 }
    }
}

/// A valid manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) id: PluginId,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) socket: SocketKind,
    pub(crate) run: Option<Run>,
    /// Known while the plugin is stopped: peers hear "not ready" instead of "not served" while it starts.
    pub(crate) provides: Vec<ProtocolName>,
    pub(crate) serve: Vec<Serve>,
    pub(crate) permissions: Permissions,
    pub(crate) limits: Limits,
}

impl Manifest {
    /// A plugin without `[run]` always follows its enabling.
    pub(crate) fn is_autostarted(&self) -> bool {
        self.run.as_ref().is_none_or(|run| run.autostart)
    }
}

/// Reads a manifest. `None` beside at least one error in `findings`.
pub(crate) fn parse(text: &str, findings: &mut Findings<'_>) -> Option<Manifest> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            findings.error(error.span(), error.message().to_owned());
            return None;
        }
    };
    let mut top = Section::top(document.get_ref());
    check_versions(&mut top, findings);
    let id = read_id(&mut top, findings);
    let [version, description] = ["version", "description"]
        .map(|key| one_line(&mut top, key, findings).map_or_else(String::new, |text| text.value));
    let name = one_line(&mut top, "name", findings).map(|text| text.value);
    for key in ["license", "homepage"] {
        one_line(&mut top, key, findings);
    }
    let socket =
        choice(&mut top, "socket", &[("unix", SocketKind::Unix), ("tcp", SocketKind::Tcp)], findings);
    let run = top.table("run", findings).and_then(|section| read_run(section, findings));
    let mut permissions = Permissions::default();
    if let Some(section) = top.table("permissions", findings) {
        read_permissions(section, &mut permissions, findings);
    }
    let provides = read_provides(&mut top, findings);
    let serve = read_serve(&mut top, &mut permissions, findings);
    let limits = top.table("limits", findings).map(|section| read_limits(section, findings));
    top.not_yet(&["arch", "settings", "signature"], findings);
    top.finish(findings);
    if run.is_none() && serve.is_empty() && findings.errors.is_empty() {
        findings.missing(None, "a plugin needs [run] or at least one [[serve]]: there is nothing to start");
    }
    let id = id.filter(|_| findings.errors.is_empty())?;
    Some(Manifest {
        name: name.unwrap_or_else(|| id.to_string()),
        id,
        version,
        description,
        socket: socket.unwrap_or(SocketKind::Unix),
        run,
        provides,
        serve,
        permissions,
        limits: limits.unwrap_or_default(),
    })
}

fn check_versions(top: &mut Section<'_, '_>, findings: &mut Findings<'_>) {
    match top.number("manifest", 0..1_000_000, findings) {
        Some(At { value: 1, .. }) => {}
        Some(At { value, span }) => findings.error(
            Some(span),
            format!("this p2pOS reads `manifest = 1`, not {value}: a newer p2pOS may be needed"),
        ),
        None if findings.errors.is_empty() => findings.missing(None, "`manifest = 1` is missing"),
        None => {}
    }
    let Some(mut section) = top.table("protocol", findings) else { return };
    let min = section.number("min", 1..1_000_000, findings);
    let max = section.number("max", 1..1_000_000, findings);
    let (low, high) = (min.as_ref().map_or(1, |at| at.value), max.as_ref().map_or(u64::MAX, |at| at.value));
    if !(low..=high).contains(&PROTOCOL_VERSION) {
        let text =
            format!("the plugin speaks protocol versions {low} to {high}, this daemon {PROTOCOL_VERSION}");
        findings.error(min.or(max).map(|at| at.span), text);
    }
    section.finish(findings);
}

fn read_id(top: &mut Section<'_, '_>, findings: &mut Findings<'_>) -> Option<PluginId> {
    let Some(text) = top.string("id", findings) else {
        if !findings.errors.iter().any(|problem| problem.text.starts_with("`id`")) {
            findings.missing(None, "`id` is missing: a name like \"org.example.chess\"");
        }
        return None;
    };
    PluginId::parse(&text.value).map_err(|error| findings.error(Some(text.span), error.to_string())).ok()
}

fn one_line(top: &mut Section<'_, '_>, key: &'static str, findings: &mut Findings<'_>) -> Option<At<String>> {
    let text = top.string(key, findings)?;
    if text.value.chars().count() > TEXT_CHARS_MAX {
        let wanted = format!("`{key}` may have {TEXT_CHARS_MAX} characters at most");
        findings.error(Some(text.span.clone()), wanted);
    }
    if !text.value.chars().all(p2pos_identity::Untrusted::is_harmless) {
        findings
            .error(Some(text.span.clone()), format!("`{key}` has characters that a terminal cannot show"));
    }
    Some(text)
}

/// A string that must be one of a few words.
fn choice<T: Copy>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    choices: &[(&str, T)],
    findings: &mut Findings<'_>,
) -> Option<T> {
    let text = section.string(key, findings)?;
    let found = choices.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
    if found.is_none() {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        findings.error(Some(text.span), format!("`{key}` must be {}", words.join(" or ")));
    }
    found
}

fn read_run(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Option<Run> {
    let exec = read_exec(&mut section, findings);
    let autostart = section.boolean("autostart", findings).is_none_or(|at| at.value);
    let restart = choice(
        &mut section,
        "restart",
        &[("on-failure", Restart::OnFailure), ("always", Restart::Always), ("never", Restart::Never)],
        findings,
    );
    let seconds = Duration::from_secs;
    let start_timeout = section.duration("start_timeout", seconds(1)..seconds(601), findings);
    let just_over = STOP_TIMEOUT_MAX + Duration::from_millis(1);
    let stop_timeout = section.duration("stop_timeout", Duration::ZERO..just_over, findings);
    if let Some(activation) = section.string("activation", findings)
        && activation.value != "eager"
    {
        let text = "only `activation = \"eager\"` is honoured by this version of p2pOS";
        findings.warning(Some(activation.span), text);
    }
    section.not_yet(&["windows"], findings);
    section.finish(findings);
    Some(Run {
        exec: exec?,
        autostart,
        restart: restart.unwrap_or(Restart::OnFailure),
        start_timeout: start_timeout.unwrap_or(START_TIMEOUT_DEFAULT),
        stop_timeout: stop_timeout.unwrap_or(STOP_TIMEOUT_DEFAULT),
    })
}

fn read_exec(section: &mut Section<'_, '_>, findings: &mut Findings<'_>) -> Option<Vec<String>> {
    let Some(words) = section.strings("exec", findings) else {
        findings.missing(section.span.clone(), "`exec` is missing: a list like [\"python3\", \"main.py\"]");
        return None;
    };
    if words.value.is_empty() || words.value.len() > EXEC_WORDS_MAX {
        findings.error(Some(words.span), format!("`exec` needs 1 to {EXEC_WORDS_MAX} words"));
        return None;
    }
    if let Some(bad) = words.value.iter().find(|word| word.value.contains('\0')) {
        findings.error(Some(bad.span.clone()), "a word of `exec` contains a NUL character");
        return None;
    }
    if words.value[0].value.is_empty() {
        findings.error(
            Some(words.value[0].span.clone()),
            "the first word of `exec` is empty: it names the program",
        );
        return None;
    }
    Some(words.value.into_iter().map(|word| word.value).collect())
}

fn protocol_of(text: &At<String>, findings: &mut Findings<'_>) -> Option<ProtocolName> {
    ProtocolName::parse(&text.value)
        .map_err(|error| findings.error(Some(text.span.clone()), error.to_string()))
        .ok()
}

fn read_trust(section: &mut Section<'_, '_>, findings: &mut Findings<'_>) -> Trust {
    choice(section, "trust", &[("contacts", Trust::Contacts), ("anyone", Trust::Anyone)], findings)
        .unwrap_or(Trust::Contacts)
}

fn read_provides(top: &mut Section<'_, '_>, findings: &mut Findings<'_>) -> Vec<ProtocolName> {
    let mut provides = Vec::new();
    for At { value: mut section, span } in top.tables("provides", findings) {
        let name = section.string("protocol", findings);
        // Kind and trust are told again by Register, which counts; here they only have to be well formed.
        choice(&mut section, "kind", &[("stream", ()), ("datagram", ())], findings);
        read_trust(&mut section, findings);
        section.finish(findings);
        match name {
            Some(text) => provides.extend(protocol_of(&text, findings)),
            None => findings.error(Some(span), "[[provides]] needs `protocol`"),
        }
    }
    if provides.len() > PROTOCOLS_MAX {
        findings.error(None, format!("more than {PROTOCOLS_MAX} [[provides]]"));
    }
    provides
}

fn read_serve(
    top: &mut Section<'_, '_>,
    permissions: &mut Permissions,
    findings: &mut Findings<'_>,
) -> Vec<Serve> {
    let mut serve: Vec<Serve> = Vec::new();
    let mut names = BTreeSet::new();
    for At { value: mut section, span } in top.tables("serve", findings) {
        let name = section.string("protocol", findings);
        let exec = read_exec(&mut section, findings);
        let copies_max = section.number("max", 1..SERVE_MAX + 1, findings).map(|at| at.value);
        let trust = read_trust(&mut section, findings);
        section.finish(findings);
        let Some(name) = name else {
            findings.error(Some(span), "[[serve]] needs `protocol`");
            continue;
        };
        let Some(protocol) = protocol_of(&name, findings) else { continue };
        if !names.insert(protocol.clone()) {
            findings.error(Some(name.span), format!("{protocol} is served twice"));
        } else if trust == Trust::Anyone && !permissions.may_meet_strangers() {
            let text = "`trust = \"anyone\"` needs `peers.any = true` in [permissions]";
            findings.error(Some(name.span), text);
        } else if let Some(exec) = exec {
            permissions.add(Permission::Accept(protocol.clone()));
            let copies_max = copies_max.and_then(|max| u16::try_from(max).ok()).unwrap_or(SERVE_DEFAULT);
            serve.push(Serve { protocol, exec, copies_max, trust });
        }
    }
    if serve.len() > PROTOCOLS_MAX {
        findings.error(None, format!("more than {PROTOCOLS_MAX} [[serve]]"));
    }
    serve
}

fn read_permissions(mut top: Section<'_, '_>, permissions: &mut Permissions, findings: &mut Findings<'_>) {
    if let Some(mut net) = top.table("net", findings) {
        for protocol in read_protocols(&mut net, "open", findings) {
            permissions.add(Permission::Open(protocol));
        }
        for protocol in read_protocols(&mut net, "accept", findings) {
            permissions.add(Permission::Accept(protocol));
        }
        net.finish(findings);
    }
    if let Some(mut contacts) = top.table("contacts", findings) {
        if contacts.boolean("read", findings).is_some_and(|at| at.value) {
            permissions.add(Permission::ContactsRead);
        }
        contacts.not_yet(&["propose"], findings);
        contacts.finish(findings);
    }
    if let Some(mut peers) = top.table("peers", findings) {
        if peers.boolean("any", findings).is_some_and(|at| at.value) {
            permissions.add(Permission::PeersAny);
        }
        peers.not_yet(&["contacts", "addresses"], findings);
        peers.finish(findings);
    }
    top.not_yet(&["discovery", "pubsub", "relay", "admin"], findings);
    top.finish(findings);
}

fn read_protocols(
    section: &mut Section<'_, '_>,
    key: &'static str,
    findings: &mut Findings<'_>,
) -> Vec<ProtocolName> {
    let Some(names) = section.strings(key, findings) else { return Vec::new() };
    if names.value.len() > PROTOCOLS_MAX {
        findings.error(Some(names.span), format!("more than {PROTOCOLS_MAX} protocols"));
        return Vec::new();
    }
    names.value.iter().filter_map(|name| protocol_of(name, findings)).collect()
}

fn read_limits(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Limits {
    let default = Limits::default();
    // Under 16 MiB of address space not even a shell starts.
    let memory_bytes = section.size("memory", 16 << 20..1 << 46, findings);
    let files = section.number("files", 16..65_537, findings).map_or(default.files, |at| at.value);
    let streams = section.number("streams", 1..STREAMS_MAX + 1, findings);
    section.finish(findings);
    Limits {
        memory_bytes,
        files,
        streams: streams.and_then(|at| u16::try_from(at.value).ok()).unwrap_or(default.streams),
    }
}

#[cfg(test)]
mod tests;
