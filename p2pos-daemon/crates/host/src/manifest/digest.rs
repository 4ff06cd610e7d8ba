//! SHA-256 of program files, remembered. Owns the rule when a remembered digest still holds.
//!
//! A plugin's programs are hashed whenever its directory is looked at and before every start; a debug build of 50 MB
//! takes 50 ms each time. A digest is taken from memory only if the file is the same inode with the same size and the
//! same times of change. `ctime` cannot be set by a user, so nobody can put an old face on a new file; a file that was
//! changed less than two seconds ago is never remembered, since a second change could fall into the same tick.
//!
//! Refuses to know: manifests. Blocks on the disk.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

/// Largest program file that is hashed, in bytes. Debug builds reach 200 MB; hashing 1 GiB takes about a second.
const PROGRAM_BYTES_MAX: u64 = 1 << 30;
/// Digests remembered: four files for each of 256 plugins. Above, all are forgotten and learnt again.
const REMEMBERED_MAX: usize = 1024;
/// Age of a change from which a digest may be remembered: far above the tick of any file system's clock.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Device, inode, size, seconds and nanoseconds of the last change of content and of the inode.
type Face = (u64, u64, u64, [i64; 4]);

static REMEMBERED: Mutex<BTreeMap<Face, [u8; 32]>> = Mutex::new(BTreeMap::new());

/// The digest of a regular file.
///
/// # Errors
/// When it cannot be read, is no regular file, or is too large.
pub(super) fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let file = open_regular(path)?;
    let facts = file.metadata()?;
    if facts.len() > PROGRAM_BYTES_MAX {
        return Err(io::Error::other(format!("{} is larger than {PROGRAM_BYTES_MAX} bytes", path.display())));
    }
    let face = face(&facts);
    if let Some(known) = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner).get(&face) {
        return Ok(*known);
    }
    let fresh = digest_of(file.take(facts.len()))?;
    if is_settled(&facts) {
        let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(face, fresh);
    }
    Ok(fresh)
}

/// Opens a file, and nothing that only looks like one: opening a FIFO would wait for ever.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

fn face(facts: &Metadata) -> Face {
    (
        facts.dev(),
        facts.ino(),
        facts.len(),
        [facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec()],
    )
}

fn is_settled(facts: &Metadata) -> bool {
    let changed = u64::try_from(facts.ctime()).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    changed
        .is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED_AFTER))
}

fn digest_of(mut file: impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_fresh_file_is_never_remembered_and_a_settled_one_is_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "one").unwrap();
        let one = digest(&path).unwrap();
        fs::write(&path, "two").unwrap();
        assert_ne!(digest(&path).unwrap(), one, "the same size within one tick");
        assert!(!is_settled(&fs::metadata(&path).unwrap()));
        let old = Path::new("/proc/self/exe").canonicalize().unwrap();
        let known = digest(&old).unwrap();
        assert_eq!(digest(&old).unwrap(), known);
    }
}
