//! PeerIds as they stand in frames.
//!
//! A PeerId is checked when it is read (it must be a good key), and that costs tens of microseconds: more than all else
//! that opening a stream costs on this socket. Plugins talk to few peers and to the same ones again and again, so what
//! was found good is remembered. Nothing wrong is remembered, and nothing here decides who may talk to whom.

use std::{cell::RefCell, collections::BTreeMap};

use p2pos_identity::{ParsePeerIdError, PeerId};

/// PeerIds remembered per thread: about 40 KiB. At half, a plugin that serves 200 peers in turn pays for each again; when
/// full, all are forgotten, which costs 256 checks.
const REMEMBERED_MAX: usize = 256;

thread_local! {
    static REMEMBERED: RefCell<BTreeMap<Box<str>, PeerId>> = const { RefCell::new(BTreeMap::new()) };
}

/// Reads a PeerId.
pub(super) fn parse(text: &str) -> Result<PeerId, ParsePeerIdError> {
    REMEMBERED.with_borrow_mut(|remembered| {
        if let Some(peer) = remembered.get(text) {
            return Ok(*peer);
        }
        let peer: PeerId = text.parse()?;
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(text.into(), peer);
        Ok(peer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_was_read_and_mistakes_are_not() {
        let mut key = [0x66; 32];
        key[0] = 0x58;
        let peer = PeerId::from_bytes(key).unwrap();
        let text = peer.to_string();
        assert_eq!((parse(&text), parse(&text)), (Ok(peer), Ok(peer)));
        let typo = format!("{}{}", &text[..text.len() - 1], if text.ends_with('q') { 'p' } else { 'q' });
        assert!(parse(&typo).is_err() && parse(&typo).is_err());
    }
}
