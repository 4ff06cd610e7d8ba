//! Lets the chat plugins talk: through the front end that people use (`plugins/chat/chat.py`), so that the lines go all
//! the way a person's would, and come out of the other side's history.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use p2pos_control::{DemoChat, Failure};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::daemons::Daemon;

/// Python takes a tenth of a second to start; a loaded machine gets its time.
const FRONT_END_WITHIN: Duration = Duration::from_secs(20);

/// The front end of the bundled chat plugin.
#[derive(Debug)]
pub(super) struct FrontEnd {
    program: PathBuf,
}

/// What `chat.py history --json` prints, as far as we look at it.
#[derive(Debug, Deserialize)]
struct History {
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    text: String,
    state: String,
}

impl FrontEnd {
    pub(super) fn of(plugins: &Path) -> Self {
        Self { program: plugins.join("chat").join("chat.py") }
    }

    /// One says something, the other must have it. Whether it does, with the line.
    pub(super) async fn exchange(&self, from: &Daemon, to: &Daemon) -> Result<(DemoChat, bool), Failure> {
        let text = format!("Hello {}, this is {}.", to.name, from.name);
        self.run(from, &["send", to.name, &text]).await?;
        let history = self.run(to, &["history", from.name, "--json"]).await?;
        let history: History = serde_json::from_slice(&history)
            .map_err(|error| Failure::failed(format!("the chat's history makes no sense: {error}")))?;
        let has_arrived =
            history.messages.iter().any(|message| message.state == "received" && message.text == text);
        Ok((DemoChat { from: from.name.to_owned(), to: to.name.to_owned(), text }, has_arrived))
    }

    async fn run(&self, daemon: &Daemon, words: &[&str]) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new("python3");
        // -B: the checkout stays as it is.
        command.arg("-B").arg(&self.program).arg("--data").arg(&daemon.data_dir).args(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let failed = |what: String| Failure::failed(format!("chat at {}: {what}", daemon.name));
        let output = timeout(FRONT_END_WITHIN, command.output())
            .await
            .map_err(|_| failed(format!("no end within {FRONT_END_WITHIN:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', "; ")));
        }
        Ok(output.stdout)
    }
}
