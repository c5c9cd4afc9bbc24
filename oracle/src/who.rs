//! Which operation: the name that everything written by a load carries.

use std::fmt;
use std::str::FromStr;

/// The `n`-th operation of a thread of a session. As text `seed.session.thread.n`, the first two in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// Seed of everything that is chosen.
    pub seed: u64,
    /// The session: different each time a directory is loaded.
    pub session: u64,
    /// The thread, from 0 on.
    pub thread: u32,
    /// Its operation, from 0 on.
    pub n: u64,
}

impl Who {
    /// A generator that gives the same numbers each time for this operation and purpose.
    #[must_use]
    pub fn rng(&self, purpose: &str) -> fastrand::Rng {
        let mut mixed = 0xCBF2_9CE4_8422_2325;
        for part in [self.seed, self.session, u64::from(self.thread), self.n] {
            mixed = mix(mixed ^ part);
        }
        for byte in purpose.bytes() {
            mixed = mix(mixed ^ u64::from(byte));
        }
        fastrand::Rng::with_seed(mixed)
    }

    /// Another operation of the same thread.
    #[must_use]
    pub const fn at(self, n: u64) -> Self {
        Self { n, ..self }
    }
}

/// The finisher of SplitMix64: every bit of the input changes half of those of the output.
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{}.{}", self.seed, self.session, self.thread, self.n)
    }
}

impl FromStr for Who {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(());
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(drop);
        let who = Self {
            seed: hex(next()?)?,
            session: hex(next()?)?,
            thread: next()?.parse().map_err(drop)?,
            n: next()?.parse().map_err(drop)?,
        };
        // One operation has one name.
        if who.to_string() == text { Ok(who) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_is_one() {
        let who = Who { seed: u64::MAX, session: 0xAB, thread: 3, n: 17 };
        assert_eq!(who.to_string(), "ffffffffffffffff.ab.3.17");
        assert_eq!(who.to_string().parse(), Ok(who));
        for wrong in ["", "1.2.3", "1.2.3.4.5", "1.2.3.x", "01.2.3.4", "1.2.+3.4", "1.2.3.4 "] {
            assert_eq!(wrong.parse::<Who>(), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn each_operation_and_purpose_has_numbers_of_its_own() {
        let who = Who { seed: 1, session: 2, thread: 3, n: 4 };
        let mut seen = std::collections::HashSet::new();
        for (thread, n) in (0..8).flat_map(|thread| (0..100).map(move |n| (thread, n))) {
            for purpose in ["op", "launch"] {
                let who = Who { thread, n, ..who };
                assert_eq!(who.rng(purpose).u64(..), who.rng(purpose).u64(..));
                assert!(seen.insert(who.rng(purpose).u64(..)), "{who} {purpose}");
            }
        }
    }
}
