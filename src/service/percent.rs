//! Names of any characters in URLs and headers.

use std::fmt::Write as _;

/// The name with everything but letters, digits, `-` and `_` of ASCII as `%` and two hexadecimal digits for each byte.
pub(super) fn encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            text.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// What was encoded, by us or by anybody else; `None` if a `%` has no two digits after it, or the bytes are not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    // A digit of base 16 is below 16.
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_comes_back_and_its_text_fits_into_urls_and_headers() {
        for name in ["plain-name_1", "a.b/c d", "%41", "Zoë\r\n\0", "🦀"] {
            let text = encode(name);
            assert!(
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_%".contains(&byte)),
                "{text}"
            );
            assert_eq!(decode(&text).as_deref(), Some(name));
        }
        assert_eq!(encode("a.b"), "a%2Eb");
    }

    #[test]
    fn half_an_escape_and_half_a_character_are_refused() {
        for text in ["%", "%4", "%4g", "a%", "%FF", "%+1"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
