//! What the demo shows while it runs: a line per step, a bar per transfer; bars only on a terminal, nothing to programs.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Output;

/// How often a bar is drawn: smooth to the eye, and no work beside the traffic.
const DRAWS_PER_S: u8 = 10;
const TEMPLATE: &str = "  {msg:18} [{bar:30}] {bytes} of {total_bytes}, {binary_bytes_per_sec}";

/// Shows steps and progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    output: Output,
}

impl Show {
    pub(super) fn to(output: Output) -> Self {
        Self { output }
    }

    pub(super) fn step(&self, words: &str) {
        self.output.say(words);
    }

    /// A bar for a transfer of so many bytes. It draws itself away when it is dropped.
    pub(super) fn bar(&self, what: String, bytes: u64) -> Bar {
        let target = if self.output.json {
            ProgressDrawTarget::hidden()
        } else {
            // Hidden by itself where stderr is no terminal.
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S)
        };
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is one that indicatif knows");
        let bar = ProgressBar::with_draw_target(Some(bytes), target)
            .with_style(style.progress_chars("=> "))
            .with_message(what);
        Bar(bar)
    }
}

/// One transfer's progress.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn moved(&self, bytes: usize) {
        self.0.inc(bytes as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
