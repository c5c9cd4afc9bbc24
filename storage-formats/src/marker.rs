//! What says that a directory is one of ours, and of which version: one line of text, and a copy of it with a checksum.

use crate::codec;

const START: &str = "cutover data directory, version ";

/// The file itself, for people too.
#[must_use]
pub fn text(version: u64) -> String {
    format!("{START}{version}\n")
}

/// The copy: the same line, and its checksum in a second one.
#[must_use]
pub fn copy(version: u64) -> String {
    let line = text(version);
    format!("{line}crc32c {:08x}\n", codec::checksum(&[line.as_bytes()]))
}

/// The version that the file says; none if it does not say one.
#[must_use]
pub fn read_text(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().strip_prefix(START)?.parse().ok()
}

/// The version that the copy says; none if it is not as it was written.
#[must_use]
pub fn read_copy(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = read_text(text.lines().next()?.as_bytes())?;
    (copy(version) == text).then_some(version)
}
