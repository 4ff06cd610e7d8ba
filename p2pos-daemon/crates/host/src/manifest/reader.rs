//! Reads typed values out of parsed TOML and remembers every problem with its line and column. Owns the wording of
//! type errors and the "did you mean" of unknown keys.
//!
//! Refuses to know: which keys a plugin manifest has. Reading goes on after an error, so that one run of
//! `p2pos plugins check` shows all of them.

use std::{fmt, ops::Range, time::Duration};

use serde::Serialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Furthest edit distance at which an unknown key is called a misspelling: two slips, or a swap of two letters.
const MISSPELLING_EDITS_MAX: usize = 2;

/// One finding in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// File name inside the plugin directory.
    pub file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 where the whole file is meant.
    pub column: u32,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}: {}", self.file, self.text),
            (line, column) => write!(f, "{}:{line}:{column}: {}", self.file, self.text),
        }
    }
}

/// Collects problems of one file.
#[derive(Debug)]
pub(crate) struct Findings<'t> {
    file: &'static str,
    text: &'t str,
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl<'t> Findings<'t> {
    pub(crate) fn new(file: &'static str, text: &'t str) -> Self {
        Self { file, text, errors: Vec::new(), warnings: Vec::new() }
    }

    /// Notes an error at a byte range, or about the whole file.
    pub(crate) fn error(&mut self, span: Option<Range<usize>>, text: impl Into<String>) {
        let problem = self.problem(span, text.into());
        self.errors.push(problem);
    }

    /// Notes that a key is missing: at the header of its table, or at the end of the file for the top.
    pub(crate) fn missing(&mut self, section: Option<Range<usize>>, text: impl Into<String>) {
        let end = self.text.trim_end().len();
        self.error(Some(section.unwrap_or(end..end)), text);
    }

    /// Notes a warning at a byte range, or about the whole file.
    pub(crate) fn warning(&mut self, span: Option<Range<usize>>, text: impl Into<String>) {
        let problem = self.problem(span, text.into());
        self.warnings.push(problem);
    }

    fn problem(&self, span: Option<Range<usize>>, text: String) -> Problem {
        let (line, column) = span.map_or((0, 0), |span| place(self.text, span.start));
        Problem { file: self.file.to_owned(), line, column, text }
    }
}

/// Line and column of a byte offset, both from 1. An offset inside a character or behind the end is moved back.
fn place(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// One table while it is read: hands out typed values, and at the end knows which keys nobody asked for.
pub(crate) struct Section<'a, 't> {
    table: &'a DeTable<'t>,
    /// Dotted path with a trailing dot, or empty at the top.
    path: String,
    /// Where it begins; `None` at the top.
    pub(crate) span: Option<Range<usize>>,
    known: Vec<&'static str>,
}

impl<'a, 't> Section<'a, 't> {
    pub(crate) fn top(table: &'a DeTable<'t>) -> Self {
        Self { table, path: String::new(), span: None, known: Vec::new() }
    }

    fn child(&self, key: &str, table: &'a DeTable<'t>, span: Range<usize>) -> Self {
        Self { table, path: format!("{}{key}.", self.path), span: Some(span), known: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn wrong(&self, key: &str, wanted: &str, value: &Spanned<DeValue<'_>>, findings: &mut Findings<'_>) {
        let found = value.get_ref().type_str();
        findings.error(Some(value.span()), format!("`{}{key}` must be {wanted}, found {found}", self.path));
    }

    /// Names keys that belong to the format but are not honoured by this version: they warn, once each.
    pub(crate) fn not_yet(&mut self, keys: &[&'static str], findings: &mut Findings<'_>) {
        for &key in keys {
            if let Some(value) = self.take(key) {
                let text = format!("`{}{key}` is not honoured by this version of p2pOS", self.path);
                findings.warning(Some(value.span()), text);
            }
        }
    }

    /// Ends the reading: whatever was not asked for is unknown.
    pub(crate) fn finish(self, findings: &mut Findings<'_>) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let hint = nearest(name, self.known.iter().copied())
                    .map_or_else(String::new, |near| format!("; did you mean `{}{near}`?", self.path));
                let shown = p2pos_identity::Untrusted(name);
                findings.warning(Some(key.span()), format!("unknown key `{}{shown}`{hint}", self.path));
            }
        }
    }

    pub(crate) fn string(&mut self, key: &'static str, findings: &mut Findings<'_>) -> Option<At<String>> {
        let value = self.take(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { value: text.to_owned(), span: value.span() }),
            None => {
                self.wrong(key, "a string", value, findings);
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str, findings: &mut Findings<'_>) -> Option<At<bool>> {
        let value = self.take(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(At { value: flag, span: value.span() }),
            None => {
                self.wrong(key, "true or false", value, findings);
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        range: Range<u64>,
        findings: &mut Findings<'_>,
    ) -> Option<At<u64>> {
        let value = self.take(key)?;
        let wanted = || format!("a whole number from {} to {}", range.start, range.end - 1);
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong(key, &wanted(), value, findings);
            return None;
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(At { value: number, span: value.span() }),
            Ok(_) | Err(_) => {
                let text = format!("`{}{key}` must be {}, not {number}", self.path, wanted());
                findings.error(Some(value.span()), text);
                None
            }
        }
    }

    /// A duration like "500ms", "5s" or "2m", within `range`.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: Range<Duration>,
        findings: &mut Findings<'_>,
    ) -> Option<Duration> {
        let text = self.string(key, findings)?;
        match parse_duration(&text.value) {
            Some(duration) if range.contains(&duration) => Some(duration),
            Some(_) => {
                let text_of = |d: Duration| format!("{}s", d.as_secs_f64());
                let wanted = format!("from {} to under {}", text_of(range.start), text_of(range.end));
                findings.error(Some(text.span), format!("`{}{key}` must be {wanted}", self.path));
                None
            }
            None => {
                let wanted = "a duration with its unit, like \"500ms\", \"5s\" or \"2m\"";
                findings.error(Some(text.span), format!("`{}{key}` must be {wanted}", self.path));
                None
            }
        }
    }

    /// A size like "256MiB", within `range` bytes.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        range: Range<u64>,
        findings: &mut Findings<'_>,
    ) -> Option<u64> {
        let text = self.string(key, findings)?;
        let size = parse_size(&text.value).filter(|size| range.contains(size));
        if size.is_none() {
            let wanted = format!("a size like \"256MiB\", at least {} bytes", range.start);
            findings.error(Some(text.span), format!("`{}{key}` must be {wanted}", self.path));
        }
        size
    }

    pub(crate) fn strings(
        &mut self,
        key: &'static str,
        findings: &mut Findings<'_>,
    ) -> Option<At<Vec<At<String>>>> {
        let value = self.take(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(key, "a list of strings", value, findings);
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), span: item.span() }),
                None => self.wrong(key, "a list of strings", item, findings),
            }
        }
        Some(At { value: texts, span: value.span() })
    }

    pub(crate) fn table(&mut self, key: &'static str, findings: &mut Findings<'_>) -> Option<Self> {
        let value = self.take(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(self.child(key, table, value.span())),
            None => {
                self.wrong(key, "a table", value, findings);
                None
            }
        }
    }

    pub(crate) fn tables(&mut self, key: &'static str, findings: &mut Findings<'_>) -> Vec<At<Self>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(key, &format!("a list of tables: write [[{key}]]"), value, findings);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref().as_table() {
                Some(table) => {
                    let span = item.span();
                    sections.push(At { value: self.child(key, table, span.clone()), span });
                }
                None => self.wrong(key, &format!("a list of tables: write [[{key}]]"), item, findings),
            }
        }
        sections
    }
}

/// The known name nearest to `name`, if it looks like a misspelling.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= MISSPELLING_EDITS_MAX && *edits < candidate.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let ms = match &text[split..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit: u64 = match text[split..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_from_one() {
        assert_eq!(place("", 0), (1, 1));
        assert_eq!(place("a\nbü", 3), (2, 2));
        assert_eq!(place("a\nbü", 4), (2, 2), "inside the two-byte letter");
        assert_eq!(place("a\nbü", 99), (2, 3));
    }

    #[test]
    fn durations_and_sizes_need_their_units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-5s", "5 s", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        assert_eq!(parse_size("256MiB"), Some(256 << 20));
        assert_eq!(parse_size("1024"), Some(1024));
        for bad in ["", "MiB", "1MB", "-1", "99999999999999999999", "18446744073709551615KiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_misspelling_is_named_and_a_stranger_is_not() {
        let known = ["autostart", "restart", "exec"];
        assert_eq!(nearest("autostrat", known.into_iter()), Some("autostart"));
        assert_eq!(nearest("exce", known.into_iter()), Some("exec"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
