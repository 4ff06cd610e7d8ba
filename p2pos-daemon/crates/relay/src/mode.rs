//! For whom this machine relays: the user's choice, one word in the config. Refuses to know who is a contact.

use std::{fmt, str::FromStr};

/// For whom this machine forwards packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RelayMode {
    /// For nobody.
    #[default]
    Off,
    /// For this user's contacts.
    Contacts,
    /// For everybody, within the limits of the relay.
    Community,
}

/// A text that is none of the three modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a relay mode is one of: off, contacts, community")]
pub struct UnknownRelayMode;

impl RelayMode {
    /// All modes, from the most private on.
    pub const ALL: [Self; 3] = [Self::Off, Self::Contacts, Self::Community];

    /// Returns the mode's word, as config and commands show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Contacts => "contacts",
            Self::Community => "community",
        }
    }

    /// Tells whether a peer may ask us to relay.
    #[must_use]
    pub fn serves(self, is_contact: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Contacts => is_contact,
            Self::Community => true,
        }
    }
}

impl fmt::Display for RelayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RelayMode {
    type Err = UnknownRelayMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(UnknownRelayMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_survives_its_word_and_others_are_refused() {
        for mode in RelayMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in ["", "on", "Off", "everyone"] {
            assert_eq!(text.parse::<RelayMode>(), Err(UnknownRelayMode));
        }
    }

    #[test]
    fn a_machine_whose_user_chose_nothing_relays_for_nobody() {
        let mode = RelayMode::default();
        assert!(!mode.serves(true) && !mode.serves(false));
    }

    #[test]
    fn contacts_mode_serves_no_stranger() {
        assert!(RelayMode::Contacts.serves(true) && !RelayMode::Contacts.serves(false));
        assert!(RelayMode::Community.serves(false));
    }
}
