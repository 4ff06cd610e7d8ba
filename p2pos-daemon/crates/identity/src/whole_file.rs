//! Files that change as a whole: after a crash at any moment the old text is there or the new one, never a part of it.
//! Feature `files`, unix only. The one place for this; the daemon's settings, grants and endpoint file go through it.
//!
//! Blocks on the disk. Refuses to know: what is in the files, where they lie. (A file that must not replace another one
//! is made by the store's `private_file`.)

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// Read and write for the owner, nothing for anybody else: what is less private does not go through here.
const FILE_MODE: u32 = 0o600;

/// Replaces the text of a file, or makes it, for its owner's eyes only. On disk when this returns: it is written beside
/// the old one, synced, renamed, and the folder is synced.
///
/// # Errors
/// What the disk said. Then the old file stands as it was, unless only the last sync failed.
pub fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let passing = Passing::beside(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&passing.0)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&passing.0, path)?;
    sync_folder(folder_of(path))
}

/// Sees the names in a folder onto the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns the folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The name that a file has while it is written: of this process and this call, so that two writers at once each
/// replace the file whole. Removed if anything fails.
struct Passing(PathBuf);

impl Passing {
    fn beside(path: &Path) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{}-{}", process::id(), LAST.fetch_add(1, Ordering::Relaxed)));
        // A process of the same number may have been killed here; nobody else uses this name.
        std::fs::remove_file(&name).ok();
        Self(name.into())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // After a good rename it is gone; a file that stays behind is ugly and harmless.
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, thread};

    use super::*;

    #[test]
    fn a_replaced_file_is_private_whole_and_alone_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.toml");
        for text in ["first", "second, and longer", ""] {
            replace_file(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, FILE_MODE);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        replace_file(&path, b"text").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        replace_file(&folder.path().join("missing/file"), b"text").unwrap_err();
    }

    #[test]
    fn what_a_killed_writer_left_behind_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for n in 0..100_u64 {
            fs::write(format!("{}.new-{}-{n}", path.display(), process::id()), "half").unwrap();
        }
        replace_file(&path, b"whole").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
    }

    #[test]
    fn of_two_writers_at_once_one_wins_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let texts = ["a", "b"].map(|letter| letter.repeat(100_000));
        thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| (0..20).for_each(|_| replace_file(&path, text.as_bytes()).unwrap()));
            }
        });
        assert!(texts.contains(&fs::read_to_string(&path).unwrap()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
