//! A plugin's directory as it lies on disk: manifest, programs, and the hash that the user's approval is bound to.
//! Owns `p2pos plugins check` and what counts as "the same plugin as the one you approved".
//!
//! Refuses to know: grants, processes. Everything here blocks on the disk: call it off the async threads.
//!
//! The hash covers the manifest and every file that a command line of the manifest names (`exec = ["python3",
//! "main.py"]`: main.py; `exec = ["./bin/chess"]`: that file). It does not cover files that a program loads by itself;
//! the signature of a packed plugin will.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Findings, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, Problem,
    digest::{digest, open_regular},
    parse,
};

/// What `p2pos plugins check DIR` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The plugin's id, if it could be read.
    pub id: Option<String>,
    /// What keeps the plugin from running.
    pub errors: Vec<Problem>,
    /// What its author should look at.
    pub warnings: Vec<Problem>,
}

/// A plugin's directory after reading it.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) dir: PathBuf,
    /// `None` beside at least one error.
    pub(crate) manifest: Option<Manifest>,
    /// Hex SHA-256; `None` without a manifest or if a program cannot be read.
    pub(crate) exec_hash: Option<String>,
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Loaded {
    /// The directories, other than its own, where the programs lie that it names: watching them notices their change.
    pub(crate) fn program_dirs(&self) -> Vec<PathBuf> {
        let Some(manifest) = &self.manifest else { return Vec::new() };
        let words = commands(manifest).flatten().filter(|word| word.contains('/'));
        let files = words.map(|word| self.dir.join(word)).filter(|path| path.is_file());
        files.filter_map(|path| path.parent().map(Path::to_owned)).collect()
    }
}

/// Checks the plugin in a directory. Blocks on the disk; never panics, whatever lies there.
#[must_use]
pub fn check(dir: &Path) -> Report {
    let mut loaded = load(dir);
    let id = loaded.manifest.as_ref().map(|manifest| manifest.id.to_string());
    let called =
        dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    if let (Some(id), Some(called)) = (&id, called)
        && *id != called
    {
        let text = format!(
            "the directory is called {called:?}; among the installed plugins it must be called {id:?}"
        );
        loaded.warnings.push(whole_file(text));
    }
    Report { id, errors: loaded.errors, warnings: loaded.warnings }
}

/// Checks the text of a manifest alone, without the directory it belongs to. Never panics.
#[must_use]
pub fn check_manifest(text: &str) -> Report {
    let mut findings = Findings::new(MANIFEST_FILE, text);
    let id = parse(text, &mut findings).map(|manifest| manifest.id.to_string());
    Report { id, errors: findings.errors, warnings: findings.warnings }
}

/// Reads a plugin's directory. Blocks on the disk.
pub(crate) fn load(dir: &Path) -> Loaded {
    let mut loaded = Loaded {
        dir: dir.to_owned(),
        manifest: None,
        exec_hash: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let text = match read_manifest(&dir.join(MANIFEST_FILE)) {
        Ok(text) => text,
        Err(error) => {
            loaded.errors.push(whole_file(format!("cannot be read: {error}")));
            return loaded;
        }
    };
    let mut findings = Findings::new(MANIFEST_FILE, &text);
    loaded.manifest = parse(&text, &mut findings);
    loaded.errors = findings.errors;
    loaded.warnings = findings.warnings;
    let Some(manifest) = &loaded.manifest else { return loaded };
    for exec in commands(manifest) {
        if let Err(text) = resolve_exec(dir, &exec[0]) {
            loaded.warnings.push(whole_file(text));
        }
    }
    match exec_hash(dir, &text, manifest) {
        Ok(hash) => loaded.exec_hash = Some(hash),
        Err(error) => {
            loaded.errors.push(whole_file(format!("a program cannot be read: {error}")));
            loaded.manifest = None;
        }
    }
    loaded
}

fn whole_file(text: String) -> Problem {
    Problem { file: MANIFEST_FILE.to_owned(), line: 0, column: 0, text }
}

fn read_manifest(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = open_regular(path)?;
    file.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {MANIFEST_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn commands(manifest: &Manifest) -> impl Iterator<Item = &[String]> {
    let run = manifest.run.iter().map(|run| run.exec.as_slice());
    run.chain(manifest.serve.iter().map(|serve| serve.exec.as_slice()))
}

/// Finds the program of a command line, as the launch will: with a slash below the plugin's directory, else on PATH.
///
/// # Errors
/// A sentence for the author.
pub(crate) fn resolve_exec(dir: &Path, program: &str) -> Result<PathBuf, String> {
    let is_program =
        |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = dir.join(program);
        return match (path.exists(), is_program(&path)) {
            (_, true) => Ok(path),
            (true, false) => Err(format!("{program:?} is not an executable file (chmod +x?)")),
            (false, false) => Err(format!("there is no {program:?} in the plugin's directory")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join(program)).find(|path| is_program(path));
    found.ok_or_else(|| {
        let hint =
            if dir.join(program).is_file() { format!("; write \"./{program}\"") } else { String::new() };
        format!("{program:?} is not on PATH{hint}")
    })
}

/// The hash of everything the user approves: see the story at the top.
fn exec_hash(dir: &Path, manifest_text: &str, manifest: &Manifest) -> io::Result<String> {
    let mut hash = Sha256::new();
    let add_length = |hash: &mut Sha256, length: u64| hash.update(length.to_be_bytes());
    add_length(&mut hash, manifest_text.len() as u64);
    hash.update(manifest_text);
    for exec in commands(manifest) {
        for (index, word) in exec.iter().enumerate() {
            // A bare first word is looked up on PATH, so a file of that name here is not what runs.
            let is_file_name = index > 0 || word.contains('/');
            let path = dir.join(word);
            if !is_file_name || !path.is_file() {
                continue;
            }
            add_length(&mut hash, word.len() as u64);
            hash.update(word);
            hash.update(digest(&path)?);
        }
    }
    Ok(crate::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn plugin(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const MANIFEST: &str = "manifest = 1\nid = \"a\"\n[run]\nexec = [\"sh\", \"main.sh\", \"-v\"]\n";

    #[test]
    fn the_hash_follows_the_manifest_and_the_named_files_only() {
        let dir = plugin(&[("plugin.toml", MANIFEST), ("main.sh", "true"), ("notes", "x")]);
        let first = load(dir.path()).exec_hash.unwrap();
        fs::write(dir.path().join("notes"), "y").unwrap();
        assert_eq!(load(dir.path()).exec_hash.unwrap(), first, "a file nobody runs");
        fs::write(dir.path().join("main.sh"), "false").unwrap();
        let second = load(dir.path()).exec_hash.unwrap();
        assert_ne!(second, first);
        fs::write(dir.path().join("plugin.toml"), format!("{MANIFEST}autostart = false\n")).unwrap();
        assert_ne!(load(dir.path()).exec_hash.unwrap(), second);
    }

    #[test]
    fn a_missing_program_is_a_warning_that_says_what_to_write() {
        let manifest = "manifest = 1\nid = \"a\"\n[run]\nexec = [\"main\"]\n";
        let dir = plugin(&[("plugin.toml", manifest), ("main", "#!/bin/sh\n")]);
        let report = check(dir.path());
        assert!(report.errors.is_empty());
        let texts: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
        assert!(texts[0].ends_with("\"main\" is not on PATH; write \"./main\""), "{texts:?}");
        assert!(texts[1].contains("must be called \"a\""), "{texts:?}");
    }

    #[test]
    fn what_is_no_readable_manifest_is_an_error_without_waiting() {
        let empty = plugin(&[]);
        assert!(check(empty.path()).errors[0].to_string().starts_with("plugin.toml: cannot be read"));
        let huge = plugin(&[("plugin.toml", &"#".repeat(300_000))]);
        assert!(check(huge.path()).errors[0].text.contains("larger than 262144 bytes"));
        let fifo = plugin(&[]);
        let path = fifo.path().join("plugin.toml");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(check(fifo.path()).errors[0].text.contains("not a regular file"));
        let binary = plugin(&[]);
        fs::write(binary.path().join("plugin.toml"), [0xff, 0xfe, 0]).unwrap();
        assert_eq!(check(binary.path()).errors.len(), 1);
    }
}
