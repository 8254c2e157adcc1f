//! Tokens that senders sign instead of the event. Each is for one event: anyone who saw a token could send
//! it again with another event.
//!
//! The same token with the same body is a retry and is accepted; its record has the same id. Each replica
//! remembers its own tokens and forgets the oldest; what is older than a webhook's tolerance is refused in any
//! case.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::click::outcome::{Refusal, Rejection};

/// Tokens that are remembered, in some 10 MiB.
const TOKENS_MAX: usize = 1 << 16;

type Hash = [u8; 32];

/// The tokens that have been used, with the body of each.
#[derive(Default)]
pub(super) struct Tokens(Mutex<UsedTokens>);

#[derive(Default)]
struct UsedTokens {
    bodies: HashMap<Hash, Hash>,
    /// The oldest first.
    order: VecDeque<Hash>,
}

impl Tokens {
    /// Remembers a token.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`] where it came with another body before.
    pub(super) fn note(&self, token: &str, body: &[u8]) -> Result<(), Rejection> {
        let hash = |bytes: &[u8]| Hash::from(Sha256::digest(bytes));
        let (token, body) = (hash(token.as_bytes()), hash(body));
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = used.bodies.get(&token).copied();
        if known.is_none() {
            used.remember(token, body);
        }
        if known.is_none_or(|known| known == body) {
            return Ok(());
        }
        Err(Refusal::Unauthorized.detailed("The token was used before, for another event"))
    }
}

impl UsedTokens {
    fn remember(&mut self, token: Hash, body: Hash) {
        if self.order.len() == TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bodies.remove(&oldest);
        }
        self.order.push_back(token);
        self.bodies.insert(token, body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_body() {
        let tokens = Tokens::default();
        let note = |token, body| tokens.note(token, body).map_err(|why| why.refusal);
        assert_eq!(note("a", b"1"), Ok(()));
        assert_eq!(note("a", b"1"), Ok(()));
        assert_eq!(note("a", b"2"), Err(Refusal::Unauthorized));
        assert_eq!(note("b", b"2"), Ok(()));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut used = UsedTokens::default();
        let hash = |number: usize| Hash::from(Sha256::digest(number.to_be_bytes()));
        (0..=TOKENS_MAX).for_each(|number| used.remember(hash(number), [0; 32]));
        assert_eq!((used.bodies.len(), used.order.len()), (TOKENS_MAX, TOKENS_MAX));
        assert!(!used.bodies.contains_key(&hash(0)) && used.bodies.contains_key(&hash(1)));
    }
}
