//! Reading a log file back: for a plugin that this daemon has not run yet, or that is known no more (an author's run that
//! is over). Owns the file's line format together with `LogLine`'s Display.
//!
//! Blocks on the disk: call it off the async threads.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use p2pos_identity::Untrusted;

use super::{LogLine, LogSource, time::unix_ms_of};

/// Bytes of the file's end that are looked at: what memory would hold of a plugin that runs.
const LOOK_BACK_BYTES: u64 = 256 * 1024;

/// The last `lines` lines of a log file; none if there is no file.
///
/// # Errors
/// When the disk fails.
pub(crate) fn last_lines(path: &Path, lines: usize) -> io::Result<Vec<LogLine>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let from = file.metadata()?.len().saturating_sub(LOOK_BACK_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOOK_BACK_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may be half a line: then it does not parse.
    let found: Vec<LogLine> = text.lines().filter_map(parse).collect();
    Ok(found[found.len().saturating_sub(lines)..].to_vec())
}

fn parse(line: &str) -> Option<LogLine> {
    let (time, rest) = line.split_once(' ')?;
    let (word, text) = rest.split_at_checked(5)?;
    let source = LogSource::ALL.into_iter().find(|source| source.as_str() == word.trim_end())?;
    let text = Untrusted(text.strip_prefix(' ')?).to_string();
    Some(LogLine { unix_ms: unix_ms_of(time)?, source, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        assert_eq!(last_lines(&path, 9).unwrap(), []);
        let line = |unix_ms, source, text: &str| LogLine { unix_ms, source, text: text.to_owned() };
        let all: Vec<LogLine> = LogSource::ALL
            .into_iter()
            .enumerate()
            .map(|(n, source)| line(1_735_689_599_123 + n as u64, source, "  two words"))
            .collect();
        let text: String = all.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, format!("half a line that is none\n{text}")).unwrap();
        assert_eq!(last_lines(&path, 99).unwrap(), all);
        assert_eq!(last_lines(&path, 2).unwrap(), all[all.len() - 2..]);
    }
}
