//! The identity on disk: one small text file, made on the first run, that nobody but its owner can read.
//!
//! The seed stands in it as bech32m with the prefix `p2psec`, so that a damaged file is noticed: without a checksum, one
//! flipped bit would silently be another person. The file is never overwritten; restoring from words needs the place
//! to be free.
//!
//! Refuses to know: where the data directory is, passphrases (a later issue), what the key is used for.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bech32::{
    Bech32m, Fe32, Hrp,
    primitives::{
        decode::CheckedHrpstring,
        iter::{ByteIterExt, Fe32IterExt},
    },
};
use zeroize::{Zeroize, Zeroizing};

use super::private_file::{self, Creation, PrivateFileError, failed, quoted};
use crate::SecretKey;

/// The name of the file inside the data directory.
pub const KEY_FILE_NAME: &str = "identity.key";

/// The longest key file that is read, in bytes. Ours has about 150; the rest is room for comments.
const KEY_FILE_BYTES_MAX: usize = 4096;

/// Characters of the key's line: prefix 6, separator 1, version 1, key 52, checksum 6.
const KEY_LINE_CHARS: usize = 66;

const PREFIX: Hrp = Hrp::parse_unchecked("p2psec");
const VERSION: Fe32 = Fe32::Q;
const COMMENT: &str = "# The p2pOS identity of this user. Whoever has it is you: show it to nobody.\n";

/// Where our key is kept.
#[derive(Debug)]
pub struct KeyFile;

/// Whether a key was found or had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// This is the first run: a new person came into being.
    Created,
    /// The key was there.
    Loaded,
}

/// Why there is no key to use. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read, or must not be trusted.
    #[error("key file: {0}")]
    File(#[from] PrivateFileError),
    /// The file holds no valid key.
    #[error(
        "the key file {} is damaged; move it away and restore your identity from its 24 words: mv {} {}.damaged && p2pos id restore",
        path.display(), quoted(path), quoted(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error("the key file {} was written by a newer p2pOS; update this one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// A key is there already, and would be lost.
    #[error(
        "there is an identity in {} already; if you want to give it up, move it away first: mv {} {}.old",
        path.display(), quoted(path), quoted(path)
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error("the system gives no random numbers: {0}; see that /dev/urandom can be read")]
    NoRandomness(String),
}

impl KeyFile {
    /// Loads the key from the data directory, or makes directory and key if there is none.
    ///
    /// Two processes that start at once end with the same key. When this returns, the key is on disk.
    ///
    /// # Errors
    /// [`KeyFileError`]; in particular a key that others could read is refused, and never made private silently:
    /// they may have read it.
    pub fn load_or_create(directory: &Path) -> Result<(SecretKey, KeyOrigin), KeyFileError> {
        if let Some(key) = Self::load(directory)? {
            return Ok((key, KeyOrigin::Loaded));
        }
        let key = SecretKey::generate()?;
        match Self::write(directory, &key)? {
            Creation::Made => Ok((key, KeyOrigin::Created)),
            Creation::ExistedAlready => {
                let theirs = Self::load(directory)?
                    .ok_or_else(|| KeyFileError::Damaged { path: path_in(directory) })?;
                Ok((theirs, KeyOrigin::Loaded))
            }
        }
    }

    /// Loads the key; `None` if this is a first run.
    ///
    /// # Errors
    /// [`KeyFileError`], as for [`KeyFile::load_or_create`].
    pub fn load(directory: &Path) -> Result<Option<SecretKey>, KeyFileError> {
        let path = path_in(directory);
        let Some(file) = private_file::open(&path, false)? else {
            return Ok(None);
        };
        // Room beforehand, so that growing leaves no copy of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX));
        let read = file.take(KEY_FILE_BYTES_MAX as u64).read_to_end(&mut bytes);
        read.map_err(|source| failed("read", &path, source))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| KeyFileError::Damaged { path: path.clone() })?;
        match seed_of(text) {
            Ok(seed) => Ok(Some(SecretKey::from_seed(*seed))),
            Err(BadText::Damaged) => Err(KeyFileError::Damaged { path }),
            Err(BadText::Newer) => Err(KeyFileError::Newer { path }),
        }
    }

    /// Puts a key that came from backup words into a data directory that has none.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] if there is a key, whichever.
    pub fn restore(directory: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
        match Self::write(directory, key)? {
            Creation::Made => Ok(()),
            Creation::ExistedAlready => Err(KeyFileError::Exists { path: path_in(directory) }),
        }
    }

    fn write(directory: &Path, key: &SecretKey) -> Result<Creation, KeyFileError> {
        private_file::create_folder(directory)?;
        let path = path_in(directory);
        let text = text_of(key);
        private_file::create(&path, |mut file: File| {
            file.write_all(text.as_bytes()).map_err(|source| failed("write", &path, source).into())
        })
    }
}

impl SecretKey {
    /// Makes a new identity from the system's randomness. It is nowhere but in memory yet.
    ///
    /// # Errors
    /// [`KeyFileError::NoRandomness`], which on a running system does not happen.
    pub fn generate() -> Result<Self, KeyFileError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| KeyFileError::NoRandomness(error.to_string()))?;
        Ok(Self::from_seed(*seed))
    }
}

fn path_in(directory: &Path) -> PathBuf {
    directory.join(KEY_FILE_NAME)
}

fn text_of(key: &SecretKey) -> Zeroizing<String> {
    // Room for everything beforehand, so that growing leaves no copy of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(COMMENT.len() + KEY_LINE_CHARS + 1));
    text.push_str(COMMENT);
    let symbols = key.seed().iter().copied().bytes_to_fes();
    text.extend(symbols.with_checksum::<Bech32m>(&PREFIX).with_witness_version(VERSION).chars());
    text.push('\n');
    text
}

enum BadText {
    Damaged,
    Newer,
}

fn seed_of(text: &str) -> Result<Zeroizing<[u8; 32]>, BadText> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(BadText::Damaged);
    };
    let mut checked = CheckedHrpstring::new::<Bech32m>(line).map_err(|_| BadText::Damaged)?;
    if checked.hrp() != PREFIX {
        return Err(BadText::Damaged);
    }
    if checked.remove_witness_version() != Some(VERSION) {
        return Err(BadText::Newer);
    }
    let mut seed = Zeroizing::new([0; 32]);
    let mut bytes = checked.byte_iter();
    if bytes.len() != seed.len() {
        return Err(BadText::Damaged);
    }
    for (to, mut byte) in seed.iter_mut().zip(&mut bytes) {
        *to = byte;
        byte.zeroize();
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_first_run_makes_a_key_and_the_second_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("data/p2pos");
        let (first, origin) = KeyFile::load_or_create(&directory).unwrap();
        assert_eq!(origin, KeyOrigin::Created);
        let (second, origin) = KeyFile::load_or_create(&directory).unwrap();
        assert_eq!(origin, KeyOrigin::Loaded);
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(mode_of(&directory), 0o700);
        assert_eq!(mode_of(&path_in(&directory)), 0o600);
    }

    #[test]
    fn processes_that_start_at_once_share_one_identity() {
        let folder = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let directory = folder.path().to_owned();
                std::thread::spawn(move || KeyFile::load_or_create(&directory).unwrap().0.peer_id())
            })
            .collect();
        let mut peers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        peers.dedup();
        assert_eq!(peers.len(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "passing files stayed behind");
    }

    #[test]
    fn every_changed_character_and_every_truncation_is_damage_and_never_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        KeyFile::restore(folder.path(), &SecretKey::from_seed([7; 32])).unwrap();
        let path = path_in(folder.path());
        let whole = fs::read_to_string(&path).unwrap();
        let line_start = whole.find(PREFIX.as_str()).unwrap();
        for index in line_start..whole.trim_end().len() {
            let mut damaged = whole.clone();
            let new = if &whole[index..=index] == "z" { "x" } else { "z" };
            damaged.replace_range(index..=index, new);
            assert_is_damaged(folder.path(), &damaged);
            assert_is_damaged(folder.path(), &whole[..index]);
        }
        assert_is_damaged(folder.path(), "");
        assert_is_damaged(folder.path(), &whole.repeat(2));
        assert_is_damaged(folder.path(), &"x".repeat(100_000));
        fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(KeyFile::load(folder.path()), Err(KeyFileError::Damaged { .. })));
    }

    #[test]
    fn a_key_file_of_a_newer_version_is_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let symbols = [7_u8; 32].into_iter().bytes_to_fes();
        let newer: String =
            symbols.with_checksum::<Bech32m>(&PREFIX).with_witness_version(Fe32::P).chars().collect();
        put(folder.path(), &newer);
        assert!(matches!(KeyFile::load(folder.path()), Err(KeyFileError::Newer { .. })));
    }

    #[test]
    fn a_key_that_others_could_have_read_is_refused_and_not_mended_silently() {
        let folder = tempfile::tempdir().unwrap();
        KeyFile::load_or_create(folder.path()).unwrap();
        let path = path_in(folder.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = KeyFile::load_or_create(folder.path()).err().unwrap();
        assert!(error.to_string().contains("run: chmod 600 "), "{error}");
        assert_eq!(mode_of(&path), 0o644);
    }

    #[test]
    fn a_restored_key_is_the_same_person_and_an_existing_one_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed([9; 32]);
        KeyFile::restore(folder.path(), &key).unwrap();
        assert_eq!(KeyFile::load(folder.path()).unwrap().unwrap().peer_id(), key.peer_id());
        let other = SecretKey::from_seed([10; 32]);
        assert!(matches!(KeyFile::restore(folder.path(), &other), Err(KeyFileError::Exists { .. })));
        assert_eq!(KeyFile::load(folder.path()).unwrap().unwrap().peer_id(), key.peer_id());
    }

    #[test]
    fn writing_the_key_never_reallocates_its_text() {
        let text = text_of(&SecretKey::from_seed([1; 32]));
        assert_eq!(text.len(), COMMENT.len() + KEY_LINE_CHARS + 1);
    }

    fn assert_is_damaged(directory: &Path, text: &str) {
        put(directory, text);
        assert!(matches!(KeyFile::load(directory), Err(KeyFileError::Damaged { .. })), "{text}");
    }

    fn put(directory: &Path, text: &str) {
        let path = path_in(directory);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }
}
