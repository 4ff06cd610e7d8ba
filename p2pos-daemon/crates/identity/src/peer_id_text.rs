//! The text form of a [`PeerId`], made to be read aloud, typed and pasted, and to say what went wrong when it was not.
//!
//! Bech32m (BIP 350) with the human-readable part `p2p`: the characters `p2p1`, one character of version (`q` = 0),
//! 52 of key, 6 of checksum. Its code has distance 5 up to 89 characters, so one wrong character is not only noticed,
//! it can be located without doubt. It is located and never corrected: a repaired PeerId is still one that nobody sent
//! (BIP 173 advises the same).
//!
//! Refuses to know: contacts and petnames. A caller that accepts "a name or a PeerId" asks the contacts first.

use std::{fmt, str::FromStr};

use bech32::{
    Bech32m, Checksum, Fe32, Hrp,
    primitives::{
        checksum::Engine,
        iter::{ByteIterExt, Fe32IterExt},
    },
};

use crate::{PeerId, WeakKey};

/// Characters in the text of a [`PeerId`]: prefix and separator 4, version 1, key 52, checksum 6.
pub const PEER_ID_TEXT_CHARS: usize = 63;

const PREFIX: Hrp = Hrp::parse_unchecked("p2p");
const PREFIX_AND_SEPARATOR: &str = "p2p1";
const VERSION: Fe32 = Fe32::Q;
const CHECKSUM_CHARS: usize = 6;

/// Why a text is not a [`PeerId`]. Positions count characters from 1, as a person does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePeerIdError {
    /// Nothing was given.
    #[error("the PeerId is empty; the other person sees theirs with: p2pos id")]
    Empty,
    /// The text does not begin as every PeerId does.
    #[error(
        "a PeerId begins with \"p2p1\", this begins with {found:?}; the other person sees theirs with: p2pos id"
    )]
    Prefix {
        /// The first characters of what was given.
        found: String,
    },
    /// Capital and small letters are mixed.
    #[error("capital and small letters are mixed in the PeerId; copy it again, all small or all capital")]
    MixedCase,
    /// A character that no PeerId contains.
    #[error("{found:?} at position {position} never occurs in a PeerId; compare it there with the original")]
    Character {
        /// The character.
        found: char,
        /// Where it stands, from 1.
        position: usize,
    },
    /// Too many or too few characters.
    #[error(
        "a PeerId has {PEER_ID_TEXT_CHARS} characters, this has {found}: {}; copy the whole of it",
        if *found < PEER_ID_TEXT_CHARS { "some are missing" } else { "there are too many" }
    )]
    Length {
        /// How many were given.
        found: usize,
    },
    /// Exactly one character is wrong, and the checksum tells which.
    #[error(
        "one character is wrong near position {position} of the PeerId; compare it there with the original"
    )]
    OneWrong {
        /// Where it stands, from 1.
        position: usize,
    },
    /// Two neighbouring characters changed places.
    #[error("the characters at positions {position} and {} of the PeerId seem swapped; compare them with the original", position + 1)]
    Swapped {
        /// Where the first of them stands, from 1.
        position: usize,
    },
    /// More is wrong than can be located.
    #[error(
        "the checksum of the PeerId does not match, so several characters are wrong; copy the whole of it again"
    )]
    Checksum,
    /// The checksum is right, and the version is one we do not know.
    #[error("the PeerId is of version {found:?}, this p2pOS knows \"q\"; a newer p2pOS may read it")]
    Version {
        /// The version character.
        found: char,
    },
    /// The checksum is right, and the bits after the key are not zero: no p2pOS writes such a text.
    #[error("the PeerId ends in bits that must be zero; it was not made by p2pOS")]
    Padding,
    /// The checksum is right, and the key is one that nobody can own safely.
    #[error("the PeerId is not safe to use: {0}")]
    Weak(#[from] WeakKey),
}

impl PeerId {
    /// Returns a form for crowded places, such as `q3xk…m7ya`. It names nobody: two people may share it.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_text();
        let after_prefix = &text[PREFIX_AND_SEPARATOR.len()..];
        format!("{}…{}", &after_prefix[..4], &after_prefix[after_prefix.len() - 4..])
    }

    fn to_text(self) -> String {
        let mut text = String::with_capacity(PEER_ID_TEXT_CHARS);
        let bytes = self.as_bytes().iter().copied();
        let checked = bytes.bytes_to_fes().with_checksum::<Bech32m>(&PREFIX).with_witness_version(VERSION);
        text.extend(checked.chars());
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_text())
    }
}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let symbols = symbols_of(text)?;
        if !is_checksum_right(&symbols) {
            return Err(locate(&symbols));
        }
        let (version, rest) = (symbols[0], &symbols[1..symbols.len() - CHECKSUM_CHARS]);
        if version != VERSION {
            return Err(ParsePeerIdError::Version { found: version.to_char() });
        }
        let last = rest[rest.len() - 1].to_u8();
        if last & 0b1111 != 0 {
            return Err(ParsePeerIdError::Padding);
        }
        let mut bytes = [0; 32];
        for (to, byte) in bytes.iter_mut().zip(rest.iter().copied().fes_to_bytes()) {
            *to = byte;
        }
        Ok(Self::from_bytes(bytes)?)
    }
}

type Symbols = [Fe32; PEER_ID_TEXT_CHARS - PREFIX_AND_SEPARATOR.len()];

/// Checks everything about the text that needs no arithmetic, and returns what stands behind the prefix.
fn symbols_of(text: &str) -> Result<Symbols, ParsePeerIdError> {
    if text.is_empty() {
        return Err(ParsePeerIdError::Empty);
    }
    let head: String = text.chars().take(PREFIX_AND_SEPARATOR.len()).collect();
    if !head.eq_ignore_ascii_case(PREFIX_AND_SEPARATOR) {
        return Err(ParsePeerIdError::Prefix { found: head });
    }
    let found = text.chars().count();
    if let Some(error) = first_bad_character(text) {
        return Err(error);
    }
    if found != PEER_ID_TEXT_CHARS {
        return Err(ParsePeerIdError::Length { found });
    }
    if text.contains(|c: char| c.is_ascii_uppercase()) && text.contains(|c: char| c.is_ascii_lowercase()) {
        return Err(ParsePeerIdError::MixedCase);
    }
    let mut symbols = [Fe32::Q; PEER_ID_TEXT_CHARS - PREFIX_AND_SEPARATOR.len()];
    for (symbol, c) in symbols.iter_mut().zip(text.chars().skip(PREFIX_AND_SEPARATOR.len())) {
        *symbol = Fe32::from_char(c.to_ascii_lowercase()).expect("every character was looked up above");
    }
    Ok(symbols)
}

fn first_bad_character(text: &str) -> Option<ParsePeerIdError> {
    let mut behind_prefix = text.chars().enumerate().skip(PREFIX_AND_SEPARATOR.len());
    behind_prefix
        .find(|(_, c)| Fe32::from_char(c.to_ascii_lowercase()).is_err())
        .map(|(index, found)| ParsePeerIdError::Character { found, position: index + 1 })
}

fn is_checksum_right(symbols: &Symbols) -> bool {
    let mut engine = Engine::<Bech32m>::new();
    engine.input_hrp(PREFIX);
    for symbol in symbols {
        engine.input_fe(*symbol);
    }
    *engine.residue() == Bech32m::TARGET_RESIDUE
}

/// Finds the one change that would make the checksum right. 59 x 31 trials take well under a millisecond, and only a
/// person who mistyped waits for them.
fn locate(symbols: &Symbols) -> ParsePeerIdError {
    for index in 0..symbols.len() {
        let mut trial = *symbols;
        for other in Fe32::iter_alpha().filter(|other| *other != symbols[index]) {
            trial[index] = other;
            if is_checksum_right(&trial) {
                return ParsePeerIdError::OneWrong { position: index + 1 + PREFIX_AND_SEPARATOR.len() };
            }
        }
    }
    for index in 0..symbols.len() - 1 {
        let mut trial = *symbols;
        trial.swap(index, index + 1);
        if is_checksum_right(&trial) {
            return ParsePeerIdError::Swapped { position: index + 1 + PREFIX_AND_SEPARATOR.len() };
        }
    }
    ParsePeerIdError::Checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SecretKey;

    /// The PeerId of the seed of 32 zero bytes: kept here so that the text form cannot change unnoticed.
    const GOLDEN: &str = "p2p1q8d4z00xwk6jz6c4r4rgz5mcdwdjny9thrh3y8f36cpy2rz6emg5svk225v";

    #[test]
    fn the_text_of_a_known_key_never_changes() {
        assert_eq!(golden().to_string(), GOLDEN);
        assert_eq!(GOLDEN.len(), PEER_ID_TEXT_CHARS);
        assert!(GOLDEN.starts_with("p2p1q"));
    }

    #[test]
    fn text_reads_back_in_small_and_in_capital_letters() {
        assert_eq!(GOLDEN.parse(), Ok(golden()));
        assert_eq!(GOLDEN.to_uppercase().parse(), Ok(golden()));
    }

    #[test]
    fn every_single_wrong_character_is_located_exactly() {
        for index in PREFIX_AND_SEPARATOR.len()..PEER_ID_TEXT_CHARS {
            let old = GOLDEN.as_bytes()[index];
            let new = if old == b'z' { 'x' } else { 'z' };
            let wrong = replaced(index, new);
            assert_eq!(
                wrong.parse::<PeerId>(),
                Err(ParsePeerIdError::OneWrong { position: index + 1 }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn swapped_neighbours_are_located() {
        for index in PREFIX_AND_SEPARATOR.len()..PEER_ID_TEXT_CHARS - 1 {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            bytes.swap(index, index + 1);
            let wrong = String::from_utf8(bytes).unwrap();
            if wrong != GOLDEN {
                assert_eq!(wrong.parse::<PeerId>(), Err(ParsePeerIdError::Swapped { position: index + 1 }));
            }
        }
    }

    #[test]
    fn three_wrong_characters_are_a_checksum_that_does_not_match() {
        let mut wrong = GOLDEN.to_owned();
        for index in [10, 30, 50] {
            let new = if wrong.as_bytes()[index] == b'z' { "x" } else { "z" };
            wrong.replace_range(index..=index, new);
        }
        assert_eq!(wrong.parse::<PeerId>(), Err(ParsePeerIdError::Checksum));
    }

    #[test]
    fn a_character_outside_the_alphabet_is_named_with_its_position() {
        for found in ['b', 'i', 'o', '1', '-', ' ', 'ä', '\u{202e}'] {
            let error = replaced(20, found).parse::<PeerId>();
            assert_eq!(error, Err(ParsePeerIdError::Character { found, position: 21 }));
        }
        let pasted_with_newline = format!("{GOLDEN}\n").parse::<PeerId>();
        assert_eq!(pasted_with_newline, Err(ParsePeerIdError::Character { found: '\n', position: 64 }));
    }

    #[test]
    fn other_texts_are_told_apart_from_mistyped_ones() {
        let parse = |text: &str| text.parse::<PeerId>().unwrap_err();
        assert_eq!(parse(""), ParsePeerIdError::Empty);
        assert_eq!(parse("bo"), ParsePeerIdError::Prefix { found: "bo".to_owned() });
        assert_eq!(parse("npub1abcdef"), ParsePeerIdError::Prefix { found: "npub".to_owned() });
        assert_eq!(parse("p2p1"), ParsePeerIdError::Length { found: 4 });
        assert_eq!(parse(&GOLDEN[..62]), ParsePeerIdError::Length { found: 62 });
        assert_eq!(parse(&format!("{GOLDEN}q")), ParsePeerIdError::Length { found: 64 });
        assert_eq!(parse(&replaced(5, 'Q')), ParsePeerIdError::MixedCase);
    }

    #[test]
    fn a_foreign_checksum_of_the_older_bech32_kind_is_refused() {
        let peer = golden();
        let old = peer.as_bytes().iter().copied().bytes_to_fes();
        let text: String =
            old.with_checksum::<bech32::Bech32>(&PREFIX).with_witness_version(VERSION).chars().collect();
        assert_eq!(text.len(), PEER_ID_TEXT_CHARS);
        assert!(text.parse::<PeerId>().is_err());
    }

    #[test]
    fn a_newer_version_and_set_padding_bits_are_named_for_what_they_are() {
        let bytes = golden();
        let newer = with_checksum(Fe32::P, bytes.as_bytes().iter().copied().bytes_to_fes());
        assert_eq!(newer.parse::<PeerId>(), Err(ParsePeerIdError::Version { found: 'p' }));

        let mut symbols: Vec<Fe32> = bytes.as_bytes().iter().copied().bytes_to_fes().collect();
        let last = symbols.last_mut().unwrap();
        *last = Fe32::try_from(last.to_u8() | 1).unwrap();
        let padded = with_checksum(VERSION, symbols.into_iter());
        assert_eq!(padded.parse::<PeerId>(), Err(ParsePeerIdError::Padding));
    }

    #[test]
    fn a_well_written_text_of_a_weak_key_is_refused() {
        let weak = with_checksum(VERSION, [0_u8; 32].into_iter().bytes_to_fes());
        assert_eq!(weak.parse::<PeerId>(), Err(ParsePeerIdError::Weak(WeakKey::SmallOrder)));
    }

    #[test]
    fn the_short_form_and_debug_hide_the_middle() {
        let short = golden().short();
        assert_eq!(short.chars().count(), 9);
        assert!(short.starts_with(&GOLDEN[4..8]) && short.ends_with(&GOLDEN[59..]), "{short}");
        assert_eq!(format!("{:?}", golden()), format!("PeerId({short})"));
    }

    proptest! {
        #[test]
        fn every_key_survives_its_text(seed: [u8; 32]) {
            let peer = SecretKey::from_seed(seed).peer_id();
            prop_assert_eq!(peer.to_string().parse(), Ok(peer));
            prop_assert_eq!(PeerId::from_bytes(*peer.as_bytes()), Ok(peer));
        }

        #[test]
        fn no_text_panics_the_parser(text in "(p2p1)?.{0,80}") {
            prop_assert!(text.parse::<PeerId>().is_err());
        }
    }

    fn golden() -> PeerId {
        SecretKey::from_seed([0; 32]).peer_id()
    }

    fn replaced(index: usize, new: char) -> String {
        GOLDEN.chars().enumerate().map(|(at, c)| if at == index { new } else { c }).collect()
    }

    fn with_checksum(version: Fe32, symbols: impl Iterator<Item = Fe32>) -> String {
        symbols.with_checksum::<Bech32m>(&PREFIX).with_witness_version(version).chars().collect()
    }
}
