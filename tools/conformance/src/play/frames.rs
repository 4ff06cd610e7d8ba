//! Steps about single frames and bytes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Play;
use crate::notation;
use crate::session::SOON;
use crate::verdict::Stop;
use crate::wire::Writing;

/// What `next` looks past: they may come at any time.
const ANYTIME: &[&str] = &["window", "log", "status", "event"];

impl Play<'_> {
    /// True: it was one of ours.
    pub(super) fn frame_step(&mut self, name: &str, verb: &str, words: &[String]) -> Result<bool> {
        match verb {
            "send" => {
                let frame = notation::frame(words)?;
                self.session(name)?.send(&frame)?;
            }
            "bytes" => {
                let bytes = notation::unhex(&words.concat())?;
                self.session(name)?.send_bytes(&bytes)?;
            }
            "text" => {
                let text = words.join(" ").replace("\\r", "\r").replace("\\n", "\n");
                self.session(name)?.send_bytes(text.as_bytes())?;
            }
            "expect" => self.expect(name, words, SOON)?,
            "late" => {
                let seconds = super::number(words, 0, "seconds")?;
                self.expect(name, &words[1..], SOON + Duration::from_secs(seconds))?;
            }
            "next" => self.next(name, words)?,
            "none" => self.none(name, words)?,
            "settle" => self.session(name)?.settle()?,
            "eof" => self.eof(name, words)?,
            "silence" => self.silence(name)?,
            "writing" => {
                let how = match words.first().map(String::as_str) {
                    Some("plain") => Writing::Plain,
                    Some("bytewise") => Writing::Bytewise,
                    Some("held") => Writing::Held,
                    _ => bail!("writing plain, bytewise or held"),
                };
                self.session(name)?.wire.set_writing(how)?;
            }
            "hang-up" => self.session(name)?.wire.hang_up(),
            "id" => {
                let id = self.session(name)?.take_id();
                self.variables.set(words.first().context("id NAME")?, id.to_string());
            }
            "needs" => self.needs(name, words)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The first frame of those that came, or of those to come, that fits.
    fn expect(&mut self, name: &str, words: &[String], within: Duration) -> Result<()> {
        let mut variables = std::mem::take(&mut self.variables);
        let what = words.join(" ");
        let session = self.session(name)?;
        let found = session.until(&what, within, |session| {
            for at in 0..session.queue.len() {
                if notation::fits(words, &session.queue[at], &mut variables)? {
                    session.queue.remove(at);
                    return Ok(Some(()));
                }
            }
            // Whoever complains about the connection says nothing that we wait for any more.
            let last = session.queue.iter().find(|frame| frame.name == "error" && frame.rid == 0);
            match last.filter(|frame| (100..200).contains(&frame.fields.number("code"))) {
                Some(frame) => bail!("it said {} instead", notation::show(frame)),
                None => Ok(None),
            }
        });
        self.variables = variables;
        found
    }

    /// The very next frame, but for those that may come at any time.
    fn next(&mut self, name: &str, words: &[String]) -> Result<()> {
        let mut variables = std::mem::take(&mut self.variables);
        let what = words.join(" ");
        let wanted = words.first().cloned().unwrap_or_default();
        let session = self.session(name)?;
        let found = session.until(&what, SOON, |session| {
            session.queue.retain(|frame| frame.name == wanted || !ANYTIME.contains(&frame.name.as_str()));
            let Some(frame) = session.queue.pop_front() else { return Ok(None) };
            ensure!(
                notation::fits(words, &frame, &mut variables)?,
                "the next frame is {}, not {what}",
                notation::show(&frame)
            );
            Ok(Some(()))
        });
        self.variables = variables;
        found
    }

    /// Nothing that fits has come so far.
    fn none(&mut self, name: &str, words: &[String]) -> Result<()> {
        let session = self.session(name)?;
        for frame in &session.queue {
            let does_fit = notation::fits(words, frame, &mut notation::Variables::default())?;
            ensure!(!does_fit, "it said {}", notation::show(frame));
        }
        Ok(())
    }

    /// The end of the connection; whatever comes before is looked past. `eof N`: within N seconds.
    fn eof(&mut self, name: &str, words: &[String]) -> Result<()> {
        let more = if words.is_empty() { 0 } else { super::number(words, 0, "seconds")? };
        let within = SOON + Duration::from_secs(more);
        self.session(name)?
            .until("the end of the connection", within, |session| Ok(session.is_over.then_some(())))
    }

    /// The end of the connection, without a single byte.
    fn silence(&mut self, name: &str) -> Result<()> {
        self.eof(name, &[])?;
        let session = self.session(name)?;
        match session.queue.front() {
            Some(frame) => bail!("it answered {}", notation::show(frame)),
            None => Ok(()),
        }
    }

    fn needs(&mut self, name: &str, words: &[String]) -> Result<()> {
        match words.first().map(String::as_str) {
            Some("credit") if self.session(name)?.book.is_auto_window => {
                Err(Stop::NotApplicable("its Hello sets auto_window".to_owned()).into())
            }
            Some("credit") => Ok(()),
            _ => bail!("needs credit"),
        }
    }
}
