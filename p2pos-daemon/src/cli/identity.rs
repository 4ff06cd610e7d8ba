//! `p2pos id`: who we are, and the 24 words that keep it. Works on the key file, without the daemon.
//!
//! The words never stand on a command line, where every process of the machine could read them, and are printed only
//! to a terminal unless the user insists.

use std::io::{self, Read as _};

use p2pos_control::{Document, Exit, Failure, Identity};
use p2pos_identity::{BACKUP_WORDS, KEY_FILE_NAME, KeyFile, KeyFileError, KeyOrigin, SecretKey};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::Context;
use super::args::{Id, IdCommand};
use crate::lock::Lock;

/// Longest text that is read as words: 24 of at most 8 letters, with room for line numbers' worth of space.
const WORDS_BYTES_MAX: u64 = 4_096;

/// Does one `id` command.
pub(crate) fn run(context: &Context, id: Id) -> Result<(), Failure> {
    match id.command {
        None => show(context, id.qr),
        Some(IdCommand::Backup { yes }) => backup(context, yes),
        Some(IdCommand::Restore) => restore(context),
    }
}

fn show(context: &Context, qr: bool) -> Result<(), Failure> {
    let (key, origin) = KeyFile::load_or_create(&context.paths.data_dir).map_err(failed)?;
    let is_new = origin == KeyOrigin::Created;
    if is_new {
        context.output.say("a new identity was made; keep its 24 words on paper: p2pos id backup");
    }
    tell(context, &key, is_new)?;
    if qr && !context.output.json {
        context.output.data(&qr_of(&key.peer_id().to_string())?)?;
    }
    Ok(())
}

fn tell(context: &Context, key: &SecretKey, is_new: bool) -> Result<(), Failure> {
    let peer = key.peer_id();
    let words = peer.words().map(str::to_owned).to_vec();
    context.output.say(&format!("words to compare by ear: {}", words.join(" ")));
    let key_file = context.paths.data_dir.join(KEY_FILE_NAME).display().to_string();
    context.output.document(&Document::Identity(Identity {
        peer_id: peer.to_string(),
        words,
        key_file,
        is_new,
    }))
}

/// Capital letters make a smaller code, and a PeerId reads the same in them.
fn qr_of(peer_id: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(peer_id.to_ascii_uppercase(), EcLevel::L)
        .map_err(|error| Failure::failed(format!("cannot draw the QR code: {error}")))?;
    // Light on dark, as most terminals are: phones read both.
    let image = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Ok(format!("{image}\n"))
}

fn backup(context: &Context, yes: bool) -> Result<(), Failure> {
    if !yes && !context.output.stdout_is_terminal {
        return Err(Failure::new(
            Exit::NeedsApproval,
            "the words go to a terminal only: who has them is you",
        )
        .next("print them here all the same: p2pos id backup --yes"));
    }
    let key = KeyFile::load(&context.paths.data_dir).map_err(failed)?.ok_or_else(|| {
        Failure::not_found("there is no identity to back up yet").next("make one: p2pos id")
    })?;
    context.output.say("Write these words on paper. Who has them is you; nobody can take them back.");
    context.output.data(&format!("{}\n", numbered(&key.to_words(), context.output.stdout_is_terminal)))
}

/// Six words a line for a person to write down; one line for a program.
fn numbered(words: &str, for_a_person: bool) -> String {
    if !for_a_person {
        return words.to_owned();
    }
    let words: Vec<&str> = words.split(' ').collect();
    let lines = words.chunks(6).map(|line| line.iter().map(|word| format!("{word:<9}")).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn restore(context: &Context) -> Result<(), Failure> {
    // A daemon that runs would go on being somebody else.
    let _lock = Lock::take(&context.paths.lock_file())?;
    if KeyFile::load(&context.paths.data_dir).map_err(failed)?.is_some() {
        let path = context.paths.data_dir.join(KEY_FILE_NAME);
        return Err(failed(KeyFileError::Exists { path }));
    }
    let key =
        SecretKey::from_words(&read_words(context)?).map_err(|error| Failure::usage(error.to_string()))?;
    KeyFile::restore(&context.paths.data_dir, &key).map_err(failed)?;
    context.output.say("restored; whoever knew you knows you again");
    tell(context, &key, false)
}

/// From a person, line by line until there are enough; from a program, all of stdin.
fn read_words(context: &Context) -> Result<zeroize::Zeroizing<String>, Failure> {
    let mut words = zeroize::Zeroizing::new(String::new());
    if !context.output.is_interactive {
        io::stdin()
            .lock()
            .take(WORDS_BYTES_MAX)
            .read_to_string(&mut words)
            .map_err(|error| Failure::failed(format!("cannot read the words from stdin: {error}")))?;
        return Ok(words);
    }
    context.output.say(&format!("Type your {BACKUP_WORDS} words, in as many lines as you like:"));
    while words.split_whitespace().count() < BACKUP_WORDS {
        let line = zeroize::Zeroizing::new(context.output.ask("> ")?);
        if line.is_empty() {
            break;
        }
        words.push_str(&line);
    }
    Ok(words)
}

fn failed(error: KeyFileError) -> Failure {
    Failure::failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_paper_stand_six_in_a_line_and_in_columns() {
        let words = ["abandon"; BACKUP_WORDS].join(" ");
        assert_eq!(numbered(&words, true).lines().count(), 4);
        assert_eq!(numbered(&words, false), words);
    }

    #[test]
    fn a_peer_id_fits_into_a_small_code() {
        let peer = SecretKey::from_seed([1; 32]).peer_id().to_string();
        let drawn = qr_of(&peer).unwrap();
        assert!(drawn.lines().count() <= 20, "{drawn}");
    }
}
