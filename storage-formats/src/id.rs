//! Identifiers: stores and tenants are numbered by the catalog, instances name themselves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{FormatError, Result};

/// A store in the catalog. Given once and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreId(pub u32);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}", self.0)
    }
}

/// A tenant in the catalog: the prefix of all its keys. Given once and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TenantId(pub u32);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}", self.0)
    }
}

/// An instance: 32 bits of the store it was born in, 44 bits of milliseconds since 1970 (until the
/// year 2527), 52 bits of randomness.
///
/// The text form is 26 characters of Crockford's base 32 and one check character (modulo 37), sorts like
/// the number, and reads without regard to case. One mistyped character and two swapped neighbours are
/// always found, because 37 is a prime above 32 (Crockford's own choice).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId(pub u128);

const TIME_BITS: u32 = 44;
const RANDOM_BITS: u32 = 52;
const DIGITS: &[u8; 37] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U";
const TEXT_DIGITS: usize = 26;

impl InstanceId {
    /// Puts an id together. Bits of `millis` and `random` that have no room are cut off.
    #[must_use]
    pub const fn new(store: StoreId, millis: u64, random: u64) -> Self {
        let time = (millis & ((1 << TIME_BITS) - 1)) as u128;
        let random = (random & ((1 << RANDOM_BITS) - 1)) as u128;
        Self(((store.0 as u128) << (TIME_BITS + RANDOM_BITS)) | (time << RANDOM_BITS) | random)
    }

    /// The store it was born in.
    #[must_use]
    pub const fn store(self) -> StoreId {
        StoreId((self.0 >> (TIME_BITS + RANDOM_BITS)) as u32)
    }

    /// When it was born, in milliseconds since 1970 on the engine's clock.
    #[must_use]
    pub const fn millis(self) -> u64 {
        ((self.0 >> RANDOM_BITS) as u64) & ((1 << TIME_BITS) - 1)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(TEXT_DIGITS + 1);
        for place in (0..TEXT_DIGITS as u32).rev() {
            text.push(digit(((self.0 >> (place * 5)) & 31) as usize));
        }
        text.push(digit((self.0 % 37) as usize));
        f.pad(&text)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceId {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        const WHAT: &str = "the instance id";
        let mut values = text.bytes().map(value);
        if text.len() < TEXT_DIGITS + 1 {
            return Err(FormatError::Truncated { what: WHAT });
        }
        if text.len() > TEXT_DIGITS + 1 {
            return Err(FormatError::TrailingBytes { what: WHAT });
        }
        let mut number: u128 = 0;
        for (place, value) in values.by_ref().take(TEXT_DIGITS).enumerate() {
            // 26 digits hold 130 bits: the first one may only use three of its five.
            let value = value.filter(|v| *v < if place == 0 { 8 } else { 32 });
            let value = value.ok_or(FormatError::Malformed { what: WHAT })?;
            number = (number << 5) | u128::from(value);
        }
        match values.next().flatten() {
            Some(check) if u128::from(check) == number % 37 => Ok(Self(number)),
            _ => Err(FormatError::Checksum { what: WHAT }),
        }
    }
}

fn digit(value: usize) -> char {
    DIGITS.get(value).map_or('?', |byte| char::from(*byte))
}

fn value(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    DIGITS.iter().position(|digit| *digit == byte).map(|at| at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_out() {
        let id = InstanceId::new(StoreId(7), 1_790_000_000_123, u64::MAX);
        assert_eq!((id.store(), id.millis()), (StoreId(7), 1_790_000_000_123));
    }

    #[test]
    fn text_reads_back_and_sorts_like_the_number() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            let (a, b) = (InstanceId(rng.u128(..)), InstanceId(rng.u128(..)));
            assert_eq!(a.to_string().parse(), Ok(a));
            assert_eq!(a.to_string().to_lowercase().parse(), Ok(a));
            assert_eq!(a.cmp(&b), a.to_string()[..26].cmp(&b.to_string()[..26]));
        }
    }

    #[test]
    fn every_single_slip_and_every_swap_is_found() {
        let id = InstanceId::new(StoreId(3), 1_790_000_000_123, 0x000A_BCDE_F012_3456);
        let text = id.to_string().into_bytes();
        for at in 0..text.len() {
            for digit in DIGITS {
                let mut slip = text.clone();
                slip[at] = *digit;
                let read = String::from_utf8(slip.clone()).unwrap().parse::<InstanceId>();
                assert!(slip == text || read.is_err(), "{} read as {read:?}", String::from_utf8_lossy(&slip));
            }
            if at + 1 < text.len() {
                let mut swapped = text.clone();
                swapped.swap(at, at + 1);
                let read = String::from_utf8(swapped.clone()).unwrap().parse::<InstanceId>();
                assert!(swapped == text || read.is_err());
            }
        }
    }

    #[test]
    fn wrong_lengths_say_which_way() {
        assert_eq!("".parse::<InstanceId>(), Err(FormatError::Truncated { what: "the instance id" }));
        let without_check = "0".repeat(TEXT_DIGITS);
        let truncated = Err(FormatError::Truncated { what: "the instance id" });
        assert_eq!(without_check.parse::<InstanceId>(), truncated);
        let long = "0".repeat(28);
        assert_eq!(long.parse::<InstanceId>(), Err(FormatError::TrailingBytes { what: "the instance id" }));
    }
}
