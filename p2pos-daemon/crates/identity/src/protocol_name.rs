//! The name by which two plugins agree on what they speak, such as `/chat/1`. Owns its grammar.
//!
//! Names are compared byte by byte and never by prefix or version order: `/chat/1` and `/chat/2` are strangers, and a
//! plugin that speaks both says so in its preference list (DESIGN section 6).
//!
//! Refuses to know: who speaks what, and what a version means.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest ProtocolName, in bytes. Names travel in every stream's first message, which holds 4 KiB: at 128 a
/// preference list of 16 names fits twice; at half, reverse-domain names with a long last part would not fit.
pub const PROTOCOL_NAME_BYTES_MAX: usize = 128;

/// A checked ProtocolName: `/name/.../version`, lowercase. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolName(Arc<str>);

/// Why a text is not a [`ProtocolName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolNameError {
    /// Nothing was given.
    #[error("the ProtocolName is empty; write it like /chat/1")]
    Empty,
    /// More than [`PROTOCOL_NAME_BYTES_MAX`] bytes.
    #[error("the ProtocolName has {bytes} bytes, the limit is {PROTOCOL_NAME_BYTES_MAX}")]
    TooLong {
        /// How many bytes were given.
        bytes: usize,
    },
    /// It does not begin with a slash.
    #[error("a ProtocolName begins with a slash, like /chat/1")]
    NoSlash,
    /// Only a name, no version.
    #[error("the ProtocolName has no version; write it like /chat/1")]
    NoVersion,
    /// Two slashes in a row, or one at the end.
    #[error("the ProtocolName has an empty part; write it like /chat/1")]
    EmptyPart,
    /// A character outside `a-z 0-9 . _ -` and the slash.
    #[error(
        "{found:?} at position {position} is not allowed in a ProtocolName; use a-z, 0-9, '.', '_' and '-'"
    )]
    Character {
        /// The character.
        found: char,
        /// Where it stands, in characters from 1.
        position: usize,
    },
}

impl ProtocolName {
    /// Checks `text` against the grammar: at most 128 bytes, two or more parts, each of `[a-z0-9._-]+` behind a slash.
    ///
    /// # Errors
    /// [`ProtocolNameError`] names the first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, ProtocolNameError> {
        if text.is_empty() {
            return Err(ProtocolNameError::Empty);
        }
        if text.len() > PROTOCOL_NAME_BYTES_MAX {
            return Err(ProtocolNameError::TooLong { bytes: text.len() });
        }
        if let Some((index, found)) = text.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
            return Err(ProtocolNameError::Character { found, position: index + 1 });
        }
        let Some(parts) = text.strip_prefix('/') else {
            return Err(ProtocolNameError::NoSlash);
        };
        if parts.split('/').any(str::is_empty) {
            return Err(ProtocolNameError::EmptyPart);
        }
        if !parts.contains('/') {
            return Err(ProtocolNameError::NoVersion);
        }
        Ok(Self(text.into()))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/')
}

impl FromStr for ProtocolName {
    type Err = ProtocolNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl AsRef<str> for ProtocolName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by names be asked with a `&str`: order and hash are those of the text.
impl Borrow<str> for ProtocolName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_are_accepted_and_print_as_written() {
        for text in ["/chat/1", "/p2pos/ping/1", "/org.example.chess/moves/2.1-beta_3", "/a/b"] {
            assert_eq!(ProtocolName::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_name_of_the_longest_length_is_accepted_and_one_byte_more_is_not() {
        let longest = format!("/{}/1", "a".repeat(PROTOCOL_NAME_BYTES_MAX - 3));
        assert!(ProtocolName::parse(&longest).is_ok());
        let bytes = PROTOCOL_NAME_BYTES_MAX + 1;
        assert_eq!(ProtocolName::parse(&format!("{longest}1")), Err(ProtocolNameError::TooLong { bytes }));
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        let refused = |text: &str| ProtocolName::parse(text).unwrap_err();
        assert_eq!(refused(""), ProtocolNameError::Empty);
        assert_eq!(refused("chat/1"), ProtocolNameError::NoSlash);
        assert_eq!(refused("/chat"), ProtocolNameError::NoVersion);
        for text in ["/", "//", "//1", "/chat/", "/chat//1"] {
            assert_eq!(refused(text), ProtocolNameError::EmptyPart, "{text}");
        }
        assert_eq!(refused("/Chat/1"), ProtocolNameError::Character { found: 'C', position: 2 });
        assert_eq!(refused("/chät/1"), ProtocolNameError::Character { found: 'ä', position: 4 });
        assert_eq!(refused("/chat/1\n"), ProtocolNameError::Character { found: '\n', position: 8 });
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_obeys_the_grammar(text in "[/a-z.]{0,12}|.{0,140}") {
            if let Ok(name) = ProtocolName::parse(&text) {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(text.len() <= PROTOCOL_NAME_BYTES_MAX && text.starts_with('/'));
                prop_assert!(text.split('/').count() >= 3 && text.split('/').skip(1).all(|part| !part.is_empty()));
            }
        }
    }
}
