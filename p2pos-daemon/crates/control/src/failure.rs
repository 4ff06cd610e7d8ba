//! The ways a command can fail, and the exit code of each: one enum for daemon and command line.
//!
//! Refuses to know how a failure is printed; it carries the sentence and the next steps, not the layout.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line, a file or a value makes no sense.
    Usage = 2,
    /// No daemon answers on the control socket.
    NotRunning = 3,
    /// The user has to say yes first.
    NeedsApproval = 4,
    /// No such contact, plugin, key or file.
    NotFound = 5,
    /// A deadline passed.
    TimedOut = 6,
}

impl Exit {
    /// The process exit code.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why a request was not done: for the shell a code, for a person a sentence and what to try next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, which is also the exit code.
    pub exit: Exit,
    /// Names the thing and what happened; lower case, no full stop.
    pub message: String,
    /// Further facts and next commands, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
}

impl Failure {
    /// Makes a failure of one kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: Vec::new() }
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The asker made a mistake.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Adds a line under the error: a fact, or the next command to try.
    #[must_use]
    pub fn next(mut self, line: impl Into<String>) -> Self {
        self.next.push(line.into());
        self
    }

    /// Puts what was being done before the sentence: `plugins start chat: ...`.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_numbers() {
        let all = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::NotRunning, 3),
            (Exit::NeedsApproval, 4),
            (Exit::NotFound, 5),
            (Exit::TimedOut, 6),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code);
        }
    }

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Failure::not_found("no contact \"bo\"").next("see them: p2pos contacts list");
        let text = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
    }
}
