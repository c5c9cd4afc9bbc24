//! The one error of this crate.

use std::fmt;

/// Why bytes or a text could not be read. It never carries the bytes themselves: they may be a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes end before the value does.
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// There are bytes left over behind the value.
    TrailingBytes {
        /// What was being read.
        what: &'static str,
    },
    /// A length is larger than the limit for it.
    TooLong {
        /// What was being read or given.
        what: &'static str,
        /// Its length, in bytes.
        len: u64,
        /// The limit, in bytes.
        max: u64,
    },
    /// A name or key is empty where it must not be.
    Empty {
        /// Which one.
        what: &'static str,
    },
    /// The checksum does not match: the bytes are not those that were written.
    Checksum {
        /// What was being read.
        what: &'static str,
    },
    /// A record of another type stands where this one was expected.
    WrongType {
        /// The type expected.
        expected: u8,
        /// The type found.
        found: u8,
    },
    /// The record was written by a newer version of this program.
    Newer {
        /// What was being read.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// The bytes have the right length and checksum but no meaning.
    Malformed {
        /// What was being read.
        what: &'static str,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what } => write!(f, "{what} ends too early"),
            Self::TrailingBytes { what } => write!(f, "{what} has bytes left over behind it"),
            Self::TooLong { what, len, max } => {
                write!(f, "{what} has {len} bytes, more than the {max} that are allowed")
            }
            Self::Empty { what } => write!(f, "{what} is empty"),
            Self::Checksum { what } => write!(f, "{what} does not match its checksum"),
            Self::WrongType { expected, found } => {
                write!(f, "a record of type {found} stands where type {expected} belongs")
            }
            Self::Newer { what, version } => {
                write!(f, "{what} has format version {version}, newer than this program reads")
            }
            Self::Malformed { what } => write!(f, "{what} is malformed"),
        }
    }
}

impl std::error::Error for FormatError {}

/// The result of reading or checking bytes.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;
