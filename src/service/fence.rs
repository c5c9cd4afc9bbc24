//! How a service elsewhere refuses the late one.

use std::collections::HashMap;

use cutover_formats::InstanceId;
use cutover_formats::record::Token;

use super::signature::{Claims, Rejected};

/// The highest token that was seen of each step. In memory only: a service that acts on what must not be done twice keeps it with its data.
///
/// It refuses what comes after a call of somebody who held the step later. Until the later one calls, the earlier one is refused by the end
/// of its lease, in [`verify`](super::signature::verify).
#[derive(Debug, Default)]
pub struct Fence(HashMap<(String, InstanceId, String), Seen>);

#[derive(Debug)]
struct Seen {
    newest: Token,
    /// Until when a call that was seen is valid, in milliseconds since 1970.
    until_ms: u64,
}

impl Fence {
    /// Nothing was seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a call whose claims were verified, unless one with a later token of the same step was taken before. Calls with the same token
    /// are of the same worker, and all taken.
    ///
    /// # Errors
    /// [`Rejected::Late`]; nothing changed.
    pub fn admit(&mut self, claims: &Claims) -> Result<(), Rejected> {
        let step = (claims.tenant.clone(), claims.instance, claims.step.clone());
        let seen = self.0.entry(step).or_insert(Seen { newest: claims.token, until_ms: 0 });
        if claims.token < seen.newest {
            return Err(Rejected::Late { newest: seen.newest });
        }
        seen.newest = claims.token;
        seen.until_ms = seen.until_ms.max(claims.expires_ms);
        Ok(())
    }

    /// Forgets the steps of which every call that was taken expired before this moment, in milliseconds since 1970.
    ///
    /// A worker that gave its step up may have left calls that are valid for the rest of its lease. So the moment has to lie in the past by
    /// the longest lease there is: then these have expired too. It is told by the clock that calls are verified by.
    pub fn forget(&mut self, before_ms: u64) {
        self.0.retain(|_, seen| seen.until_ms >= before_ms);
    }

    /// How many steps it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use cutover_formats::StoreId;

    use super::*;
    use crate::service::signature::RequestDigest;

    fn call(step: &str, (incarnation, counter): (u64, u64), expires_ms: u64) -> Claims {
        Claims {
            tenant: "acme".into(),
            instance: InstanceId::new(StoreId(1), 1, 1),
            step: step.into(),
            token: Token { incarnation, counter },
            expires_ms,
            request: RequestDigest::of(b""),
        }
    }

    #[test]
    fn an_older_token_of_the_same_step_is_refused_and_the_same_one_is_not() {
        let mut fence = Fence::new();
        assert_eq!(fence.admit(&call("s", (1, 9), 5)), Ok(()));
        assert_eq!(fence.admit(&call("s", (2, 1), 5)), Ok(()), "a later incarnation begins to count anew");
        assert_eq!(fence.admit(&call("s", (2, 1), 5)), Ok(()));
        let late = Err(Rejected::Late { newest: Token { incarnation: 2, counter: 1 } });
        assert_eq!(fence.admit(&call("s", (1, 9), 5)), late);
        assert_eq!(fence.admit(&call("s", (1, 10), 5)), late);
        assert_eq!(fence.admit(&call("t", (1, 1), 5)), Ok(()), "of another step");
        let elsewhere = Claims { tenant: "other".into(), ..call("s", (1, 1), 5) };
        assert_eq!(fence.admit(&elsewhere), Ok(()), "of another tenant");
        let next = Claims { instance: InstanceId::new(StoreId(1), 1, 2), ..call("s", (1, 1), 5) };
        assert_eq!(fence.admit(&next), Ok(()), "of another instance");
    }

    #[test]
    fn what_has_expired_is_forgotten_and_nothing_else() {
        let mut fence = Fence::new();
        fence.admit(&call("long", (1, 1), 20)).unwrap();
        // It was renewed, and then another call was made with less time left.
        fence.admit(&call("long", (1, 1), 15)).unwrap();
        fence.admit(&call("short", (1, 2), 10)).unwrap();
        fence.forget(10);
        assert_eq!(fence.len(), 2);
        fence.forget(20);
        assert_eq!(fence.len(), 1);
        assert!(fence.admit(&call("long", (1, 0), 20)).is_err());
        fence.forget(21);
        assert!(fence.is_empty());
    }
}
