//! Launch tokens: who may open a session. Owns their life: 256 random bits, one use, bound to one run of one plugin,
//! dead after their time. A wrong guess burns nothing (plugin-host.md B14, C3).
//!
//! Refuses to know: sockets, frames, processes. Takes the time as an argument.

use std::{collections::HashMap, time::Instant};

use p2pos_plugin_protocol::message::LaunchToken;
use sha2::{Digest, Sha256};

/// Tokens that may wait for their use at once: one per starting plugin or tool, with room.
const TOKENS_MAX: usize = 1024;

/// Tokens that were given out and not used yet. `B` is what a token stands for.
#[derive(Debug)]
pub(crate) struct Tokens<B> {
    /// By hash, so that the time of a lookup tells nothing about the tokens.
    waiting: HashMap<[u8; 32], Waiting<B>>,
}

#[derive(Debug)]
struct Waiting<B> {
    bearer: B,
    instance: u64,
    until: Instant,
}

impl<B> Tokens<B> {
    pub(crate) fn new() -> Self {
        Self { waiting: HashMap::new() }
    }

    /// Remembers what a token stands for. `false`: too many tokens wait.
    pub(crate) fn add(
        &mut self,
        token: &LaunchToken,
        (instance, bearer): (u64, B),
        until: Instant,
        now: Instant,
    ) -> bool {
        self.waiting.retain(|_, waiting| waiting.until > now);
        if self.waiting.len() >= TOKENS_MAX {
            return false;
        }
        self.waiting.insert(digest(token), Waiting { bearer, instance, until });
        true
    }

    /// Uses a token up. `None`: never given out, used before, or too old.
    pub(crate) fn redeem(&mut self, token: &LaunchToken, now: Instant) -> Option<B> {
        let waiting = self.waiting.remove(&digest(token))?;
        (waiting.until > now).then_some(waiting.bearer)
    }

    /// Forgets the tokens of a run that is over.
    pub(crate) fn revoke(&mut self, instance: u64) {
        self.waiting.retain(|_, waiting| waiting.instance != instance);
    }
}

fn digest(token: &LaunchToken) -> [u8; 32] {
    Sha256::digest(token.as_env_text()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(byte: u8) -> LaunchToken {
        LaunchToken::from_random([byte; 32])
    }

    #[test]
    fn a_token_works_once_in_its_time_and_wrong_ones_burn_nothing() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut tokens = Tokens::new();
        assert!(tokens.add(&token(1), (7, "chess"), later, now));
        assert_eq!(tokens.redeem(&token(2), now), None);
        assert_eq!(tokens.redeem(&token(1), now), Some("chess"));
        assert_eq!(tokens.redeem(&token(1), now), None, "used");
        assert!(tokens.add(&token(3), (7, "chess"), later, now));
        assert_eq!(tokens.redeem(&token(3), later), None, "too late");
        assert!(tokens.add(&token(4), (7, "chess"), later, now));
        tokens.revoke(7);
        assert_eq!(tokens.redeem(&token(4), now), None, "its run is over");
    }

    #[test]
    fn forgotten_tokens_do_not_pile_up() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        for n in 0..TOKENS_MAX {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            assert!(tokens.add(&LaunchToken::from_random(bytes), (1, ()), now + Duration::from_secs(1), now));
        }
        assert!(!tokens.add(&token(255), (1, ()), now + Duration::from_secs(2), now));
        assert!(tokens.add(&token(255), (1, ()), now + Duration::from_secs(9), now + Duration::from_secs(1)));
    }
}
