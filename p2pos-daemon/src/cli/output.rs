//! Where words and data go: data to stdout, words to stderr, JSON for programs, colour and questions for people only.

use std::env;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use p2pos_control::{Document, Exit, Failure};
use p2pos_identity::Untrusted;

use super::render::render;

/// How this command line speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Documents as JSON.
    pub(crate) json: bool,
    /// Somebody may read along and answer.
    pub(crate) is_interactive: bool,
    /// Words may be coloured.
    has_colour: bool,
    /// Data goes to a person's eyes.
    pub(crate) stdout_is_terminal: bool,
}

impl Output {
    /// Looks at the three standard streams and the environment.
    pub(crate) fn of_process(json: bool) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            is_interactive: stderr_is_terminal && io::stdin().is_terminal() && !json,
            has_colour: stderr_is_terminal && !is_set("NO_COLOR") && !is_dumb,
            stdout_is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Gives an answer: as JSON on one line, or laid out for people.
    pub(crate) fn document(&self, document: &Document) -> Result<(), Failure> {
        if !self.json {
            return self.data(&render(document));
        }
        let text = serde_json::to_string(document).map_err(|error| Failure::failed(error.to_string()))?;
        self.data(&format!("{text}\n"))
    }

    /// Writes data as it is.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(reader_left()),
            Err(error) => Err(Failure::failed(format!("cannot write the output: {error}"))),
        }
    }

    /// Says something to whoever watches; programs that read JSON are not spoken to.
    pub(crate) fn say(&self, words: &str) {
        if !self.json {
            self.whisper(&format!("{words}\n"));
        }
    }

    /// Asks a question that can be answered by yes; anything else is no. Only if [`Self::is_interactive`].
    pub(crate) fn agrees(&self, question: &str) -> Result<bool, Failure> {
        let answer = self.ask(&format!("{question} [y/N] "))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Asks for a line.
    pub(crate) fn ask(&self, question: &str) -> Result<String, Failure> {
        self.whisper(question);
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
        Ok(answer)
    }

    /// Tells how it went wrong, and gives the exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        if failure.exit == Exit::Ok {
            return Exit::Ok;
        }
        if self.json {
            if let Ok(text) = serde_json::to_string(&Document::Error(failure.clone())) {
                self.whisper(&format!("{text}\n"));
            }
            return failure.exit;
        }
        let (on, off) = if self.has_colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mut text = format!("{on}error:{off} {}\n", Untrusted(&failure.message));
        for line in &failure.next {
            text.push_str(&format!("  {}\n", Untrusted(line)));
        }
        self.whisper(&text);
        failure.exit
    }

    #[expect(clippy::unused_self, reason = "every word of the command line goes through its Output")]
    fn whisper(&self, text: &str) {
        // Nobody is left to be told when stderr is closed.
        drop(io::stderr().lock().write_all(text.as_bytes()));
    }
}

/// The reader of our output has enough (`| head`): that is its good right, and no error.
fn reader_left() -> Failure {
    Failure::new(Exit::Ok, "the reader left")
}
