//! Keys as words of the BIP 39 English list: 24 of them are a whole identity on paper, four of them are a PeerId to
//! compare by ear.
//!
//! BIP 39 gives 24 words 8 bits of checksum. That is enough to notice a mistake 255 times of 256, and too little to
//! locate one; so a word that is not in the list is named with its position and the nearest word of the list, and for
//! a wrong checksum the places are named where the two mistakes that people make (a similar word, two neighbours
//! swapped) would explain it. Words are never put right silently.
//!
//! Refuses to know: files, and how words are asked for (never on a command line; DESIGN section 10).

use bip39::{Language, Mnemonic};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{PeerId, SecretKey, Untrusted};

/// Words of a backup: 256 bits and 8 bits of checksum, 11 bits each.
pub const BACKUP_WORDS: usize = 24;

/// Words of a PeerId's fingerprint.
pub const FINGERPRINT_WORDS: usize = 4;

/// Puts the hash behind the four words apart from every other hash of a PeerId. It never changes.
const FINGERPRINT_LABEL: &[u8] = b"p2pos peer words v1";

/// Similar words differ from the right one by at most this many edits. With two, nearly every word has neighbours in
/// the list, and the places named would be noise.
const SIMILAR_EDITS_MAX: usize = 1;

/// Suspicious places that are named. With more, checking the whole is the better advice.
const SUSPECTS_MAX: usize = 3;

/// Why words are not an identity. Positions count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// Too many or too few.
    #[error("a backup has {BACKUP_WORDS} words, these are {found}; {}", if *found < BACKUP_WORDS { "some are missing" } else { "some are doubled" })]
    Count {
        /// How many there are.
        found: usize,
    },
    /// A word that is not in the list.
    #[error("word {position} is not in the list: \"{}\"; perhaps it is \"{nearest}\"", Untrusted(word))]
    Unknown {
        /// Where it stands.
        position: usize,
        /// The word, cut to 32 characters.
        word: String,
        /// The word of the list that is most like it.
        nearest: &'static str,
    },
    /// All words are in the list and do not belong together.
    #[error(
        "the words do not belong together, so at least one is wrong or in the wrong place; {}",
        advice(suspects)
    )]
    Checksum {
        /// Where a similar word or a swap with the next one would put it right; may be empty.
        suspects: Vec<usize>,
    },
}

impl SecretKey {
    /// Returns the identity as 24 words, separated by single spaces. Whoever has them is this person.
    #[must_use]
    pub fn to_words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy(self.seed()).expect("32 bytes are a length that BIP 39 has");
        // No word is longer than 8 letters: room beforehand, so that growing leaves no copy of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(BACKUP_WORDS * 9));
        for word in mnemonic.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// Reads an identity back from its 24 words, in small or capital letters, with any space between.
    ///
    /// # Errors
    /// [`WordsError`] says which word to look at.
    pub fn from_words(text: &str) -> Result<Self, WordsError> {
        let text = Zeroizing::new(text.to_lowercase());
        let found = text.split_whitespace().count();
        if found != BACKUP_WORDS {
            return Err(WordsError::Count { found });
        }
        let mut indices = Zeroizing::new([0_u16; BACKUP_WORDS]);
        for (position, (to, word)) in indices.iter_mut().zip(text.split_whitespace()).enumerate() {
            *to = Language::English.find_word(word).ok_or_else(|| unknown(position + 1, word))?;
        }
        let seed =
            seed_of(&indices).ok_or_else(|| WordsError::Checksum { suspects: suspects_in(&indices) })?;
        Ok(Self::from_seed(*seed))
    }
}

impl PeerId {
    /// Returns four words that two people can read to each other to see whether they mean the same PeerId.
    ///
    /// They are 44 bits of a hash: enough against confusion and a passing impostor. An attacker with much computing
    /// power could search for a key with the same words, so a first meeting over an untrusted line compares the
    /// handshake (pairing), not these.
    #[must_use]
    pub fn words(&self) -> [&'static str; FINGERPRINT_WORDS] {
        let hash = Sha256::new().chain_update(FINGERPRINT_LABEL).chain_update(self.as_bytes()).finalize();
        let bits = hash[..8].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let list = Language::English.word_list();
        std::array::from_fn(|word| {
            let shift = 64 - 11 * (word + 1);
            list[usize::try_from(bits >> shift & 0x7ff).expect("11 bits fit")]
        })
    }
}

type Indices = [u16; BACKUP_WORDS];

/// Packs 24 x 11 bits into the seed, if the last 8 of them are the right checksum.
fn seed_of(indices: &Indices) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0_u8; 33]);
    for (word, index) in indices.iter().enumerate() {
        for bit in 0..11 {
            let at = word * 11 + bit;
            let value = u8::from(index >> (10 - bit) & 1 == 1);
            bytes[at / 8] |= value << (7 - at % 8);
        }
    }
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&bytes[..32]);
    (Sha256::digest(&seed[..])[0] == bytes[32]).then_some(seed)
}

fn unknown(position: usize, word: &str) -> WordsError {
    let word: String = word.chars().take(32).collect();
    let list = Language::English.word_list();
    let nearest = list.iter().min_by_key(|known| strsim::damerau_levenshtein(known, &word));
    WordsError::Unknown { position, nearest: nearest.expect("the list holds 2048 words"), word }
}

/// Looks for the mistakes that people make and that would explain the checksum.
fn suspects_in(indices: &Indices) -> Vec<usize> {
    let mut suspects = Vec::new();
    for at in 0..BACKUP_WORDS {
        if is_right_with_similar_word(indices, at) || is_right_when_swapped(indices, at) {
            suspects.push(at + 1);
        }
    }
    if suspects.len() > SUSPECTS_MAX { Vec::new() } else { suspects }
}

fn is_right_with_similar_word(indices: &Indices, at: usize) -> bool {
    let list = Language::English.word_list();
    let given = list[usize::from(indices[at])];
    let mut trial = Zeroizing::new(*indices);
    (0_u16..).zip(list).filter(|(_, word)| is_similar(word, given)).any(|(index, _)| {
        trial[at] = index;
        seed_of(&trial).is_some()
    })
}

fn is_similar(word: &str, given: &str) -> bool {
    // The length alone rules most words out, and costs nothing.
    word != given
        && word.len().abs_diff(given.len()) <= SIMILAR_EDITS_MAX
        && strsim::damerau_levenshtein(word, given) <= SIMILAR_EDITS_MAX
}

fn is_right_when_swapped(indices: &Indices, at: usize) -> bool {
    if at + 1 == BACKUP_WORDS || indices[at] == indices[at + 1] {
        return false;
    }
    let mut trial = Zeroizing::new(*indices);
    trial.swap(at, at + 1);
    seed_of(&trial).is_some()
}

fn advice(suspects: &[usize]) -> String {
    let places: Vec<String> = suspects.iter().map(ToString::to_string).collect();
    match places.as_slice() {
        [] => "compare each with the paper".to_owned(),
        [one] => format!("look first at word {one} and the one behind it"),
        several => format!("look first at words {}, and the ones behind them", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the seed 00 01 02 ... 1f.
    const KNOWN: &str = "abandon amount liar amount expire adjust cage candy arch gather drum bullet \
        absurd math era live bid rhythm alien crouch range attend journey unaware";

    #[test]
    fn the_bip_39_vectors_of_32_bytes_hold() {
        let zeros = format!("{}art", "abandon ".repeat(23));
        assert_eq!(*SecretKey::from_seed([0; 32]).to_words(), zeros);
        let ones = format!("{}vote", "zoo ".repeat(23));
        assert_eq!(*SecretKey::from_seed([0xff; 32]).to_words(), ones);
        let legal = "legal winner thank year wave sausage worth useful ";
        let legal = format!("{legal}{legal}legal winner thank year wave sausage worth title");
        assert_eq!(*SecretKey::from_seed([0x7f; 32]).to_words(), legal);
    }

    #[test]
    fn words_bring_the_same_person_back_however_they_are_typed() {
        let key = known();
        assert_eq!(*key.to_words(), KNOWN);
        let typed = format!("  {}\n", KNOWN.to_uppercase().replace(' ', "\t \n"));
        assert_eq!(SecretKey::from_words(&typed).ok().unwrap().peer_id(), key.peer_id());
    }

    #[test]
    fn a_misspelt_word_is_named_with_its_position_and_the_nearest_word() {
        let words: Vec<&str> = KNOWN.split(' ').collect();
        for at in [0, 11, 23] {
            let mut typed = words.clone();
            let misspelt = format!("{}qq", words[at]);
            typed[at] = &misspelt;
            let error = refused(&typed.join(" "));
            let expected = WordsError::Unknown { position: at + 1, word: misspelt, nearest: words[at] };
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn missing_and_doubled_words_are_counted() {
        assert_eq!(refused(""), WordsError::Count { found: 0 });
        assert_eq!(refused(KNOWN.rsplit_once(' ').unwrap().0), WordsError::Count { found: 23 });
        assert_eq!(refused(&format!("{KNOWN} abandon")), WordsError::Count { found: 25 });
    }

    #[test]
    fn swapped_neighbours_are_among_the_suspects_whenever_the_checksum_notices() {
        let words: Vec<&str> = KNOWN.split(' ').collect();
        let mut noticed = 0;
        for at in 0..BACKUP_WORDS - 1 {
            let mut typed = words.clone();
            typed.swap(at, at + 1);
            if let Err(WordsError::Checksum { suspects }) = SecretKey::from_words(&typed.join(" ")) {
                noticed += 1;
                assert!(suspects.is_empty() || suspects.contains(&(at + 1)), "{at} {suspects:?}");
            }
        }
        assert!(noticed > 18, "the checksum noticed only {noticed} of 23 swaps");
    }

    #[test]
    fn a_similar_word_is_among_the_suspects() {
        // "cat" and "hat" are both in the list, and the last word is chosen so that "cat" is right.
        let list = Language::English.word_list();
        let mut words: Vec<&str> = KNOWN.split_whitespace().collect();
        words[5] = "cat";
        let mut indices = Indices::default();
        for (index, word) in indices.iter_mut().zip(&words) {
            *index = Language::English.find_word(word).unwrap();
        }
        indices[23] = (0..2048).find(|last| seed_of(&with_last(indices, *last)).is_some()).unwrap();
        words[23] = list[usize::from(indices[23])];
        assert!(SecretKey::from_words(&words.join(" ")).is_ok());
        words[5] = "hat";
        let WordsError::Checksum { suspects } = refused(&words.join(" ")) else { panic!("not noticed") };
        assert!(suspects.is_empty() || suspects.contains(&6), "{suspects:?}");
    }

    #[test]
    fn a_hostile_word_is_cut_and_escaped_in_the_error() {
        let typed = KNOWN.replacen(KNOWN.split(' ').next().unwrap(), &"\u{1b}x".repeat(50), 1);
        let text = refused(&typed).to_string();
        assert!(!text.contains('\u{1b}') && text.len() < 300, "{text}");
    }

    #[test]
    fn the_four_words_of_a_known_peer_never_change() {
        assert_eq!(known().peer_id().words().join(" "), "foster present hair debate");
        assert_ne!(known().peer_id().words(), SecretKey::from_seed([1; 32]).peer_id().words());
    }

    fn known() -> SecretKey {
        SecretKey::from_seed(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    fn with_last(mut indices: Indices, last: u16) -> Indices {
        indices[BACKUP_WORDS - 1] = last;
        indices
    }

    fn refused(text: &str) -> WordsError {
        SecretKey::from_words(text).err().unwrap()
    }
}
