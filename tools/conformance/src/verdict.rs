//! How a case went, and the two ways in which it can end that are neither good nor bad.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// As the specification wants it.
    Passed,
    /// Otherwise; the text says what was found.
    Failed(String),
    /// Whoever is judged cannot do what the case is about.
    Unsupported(String),
    /// The case is about something that whoever is judged may leave out.
    NotApplicable(String),
}

/// One case's result.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which case.
    pub id: String,
    /// How it went.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was said, if it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
    /// It failed as the list of expected failures says, or passed although it says otherwise.
    pub is_expected_to_fail: bool,
}

impl Outcome {
    /// A fresh result.
    #[must_use]
    pub fn new(id: &str, verdict: Verdict, took: Duration) -> Self {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { id: id.to_owned(), verdict, took_ms, trace: Vec::new(), is_expected_to_fail: false }
    }

    /// Whether this is as it should be, the list of expected failures considered.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        match self.verdict {
            Verdict::Passed => !self.is_expected_to_fail,
            Verdict::Failed(_) | Verdict::Unsupported(_) => self.is_expected_to_fail,
            Verdict::NotApplicable(_) => true,
        }
    }
}

/// A step that ends the case without judging; travels as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// See [`Verdict::Unsupported`].
    Unsupported(String),
    /// See [`Verdict::NotApplicable`].
    NotApplicable(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => write!(f, "unsupported: {what}"),
            Self::NotApplicable(what) => write!(f, "not applicable: {what}"),
        }
    }
}

impl std::error::Error for Stop {}

/// The verdict that a run of steps comes to.
#[must_use]
pub fn judge(ran: &anyhow::Result<()>) -> Verdict {
    let Err(error) = ran else { return Verdict::Passed };
    match error.downcast_ref::<Stop>() {
        Some(Stop::Unsupported(what)) => Verdict::Unsupported(what.clone()),
        Some(Stop::NotApplicable(what)) => Verdict::NotApplicable(what.clone()),
        None => Verdict::Failed(format!("{error:#}")),
    }
}
