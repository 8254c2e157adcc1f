//! Tokens that senders sign instead of the event, each for one event alone: whoever has seen one could
//! else send it again with an event of their own.
//!
//! The same token with the same body is a sender that tries again, and welcome: the record has the same
//! id. The memory is this replica's, and forgets the oldest: what is older than a webhook's tolerance
//! is refused in any case.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::click::outcome::{Refusal, Rejection};

/// As many are remembered, in some 10 MiB.
const TOKENS_MAX: usize = 1 << 16;

type Hash = [u8; 32];

/// The tokens that have been used, with the body of each.
#[derive(Default)]
pub struct Tokens(Mutex<Used>);

#[derive(Default)]
struct Used {
    bodies: HashMap<Hash, Hash>,
    /// The oldest first.
    order: VecDeque<Hash>,
}

impl Tokens {
    /// Notes a token, if there is one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`] where it came with another body before.
    pub fn note(&self, token: Option<&str>, body: &[u8]) -> Result<(), Rejection> {
        let Some(token) = token else { return Ok(()) };
        let (token, body): (Hash, Hash) =
            (Sha256::digest(token).into(), Sha256::digest(body).into());
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match used.bodies.get(&token) {
            Some(known) if *known == body => Ok(()),
            Some(_) => {
                Err(Refusal::Unauthorized.detailed("The token was used before, for another event"))
            }
            None => {
                used.remember(token, body);
                Ok(())
            }
        }
    }
}

impl Used {
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
        assert_eq!(note(Some("a"), b"1"), Ok(()));
        assert_eq!(note(Some("a"), b"1"), Ok(()));
        assert_eq!(note(Some("a"), b"2"), Err(Refusal::Unauthorized));
        assert_eq!(note(Some("b"), b"2"), Ok(()));
        assert_eq!(note(None, b"1"), Ok(()));
        assert_eq!(note(None, b"2"), Ok(()));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut used = Used::default();
        let hash = |number: usize| Hash::from(Sha256::digest(number.to_be_bytes()));
        (0..=TOKENS_MAX).for_each(|number| used.remember(hash(number), [0; 32]));
        assert_eq!((used.bodies.len(), used.order.len()), (TOKENS_MAX, TOKENS_MAX));
        assert!(!used.bodies.contains_key(&hash(0)) && used.bodies.contains_key(&hash(1)));
    }
}
