//! Any bytes as the text of a signature: an error, or a signature that is written in the same text again. And any claims: their text is
//! read, and taken for the key that signed it only.

#![no_main]

use std::alloc::System;

use cap::Cap;
use cutover::service::signature::{Claims, MAX_TEXT, RequestDigest, Signed, SigningKey, verify};
use cutover::{InstanceId, Token};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The first allocation beyond it fails, and with it the target.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 64 << 20);

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(signed) = text.parse::<Signed>()
    {
        assert_eq!(signed.to_string(), text);
    }
    if let Ok(claims) = claims(&mut Unstructured::new(data)) {
        let (key, other) = (SigningKey::new([1; 32]), SigningKey::new([2; 32]));
        let text = key.sign(claims.clone()).to_string();
        assert!(text.len() <= MAX_TEXT);
        let read: Signed = text.parse().unwrap();
        let taken = claims.expires_ms > 0;
        assert_eq!(verify(&key, &read, claims.request, 0).is_ok_and(|read| *read == claims), taken);
        assert!(verify(&other, &read, claims.request, 0).is_err());
    }
});

fn claims(bytes: &mut Unstructured<'_>) -> Result<Claims> {
    Ok(Claims {
        tenant: name(bytes)?,
        instance: InstanceId(bytes.arbitrary()?),
        step: name(bytes)?,
        token: Token { incarnation: bytes.arbitrary()?, counter: bytes.arbitrary()? },
        expires_ms: bytes.arbitrary()?,
        request: RequestDigest::of(bytes.bytes(4)?),
    })
}

/// Of a length that a name may have.
fn name(bytes: &mut Unstructured<'_>) -> Result<String> {
    let mut name: String = bytes.arbitrary()?;
    name.truncate(name.char_indices().map(|(at, _)| at).take_while(|at| *at <= 255).last().unwrap_or(0));
    Ok(if name.is_empty() { "n".to_owned() } else { name })
}
