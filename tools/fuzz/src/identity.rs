//! Names as people type them. Promises: what reads as a PeerId or ProtocolName writes back as the same name; every refusal has
//! words; and text from strangers comes out without a character that a terminal might obey.

use p2pos_identity::{PeerId, ProtocolName, Untrusted};

pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<PeerId>() {
        Ok(peer) => {
            assert_eq!(peer.to_string().parse(), Ok(peer));
            assert_eq!(
                PeerId::from_bytes(*peer.as_bytes()),
                Ok(peer),
                "a text must not bring in a key that bytes cannot"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(array) = <[u8; 32]>::try_from(bytes)
        && let Ok(peer) = PeerId::from_bytes(array)
    {
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert_ne!(peer.x25519_public(), [0; 32]);
    }
    match ProtocolName::parse(&text) {
        Ok(name) => assert_eq!(name.as_str(), text),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let shown = Untrusted(&text).to_string();
    assert!(!shown.contains(|character: char| character.is_control()), "{shown:?}");
}
