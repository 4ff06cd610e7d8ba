//! The TOML file: values with their lines, unknown keys, and changes that keep what a person wrote around them.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use p2pos_control::{Failure, Problem};
use p2pos_identity::replace_file;
use toml_edit::{Array, Document, DocumentMut, Item, Table, Value};

use super::table::{KEYS, Key, Kind, nearest};

/// Largest file that is read, in bytes: ours has a dozen settings, and whatever is larger is not ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file as it was read.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    text: String,
    /// Keeps the place of every item in `text`.
    read: Document<String>,
}

/// What the file says about one setting.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Value(String),
    Wrong(Problem),
}

impl ConfigFile {
    /// Reads it; a file that does not exist is an empty one.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |why: &str| Failure::failed(format!("cannot read {}: {why}", path.display()));
        let text = match fs::metadata(path) {
            Ok(facts) if facts.len() > FILE_BYTES_MAX => return Err(unreadable("it is larger than 1 MiB")),
            Ok(_) => fs::read_to_string(path).map_err(|error| unreadable(&error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(unreadable(&error.to_string())),
        };
        let read = Document::parse(text.clone()).map_err(|error| {
            let place = place(path, &text, error.span());
            Failure::usage(format!("{place}: {}", error.message().replace('\n', ", ")))
        })?;
        Ok(Self { path: path.to_owned(), text, read })
    }

    pub(super) fn value(&self, key: &Key) -> Found {
        let (table, name) = key.parts();
        let Some(item) = self.read.get(table) else { return Found::Nothing };
        let Some(table) = item.as_table_like() else {
            return Found::Wrong(self.error(item, format!("`{table}` is a table: write [{table}]")));
        };
        let Some(item) = table.get(name) else { return Found::Nothing };
        let text = match (&key.kind, item.as_value()) {
            (Kind::Port | Kind::Number { .. }, Some(Value::Integer(number))) => number.value().to_string(),
            (Kind::Path | Kind::OneOf(_) | Kind::Ports | Kind::Relays, Some(Value::String(text))) => {
                text.value().clone()
            }
            (Kind::Ports | Kind::Relays, Some(Value::Array(list))) => list_text(list),
            (
                Kind::Port | Kind::Number { .. } | Kind::Path | Kind::OneOf(_) | Kind::Ports | Kind::Relays,
                _,
            ) => String::from("\0"),
        };
        match key.check(&text) {
            Ok(()) => Found::Value(text),
            Err(takes) => Found::Wrong(self.error(item, format!("{}: {takes}", key.name))),
        }
    }

    /// Keys that no setting has: slips of the pen, or of a newer version.
    pub(super) fn unknown_keys(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (table, item) in self.read.iter() {
            let known: Vec<&Key> = KEYS.iter().filter(|key| key.parts().0 == table).collect();
            if known.is_empty() {
                let near = nearest(table, KEYS.iter().map(|key| key.parts().0));
                problems.push(self.unknown(self.read.as_table(), table, near));
                continue;
            }
            // What is no table at all is an error of the setting that should be in it.
            let Some(entries) = item.as_table_like() else { continue };
            for (name, _) in entries.iter() {
                let full = format!("{table}.{name}");
                if known.iter().any(|key| key.name == full) {
                    continue;
                }
                let near = nearest(&full, known.iter().map(|key| key.name));
                let span = entries.key(name).and_then(toml_edit::Key::span);
                problems.push(self.unknown_at(span, &full, near));
            }
        }
        problems
    }

    fn unknown(&self, within: &Table, name: &str, near: Option<&str>) -> Problem {
        // A table's own span is that of its header, which its key may lack.
        let span =
            within.get(name).and_then(Item::span).or_else(|| within.key(name).and_then(toml_edit::Key::span));
        self.unknown_at(span, name, near)
    }

    fn unknown_at(&self, span: Option<Range<usize>>, name: &str, near: Option<&str>) -> Problem {
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let place = place(&self.path, &self.text, span);
        Problem { is_error: false, place, message: format!("nothing is called {name:?}{hint}") }
    }

    fn error(&self, item: &Item, message: String) -> Problem {
        Problem { is_error: true, place: place(&self.path, &self.text, item.span()), message }
    }

    pub(super) fn set(&mut self, key: &Key, value: &str) -> Result<(), Failure> {
        let mut document: DocumentMut = self.text.parse().map_err(|error: toml_edit::TomlError| {
            Failure::failed(format!("cannot change {}: {}", self.path.display(), error.message()))
        })?;
        let (table, name) = key.parts();
        let entries = document.entry(table).or_insert_with(toml_edit::table);
        let Some(entries) = entries.as_table_like_mut() else {
            let place = place(&self.path, &self.text, self.read.get(table).and_then(Item::span));
            return Err(Failure::usage(format!("{place}: `{table}` is a table: write [{table}]")));
        };
        let mut new = match (&key.kind, value.parse::<i64>()) {
            (Kind::Port | Kind::Number { .. }, Ok(number)) => Value::from(number),
            (
                Kind::Port | Kind::Number { .. } | Kind::Path | Kind::OneOf(_) | Kind::Ports | Kind::Relays,
                _,
            ) => Value::from(value),
        };
        if let Some(old) = entries.get(name).and_then(Item::as_value) {
            *new.decor_mut() = old.decor().clone();
        }
        entries.insert(name, Item::Value(new));
        self.text = document.to_string();
        Ok(())
    }

    /// Writes it beside the old one and then takes its place: a crash leaves one or the other, never half of it.
    pub(super) fn write(&self) -> Result<(), Failure> {
        self.replace()
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", self.path.display())))
    }

    fn replace(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(dir)?;
        replace_file(&self.path, self.text.as_bytes())
    }
}

/// A list of the file as the text that the environment would hold.
fn list_text(list: &Array) -> String {
    let item = |value: &Value| match value {
        Value::String(text) => text.value().clone(),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::InlineTable(_) => String::from("\0"),
    };
    list.iter().map(item).collect::<Vec<_>>().join(", ")
}

fn place(path: &Path, text: &str, span: Option<Range<usize>>) -> String {
    let Some(span) = span else { return path.display().to_string() };
    let before = text.get(..span.start).unwrap_or(text);
    format!("{}:{}", path.display(), before.matches('\n').count() + 1)
}
