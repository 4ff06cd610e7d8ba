//! The name of a plugin. Owns its grammar, which makes it safe as a file name, a log field and a table key.
//!
//! Refuses to know: manifests, directories. Follows plugin-host.md C10.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// Longest plugin id. Reverse DNS names of real projects stay under 40; the id is also a file name, and `ID.log.1` must
/// fit every file system (255 bytes).
pub const PLUGIN_ID_BYTES_MAX: usize = 64;

/// A plugin's id: `[a-z0-9.-]`, begins and ends with a letter or digit, no two dots in a row. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginId(Arc<str>);

/// Why a text is no plugin id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PluginIdError {
    /// Empty, or longer than [`PLUGIN_ID_BYTES_MAX`].
    #[error("a plugin id has 1 to {PLUGIN_ID_BYTES_MAX} characters, this one has {0}")]
    Length(usize),
    /// A character that is not allowed.
    #[error("a plugin id has only a-z, 0-9, '.' and '-', not {0:?}")]
    Character(char),
    /// A dot or dash at an end, or two dots in a row.
    #[error("a plugin id begins and ends with a letter or digit, and has no two dots in a row")]
    Shape,
}

impl PluginId {
    /// Reads an id.
    ///
    /// # Errors
    /// When the text breaks the grammar above.
    pub fn parse(text: &str) -> Result<Self, PluginIdError> {
        if text.is_empty() || text.len() > PLUGIN_ID_BYTES_MAX {
            return Err(PluginIdError::Length(text.chars().count()));
        }
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(bad) = text.chars().find(|&c| !(is_word(c) || c == '.' || c == '-')) {
            return Err(PluginIdError::Character(bad));
        }
        if !text.starts_with(is_word) || !text.ends_with(is_word) || text.contains("..") {
            return Err(PluginIdError::Shape);
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PluginId {
    type Err = PluginIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Borrow<str> for PluginId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_safe_file_names_pass() {
        for good in ["a", "chess", "org.example.chess", "x-1.y2"] {
            assert_eq!(PluginId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn ids_that_could_leave_the_directory_or_forge_a_line_are_refused() {
        for bad in ["", ".", "..", "a/b", "a..b", ".a", "a.", "A", "a b", "a\n", "-a", "ä", &"a".repeat(65)]
        {
            assert!(PluginId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
