//! Files that only their owner may read, and that exist whole or not at all.
//!
//! A new file is written under a passing name, synced, and then linked to its real name, which fails if somebody else
//! was faster; the folder is synced last. A power cut at any moment leaves the old state or the new one, and at worst
//! a forgotten file with `.new-` in its name.
//!
//! Refuses to know: what is in the files.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::whole_file;
pub(super) use crate::whole_file::folder_of;

/// Read and write for the owner, nothing for anybody else.
const FILE_MODE: u32 = 0o600;
/// The same for a folder.
const DIRECTORY_MODE: u32 = 0o700;
/// The permission bits of group and others.
const OTHERS_MASK: u32 = 0o077;

/// Why a file that must be private could not be used. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// Group or others have rights on the file.
    #[error(
        "{} can be read or changed by others (mode {mode:04o}), so it is not used; run: chmod 600 {}",
        path.display(), quoted(path)
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error(
        "{} belongs to user id {owner} and p2pOS runs as {ours}, so it is not used; run as that user, or: chown {ours} {}",
        path.display(), quoted(path)
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// A folder, pipe or device stands where the file should be.
    #[error("{} is not a regular file; move it away: mv {} {}.old", path.display(), quoted(path), quoted(path))]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot {doing} {}: {source}; check the folder's rights and the free space: ls -ld {}", path.display(), quoted(folder_of(path)))]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// How [`create`] ended when nothing went wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Creation {
    /// The file is in place and on disk.
    Made,
    /// Somebody else made it first; theirs stands.
    ExistedAlready,
}

/// Opens a private file for reading, or for writing too. `None` if there is none.
pub(super) fn open(path: &Path, is_writable: bool) -> Result<Option<File>, PrivateFileError> {
    // A pipe left here by somebody would block a plain open for ever.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("open flags fit an int");
    match OpenOptions::new().read(true).write(is_writable).custom_flags(nonblock).open(path) {
        Ok(file) => check(&file, path).map(|()| Some(file)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) if source.kind() == ErrorKind::IsADirectory => {
            Err(PrivateFileError::NotAFile { path: path.to_owned() })
        }
        Err(source) => Err(failed("open", path, source)),
    }
}

/// Makes a private file with what `write` puts into it, unless one exists. Nobody ever sees a half-written one.
pub(super) fn create<E: From<PrivateFileError>>(
    path: &Path,
    write: impl FnOnce(File) -> Result<(), E>,
) -> Result<Creation, E> {
    let passing = Passing::new(path)?;
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).clone();
    let file = options.open(&passing.0).map_err(|source| failed("create", &passing.0, source))?;
    let synced = file.try_clone().map_err(|source| failed("create", &passing.0, source))?;
    write(file)?;
    synced.sync_all().map_err(|source| failed("sync", &passing.0, source))?;
    let creation = match std::fs::hard_link(&passing.0, path) {
        Ok(()) => Creation::Made,
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Creation::ExistedAlready,
        Err(source) => return Err(failed("create", path, source).into()),
    };
    drop(passing);
    sync_folder(folder_of(path))?;
    Ok(creation)
}

/// Makes a folder and its parents, for the owner only, and sees them onto the disk. One that exists stays as it is.
pub(super) fn create_folder(path: &Path) -> Result<(), PrivateFileError> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE);
    builder.create(path).map_err(|source| failed("create", path, source))?;
    missing.into_iter().try_for_each(|folder| sync_folder(folder_of(folder)))
}

/// Builds the error for an operation on `path` that the system refused.
pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> PrivateFileError {
    PrivateFileError::Io { doing, path: path.to_owned(), source }
}

/// Writes a path so that a shell reads it back as one word.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn sync_folder(folder: &Path) -> Result<(), PrivateFileError> {
    whole_file::sync_folder(folder).map_err(|source| failed("sync", folder, source))
}

/// Looks at the file that was opened, not at the name: nobody can change what is behind it in between.
fn check(file: &File, path: &Path) -> Result<(), PrivateFileError> {
    let metadata = file.metadata().map_err(|source| failed("examine", path, source))?;
    let facts = Facts { is_file: metadata.is_file(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 };
    judge(path, &facts, rustix::process::geteuid().as_raw())
}

/// What the system says about a file.
struct Facts {
    is_file: bool,
    owner: u32,
    mode: u32,
}

fn judge(path: &Path, facts: &Facts, ours: u32) -> Result<(), PrivateFileError> {
    let path = path.to_owned();
    if !facts.is_file {
        return Err(PrivateFileError::NotAFile { path });
    }
    if facts.owner != ours {
        return Err(PrivateFileError::ForeignOwner { path, owner: facts.owner, ours });
    }
    if facts.mode & OTHERS_MASK != 0 {
        return Err(PrivateFileError::TooOpen { path, mode: facts.mode });
    }
    Ok(())
}

/// A name beside the real one that nobody else uses, removed again when dropped.
struct Passing(PathBuf);

impl Passing {
    fn new(path: &Path) -> Result<Self, PrivateFileError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| failed("find a free name for", path, io::Error::other(error.to_string())))?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{:016x}", u64::from_be_bytes(random)));
        Ok(Self(name.into()))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // It may be gone, or never have been made; a file that stays behind is ugly and harmless.
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_created_file_is_private_whole_and_alone_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(create(&path, |file| write_text(file, "first")).unwrap(), Creation::Made);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, FILE_MODE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_exists_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, |file| write_text(file, "first")).unwrap();
        assert_eq!(create(&path, |file| write_text(file, "second")).unwrap(), Creation::ExistedAlready);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let result = create(&path, |_| Err(failed("write", &path, io::Error::other("disk full"))));
        assert!(result.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my key");
        create(&path, |file| write_text(file, "x")).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = open(&path, false).unwrap_err();
            assert!(matches!(error, PrivateFileError::TooOpen { mode: found, .. } if found == mode));
            assert!(error.to_string().contains("run: chmod 600 '"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(open(&path, false).unwrap().is_some());
    }

    #[test]
    fn a_file_of_another_user_is_refused_whatever_its_mode() {
        let facts = Facts { is_file: true, owner: 1001, mode: FILE_MODE };
        let error = judge(Path::new("/home/ana/key"), &facts, 1000).unwrap_err();
        assert!(error.to_string().ends_with("chown 1000 /home/ana/key"), "{error}");
        assert!(judge(Path::new("/home/ana/key"), &facts, 1001).is_ok());
    }

    #[test]
    fn a_folder_or_a_pipe_in_place_of_the_file_is_named_and_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let subfolder = folder.path().join("folder");
        create_folder(&subfolder).unwrap();
        for is_writable in [false, true] {
            assert!(matches!(open(&subfolder, is_writable), Err(PrivateFileError::NotAFile { .. })));
        }
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(FILE_MODE),
            0,
        )
        .unwrap();
        assert!(matches!(open(&pipe, false), Err(PrivateFileError::NotAFile { .. })));
    }

    #[test]
    fn a_missing_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(&folder.path().join("nothing"), false).unwrap().is_none());
    }

    #[test]
    fn quoted_paths_survive_a_shell() {
        assert_eq!(quoted(Path::new("/home/ana/.p2pos/key")), "/home/ana/.p2pos/key");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    fn write_text(mut file: File, text: &str) -> Result<(), PrivateFileError> {
        file.write_all(text.as_bytes()).map_err(|source| failed("write", Path::new("test"), source))
    }
}
