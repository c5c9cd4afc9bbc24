//! How long to wait before the next try: pure.

use std::time::Duration;

use crate::error::ErrorKind;

/// A wait that doubles from try to try up to a most, for so many tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second try.
    pub first: Duration,
    /// Longest wait between two tries.
    pub most: Duration,
    /// How many tries there are; at least one.
    pub tries: u32,
}

impl Default for Backoff {
    /// From 50 ms on, at most 5 s, 20 tries: some 70 seconds.
    fn default() -> Self {
        Self { first: Duration::from_millis(50), most: Duration::from_secs(5), tries: 20 }
    }
}

impl Backoff {
    /// What comes after try number `tried`, from 1 on, has failed with an error of this kind: the wait before the next one, or none if there
    /// is no use in one. A runner that was deactivated stops at once, and so does one that asks for what nobody can give.
    #[must_use]
    pub fn after(&self, tried: u32, failed: ErrorKind) -> Option<Duration> {
        let hopeless = matches!(
            failed,
            ErrorKind::Deactivated | ErrorKind::InvalidInput | ErrorKind::Panicked | ErrorKind::Foreign
        );
        if hopeless || tried >= self.tries.max(1) {
            return None;
        }
        let doubled = 1_u32.checked_shl(tried.saturating_sub(1)).unwrap_or(u32::MAX);
        Some(self.first.saturating_mul(doubled).min(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_most_and_ends_after_its_tries() {
        let ms = Duration::from_millis;
        let backoff = Backoff { first: ms(10), most: ms(65), tries: 6 };
        let waits: Vec<_> = (1..8).map(|tried| backoff.after(tried, ErrorKind::Io)).collect();
        let expected = [Some(ms(10)), Some(ms(20)), Some(ms(40)), Some(ms(65)), Some(ms(65)), None, None];
        assert_eq!(waits, expected);
        let forever = Backoff { tries: u32::MAX, ..backoff };
        assert_eq!(forever.after(u32::MAX - 1, ErrorKind::NotPrimary), Some(ms(65)), "nothing overflows");
        assert_eq!(Backoff { tries: 0, ..backoff }.after(1, ErrorKind::Io), None);
    }

    #[test]
    fn who_was_deactivated_stops_at_once() {
        for kind in [ErrorKind::Deactivated, ErrorKind::InvalidInput] {
            assert_eq!(Backoff::default().after(1, kind), None);
        }
        for kind in [ErrorKind::NotPrimary, ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::TimedOut]
        {
            assert!(Backoff::default().after(1, kind).is_some());
        }
    }
}
