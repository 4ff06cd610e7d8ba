//! What a petname may look like: the name that *this* user gave to a person, and nobody else sees.
//!
//! The rules keep a name from attacking the terminal, from looking like another name by invisible characters, and from
//! being read as a PeerId by commands that take either. Refuses to know: who has which name (`contacts` does).

use crate::Untrusted;

/// The longest petname, in characters: wide tables stay tables, and no name is a book.
pub const PETNAME_CHARS_MAX: usize = 64;

/// How every PeerId begins. A petname must not, since commands take "a name or a PeerId".
const PEER_ID_START: &str = "p2p1";

/// Why a text cannot be a petname.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PetnameError {
    /// Nothing but space.
    #[error("the name is empty; choose one of 1 to {PETNAME_CHARS_MAX} characters")]
    Empty,
    /// More than [`PETNAME_CHARS_MAX`] characters.
    #[error("the name has {chars} characters, the limit is {PETNAME_CHARS_MAX}; choose a shorter one")]
    TooLong {
        /// How many it has.
        chars: usize,
    },
    /// It begins or ends with space.
    #[error("the name begins or ends with a space; leave that out")]
    OuterSpace,
    /// A control, invisible or direction-changing character.
    #[error(
        "the name has a character at position {position} that cannot be shown (U+{found:04X}); leave it out"
    )]
    Hidden {
        /// Its Unicode number.
        found: u32,
        /// Where it stands, from 1.
        position: usize,
    },
    /// It would be taken for a PeerId.
    #[error("a name must not begin with \"p2p1\", because it would be read as a PeerId; choose another one")]
    LikePeerId,
    /// It would be taken for an option.
    #[error(
        "a name must not begin with \"-\", because commands would read it as an option; choose another one"
    )]
    LikeOption,
}

/// Checks that `name` is a petname that can be shown, typed and told from a PeerId.
///
/// # Errors
/// [`PetnameError`] names the first rule that is broken.
pub fn check_petname(name: &str) -> Result<(), PetnameError> {
    if name.trim().is_empty() {
        return Err(PetnameError::Empty);
    }
    if let Some((index, found)) = name.chars().enumerate().find(|(_, c)| !Untrusted::is_harmless(*c)) {
        return Err(PetnameError::Hidden { found: found.into(), position: index + 1 });
    }
    if name.trim() != name {
        return Err(PetnameError::OuterSpace);
    }
    let chars = name.chars().count();
    if chars > PETNAME_CHARS_MAX {
        return Err(PetnameError::TooLong { chars });
    }
    let folded = folded(name);
    if folded.starts_with(PEER_ID_START) {
        return Err(PetnameError::LikePeerId);
    }
    if folded.starts_with('-') {
        return Err(PetnameError::LikeOption);
    }
    Ok(())
}

/// Brings a name into the form in which names are compared: `Bo` and `bo` are one name.
pub(super) fn folded(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_and_machines_are_accepted() {
        for name in ["bo", "Zoë", "bo-laptop", "小明", "my sister (phone)", "🦦", "p2p", "q3xk…m7ya"] {
            assert_eq!(check_petname(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_longest_name_is_accepted_and_one_character_more_is_not() {
        assert_eq!(check_petname(&"ä".repeat(PETNAME_CHARS_MAX)), Ok(()));
        let chars = PETNAME_CHARS_MAX + 1;
        assert_eq!(check_petname(&"ä".repeat(chars)), Err(PetnameError::TooLong { chars }));
    }

    #[test]
    fn each_hostile_name_is_refused_for_its_reason() {
        assert_eq!(check_petname(""), Err(PetnameError::Empty));
        assert_eq!(check_petname("  \u{2003}"), Err(PetnameError::Empty));
        assert_eq!(check_petname(" bo"), Err(PetnameError::OuterSpace));
        assert_eq!(check_petname("P2P1qqq"), Err(PetnameError::LikePeerId));
        assert_eq!(check_petname("--json"), Err(PetnameError::LikeOption));
        for (name, found, position) in [
            ("bo\n", 0xa, 3),
            ("\u{1b}[2J", 0x1b, 1),
            ("gpj\u{202e}exe", 0x202e, 4),
            ("bo\u{200b}", 0x200b, 3),
            ("a\u{0}b", 0, 2),
        ] {
            assert_eq!(check_petname(name), Err(PetnameError::Hidden { found, position }));
        }
    }
}
