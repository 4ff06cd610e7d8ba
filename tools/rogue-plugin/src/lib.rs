//! A plugin that misbehaves on demand, one misdeed for each run, and tells how the daemon answered.
//!
//! Owns the list of misdeeds and, for each, the answer that the specification demands; a test walks through [`MISDEEDS`], plants
//! the plugin with [`plant`], starts it, and compares its report with [`Misdeed::answer`]. What cannot be seen on the plugin's own
//! socket (is the process gone? is everybody else still well?) is the test's to look at: such misdeeds answer [`Answer::Unseen`].
//!
//! Speaks raw bytes through its own small encoder (`wire`), because a well-behaved library would not let it misbehave. Takes only
//! the limits from `p2pos_plugin_protocol`.

mod before_hello;
mod process;
mod session;
mod stage;
mod streams;
mod wire;

use std::fmt;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};

pub use stage::Stage;

/// The protocol that the manifest of [`plant`] asks to open and to accept.
pub const PROTOCOL: &str = "/rogue/1";
/// Where the report is written, in the plugin's data folder: one line, the text of an [`Answer`].
pub const REPORT_FILE: &str = "report.txt";
/// Where `fork-away` writes the process id of what it left behind, in the plugin's data folder.
pub const ORPHAN_FILE: &str = "orphan.pid";
/// The hidden arguments with which the program calls itself to leave its process group.
const ORPHAN_ARGUMENTS: [&str; 2] = ["--orphan-parent", "--orphan"];

/// How the daemon answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The connection was closed without a byte.
    Silence,
    /// A Refused with this code, then the end.
    Refused(u64),
    /// An Error of class 1xx with rid 0, then the end.
    Fatal(u64),
    /// An Error that answers the request; the session lives on.
    Reply(u64),
    /// An Error with rid 0 below class 1xx; the session lives on.
    Complaint(u64),
    /// A Reset of the stream; the session lives on.
    Reset(u64),
    /// No word about it: the next Ping was answered.
    Lives,
    /// Cannot be seen on the plugin's socket: judge the daemon from outside.
    Unseen,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("silence"),
            Self::Refused(code) => write!(f, "refused {code}"),
            Self::Fatal(code) => write!(f, "fatal {code}"),
            Self::Reply(code) => write!(f, "reply {code}"),
            Self::Complaint(code) => write!(f, "complaint {code}"),
            Self::Reset(code) => write!(f, "reset {code}"),
            Self::Lives => f.write_str("lives"),
            Self::Unseen => f.write_str("unseen"),
        }
    }
}

/// One way to misbehave.
#[derive(Clone, Copy)]
pub struct Misdeed {
    /// What the program's argument names it.
    pub name: &'static str,
    /// What it does, in words.
    pub story: &'static str,
    /// What a good daemon answers.
    pub answer: Answer,
    commit: fn(&mut Stage) -> Result<Answer>,
}

impl fmt::Debug for Misdeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Misdeed")
            .field("name", &self.name)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

/// Every misdeed, gentlest first within its group.
pub const MISDEEDS: &[&[Misdeed]] =
    &[before_hello::MISDEEDS, session::MISDEEDS, streams::MISDEEDS, process::MISDEEDS];

/// All misdeeds, one after the other.
pub fn misdeeds() -> impl Iterator<Item = &'static Misdeed> {
    MISDEEDS.iter().copied().flatten()
}

/// Commits the misdeed of this name and gives back how the daemon answered. Some misdeeds never come back.
///
/// # Errors
/// If the name is unknown, or if the daemon was not even there to be misused.
pub fn commit(name: &str, stage: &mut Stage) -> Result<Answer> {
    let misdeed = misdeeds().find(|misdeed| misdeed.name == name);
    let misdeed = misdeed.with_context(|| format!("no misdeed is called {name:?}, see --list"))?;
    (misdeed.commit)(stage)
}

/// Plays the hidden parts of the program, if its arguments ask for one. Returns only if they do not.
pub fn play_hidden_part(arguments: &[String]) {
    process::play_hidden_part(arguments);
}

/// How long the planted plugin may take to be ready: more than the handshake's 5 s, so that `half-a-hello` hears its answer before it
/// is stopped.
const START_TIMEOUT_S: u32 = 7;

/// The manifest of a plugin that commits this misdeed. `executable` is the absolute path of the rogue program; `peer` is whom the
/// stream misdeeds open: best a contact whose address never answers, so that an Open is still waiting when the misdeed comes.
#[must_use]
pub fn manifest(id: &str, executable: &Path, misdeed: &str, peer: &str) -> String {
    let executable = executable.display();
    format!(
        "manifest = 1\nid = \"{id}\"\nname = \"Rogue\"\nversion = \"0.0.1\"\n\n\
         [run]\nexec = [\"{executable}\", \"{misdeed}\", \"{peer}\"]\nstart_timeout = \"{START_TIMEOUT_S}s\"\nstop_timeout = \"1s\"\n\n\
         [permissions]\nnet.open = [\"{PROTOCOL}\"]\nnet.accept = [\"{PROTOCOL}\"]\npeers.any = true\n"
    )
}

/// Puts a plugin folder called `id` into `plugins`, with nothing but the manifest of [`manifest`].
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn plant(plugins: &Path, id: &str, executable: &Path, misdeed: &str, peer: &str) -> io::Result<()> {
    let folder = plugins.join(id);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("plugin.toml"), manifest(id, executable, misdeed, peer))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_misdeed_has_its_own_name_and_a_story() {
        let names: BTreeSet<&str> = misdeeds().map(|misdeed| misdeed.name).collect();
        assert_eq!(names.len(), misdeeds().count());
        assert!(misdeeds().all(|misdeed| !misdeed.story.is_empty()));
    }

    #[test]
    fn an_answer_reads_as_a_word_and_a_number() {
        assert_eq!(Answer::Refused(102).to_string(), "refused 102");
        assert_eq!(Answer::Lives.to_string(), "lives");
    }
}
