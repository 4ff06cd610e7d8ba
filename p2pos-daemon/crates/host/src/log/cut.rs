//! Lines out of bytes, and lines that are too long [S-REQ-10]: the first `log_line_bytes_max` bytes are kept, a mark
//! says that there was more, and the rest of that line is dropped, however long it goes on.
//!
//! Refuses to know: whose line it is, and where it goes.

use std::borrow::Cow;

use p2pos_plugin_protocol::limits::LOG_LINE_BYTES_MAX;

/// What stands behind a line that was cut.
pub(super) const CUT_MARK: &str = " ... [cut: the line was too long]";

/// The line, or as much of it as is kept and the mark.
pub(super) fn cut(line: &str) -> Cow<'_, str> {
    let max = LOG_LINE_BYTES_MAX as usize;
    if line.len() <= max {
        return Cow::Borrowed(line);
    }
    // A line that a `LineCutter` has cut is as long as may be, and has its mark.
    if line.len() == max + CUT_MARK.len() && line.ends_with(CUT_MARK) {
        return Cow::Borrowed(line);
    }
    let mut end = max;
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{CUT_MARK}", &line[..end]))
}

/// Cuts a stream of bytes into lines, holding at most one line's worth.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    held: Vec<u8>,
    /// The line was too long and has been told: what comes up to its end is dropped.
    is_skipping: bool,
}

impl LineCutter {
    /// Takes bytes and gives every whole line to `line`, and a line that grows too long as soon as it does, once.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.take(&bytes[..end], &mut line);
            bytes = &bytes[end + 1..];
            if !std::mem::take(&mut self.is_skipping) {
                self.tell(&mut line);
            }
        }
        self.take(bytes, &mut line);
    }

    /// The rest, when the stream has ended.
    pub(crate) fn finish(mut self, mut line: impl FnMut(&str)) {
        if !self.held.is_empty() {
            self.tell(&mut line);
        }
    }

    /// Takes a part of one line.
    fn take(&mut self, part: &[u8], line: &mut impl FnMut(&str)) {
        if self.is_skipping {
            return;
        }
        // One byte more than fits shows that the line is too long; more than that need not be held.
        let room = LOG_LINE_BYTES_MAX as usize + 1 - self.held.len();
        self.held.extend_from_slice(&part[..part.len().min(room)]);
        if self.held.len() > LOG_LINE_BYTES_MAX as usize {
            self.tell(line);
            self.is_skipping = true;
        }
    }

    fn tell(&mut self, line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.held);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        line(&cut(text));
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = LOG_LINE_BYTES_MAX as usize;

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut cutter = LineCutter::default();
        for chunk in chunks {
            cutter.feed(chunk, |line| lines.push(line.to_owned()));
            assert!(cutter.held.len() <= MAX + 1, "an endless line is not held");
        }
        cutter.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn bytes_become_lines_wherever_they_are_cut() {
        let text = b"one\r\n\xfftwo\n\nlast";
        for cut in 0..text.len() {
            assert_eq!(lines_of(&[&text[..cut], &text[cut..]]), ["one", "\u{fffd}two", "", "last"]);
        }
    }

    #[test]
    fn a_line_of_70_000_bytes_does_not_become_two() {
        let long = [b"x".repeat(70_000), b"\nnext\n".to_vec()].concat();
        let wanted = ["x".repeat(MAX) + CUT_MARK, "next".to_owned()];
        for size in [1, 4096, 16 * 1024, MAX, MAX + 1, long.len()] {
            let chunks: Vec<&[u8]> = long.chunks(size).collect();
            assert_eq!(lines_of(&chunks), wanted, "in chunks of {size}");
        }
    }

    #[test]
    fn the_longest_line_that_fits_is_whole_and_one_byte_more_is_cut() {
        let fits = "x".repeat(MAX);
        assert_eq!(cut(&fits), fits);
        assert_eq!(lines_of(&[fits.as_bytes(), b"\n"]).concat(), fits);
        assert_eq!(cut(&(fits.clone() + "y")), fits.clone() + CUT_MARK);
        assert_eq!(cut(&cut(&(fits.clone() + "y"))), fits + CUT_MARK, "cut once, marked once");
        let wide = "ä".repeat(MAX);
        assert!(cut(&wide).len() <= MAX + CUT_MARK.len(), "never in the middle of a letter");
    }

    #[test]
    fn a_line_without_end_is_told_once() {
        let chunk = [b'x'; 10_000];
        assert_eq!(lines_of(&[&chunk[..]; 100]).len(), 1);
    }
}
