//! Where a unix socket may lie: paths short enough for the kernel, directories that nobody else can enter.
//!
//! Refuses to know which directory that is; the caller chooses it.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Longest path of a unix socket, in bytes: Linux has 108 for `sun_path`, one of them for the closing NUL. A longer
/// path cannot be bound at all, and the kernel's own message ("invalid argument") helps nobody.
pub const PATH_BYTES_MAX: usize = 107;

/// The socket's path does not fit into a socket address.
#[derive(Debug, thiserror::Error)]
#[error(
    "the socket path {} is {} bytes long, and the system allows {PATH_BYTES_MAX}; choose a shorter data directory",
    .path.display(), .path.as_os_str().len()
)]
pub struct PathTooLong {
    /// The path that was asked for.
    pub path: PathBuf,
}

pub(crate) fn check_length(path: &Path) -> Result<(), PathTooLong> {
    if path.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
        return Err(PathTooLong { path: path.to_owned() });
    }
    Ok(())
}

/// Makes sure that `dir` is a directory which only this user can enter, creating it (0700) if it is absent.
///
/// # Errors
/// It cannot be made, is a link, belongs to somebody else, or is open to others. The text says which.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", dir.display()))),
    }
    let facts = fs::symlink_metadata(dir)?;
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    if !facts.is_dir() {
        return refuse(format!("{} is a link, not a directory of its own", dir.display()));
    }
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return refuse(format!("{} belongs to user {}", dir.display(), facts.uid()));
    }
    let mode = facts.mode() & 0o777;
    if mode & 0o077 != 0 {
        return refuse(format!(
            "{0} is open to others (mode {mode:04o}); close it: chmod 700 {0}",
            dir.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_path_of_107_bytes_fits_and_one_of_108_is_named() {
        assert!(check_length(Path::new(&"x".repeat(PATH_BYTES_MAX))).is_ok());
        let error = check_length(Path::new(&"x".repeat(PATH_BYTES_MAX + 1))).unwrap_err();
        assert!(error.to_string().contains("108 bytes long"), "{error}");
    }

    #[test]
    fn a_directory_open_to_others_is_refused_with_the_command_that_closes_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = private_dir(dir.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_missing_directory_is_made_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/run");
        private_dir(&inner).unwrap();
        assert_eq!(fs::metadata(inner).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_is_not_taken_for_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("run");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(private_dir(&link).is_err());
    }
}
