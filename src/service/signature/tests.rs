use cutover_formats::StoreId;

use super::*;

const EXPIRES_MS: u64 = 1_800_000_006_000;
const REQUEST: &[u8] = br#"{"to":"a@b.c"}"#;
/// Computed by another implementation of HMAC, from the description in the module.
const CODE: &str = "184cba46f9ae99f378294c3e49ef6474630fcc8bfde704fcaefc75841ec51b25";
const HTTP_DIGEST: &str = "7e1515668d82de7c24aeac740a9b6dcc3f5b88ed46ddde0e71121b3ee8a5b88f";

fn key() -> SigningKey {
    SigningKey::new(std::array::from_fn(|at| at as u8))
}

fn claims() -> Claims {
    Claims {
        tenant: "Zoë & Söhne".into(),
        instance: InstanceId::new(StoreId(7), 1_800_000_000_000, 0x1_2345_6789_abcd),
        step: "send.mail".into(),
        token: Token { incarnation: 3, counter: 17 },
        expires_ms: EXPIRES_MS,
        request: RequestDigest::of(REQUEST),
    }
}

fn check(signed: &Signed) -> Result<&Claims, Rejected> {
    verify(&key(), signed, RequestDigest::of(REQUEST), EXPIRES_MS - 1)
}

#[test]
fn a_signature_is_the_one_that_others_compute() {
    let signed = key().sign(claims());
    assert_eq!(hex(&signed.code), CODE);
    assert_eq!(check(&signed), Ok(&claims()));
    assert_eq!(hex(&RequestDigest::of_http("POST", "/v1/send?x=1", b"body").0), HTTP_DIGEST);
}

#[test]
fn every_field_that_is_changed_is_noticed() {
    type Change = (&'static str, fn(&mut Claims));
    let changes: [Change; 9] = [
        ("tenant", |claims| claims.tenant.push('x')),
        ("instance", |claims| claims.instance.0 += 1),
        ("step", |claims| claims.step.push('x')),
        ("incarnation", |claims| claims.token.incarnation += 1),
        ("counter", |claims| claims.token.counter += 1),
        ("expiry", |claims| claims.expires_ms += 1),
        ("request", |claims| claims.request = RequestDigest::of(b"other")),
        ("names moved into each other", |claims| {
            claims.step.insert(0, claims.tenant.pop().unwrap());
        }),
        ("numbers moved into each other", |claims| {
            std::mem::swap(&mut claims.token.incarnation, &mut claims.token.counter);
        }),
    ];
    for (what, change) in changes {
        let mut signed = key().sign(claims());
        change(&mut signed.claims);
        assert_eq!(check(&signed), Err(Rejected::Forged), "{what}");
    }
    for bit in 0..256 {
        let mut signed = key().sign(claims());
        signed.code[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(check(&signed), Err(Rejected::Forged), "bit {bit} of the code");
    }
    let other = SigningKey::new([9; 32]).sign(claims());
    assert_eq!(check(&other), Err(Rejected::Forged), "another key");
}

#[test]
fn a_call_is_valid_before_its_end_and_not_at_it_and_for_its_request_only() {
    let signed = key().sign(claims());
    let expired = Err(Rejected::Expired { expires_ms: EXPIRES_MS });
    assert_eq!(verify(&key(), &signed, RequestDigest::of(REQUEST), EXPIRES_MS), expired);
    assert_eq!(verify(&key(), &signed, RequestDigest::of(b"other"), 0), Err(Rejected::OtherRequest));
}

#[test]
fn method_target_and_body_of_a_request_over_http_are_told_apart() {
    let digests = [
        RequestDigest::of_http("POST", "/a", b"b"),
        RequestDigest::of_http("PUT", "/a", b"b"),
        RequestDigest::of_http("POST", "/ab", b""),
        RequestDigest::of_http("POST", "/", b"ab"),
        RequestDigest::of(b"b"),
    ];
    let different: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn a_text_comes_back_as_the_signature_that_it_was() {
    let long = "\u{7f}".repeat(limits::MAX_NAME);
    for tenant in ["acme", "Zoë & Söhne", "a.b%2E", "\r\n", &long] {
        let claims = Claims {
            tenant: tenant.into(),
            step: tenant.into(),
            token: Token { incarnation: u64::MAX, counter: u64::MAX },
            expires_ms: u64::MAX,
            ..claims()
        };
        let signed = key().sign(claims.clone());
        let text = signed.to_string();
        assert!(text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        let read: Signed = text.parse().unwrap();
        assert_eq!(verify(&key(), &read, claims.request, 0), Ok(&claims));
    }
}

#[test]
fn no_other_text_is_read() {
    let text = key().sign(claims()).to_string();
    let fields: Vec<&str> = text.split('.').collect();
    let with = |at: usize, field: &str| {
        let mut fields = fields.clone();
        fields[at] = field;
        fields.join(".")
    };
    let digest = fields[7].to_owned();
    let lower = fields[2].to_ascii_lowercase();
    let wrong = [
        String::new(),
        text.to_ascii_uppercase(),
        format!("{text}."),
        format!("{text}.0"),
        format!(" {text}"),
        text[..text.len() - 1].to_owned(),
        fields[..8].join("."),
        with(0, "2"),
        with(1, ""),
        with(1, "%2"),
        with(1, "%61cme"),
        with(1, "a b"),
        with(1, &"x".repeat(limits::MAX_NAME + 1)),
        with(1, &"x".repeat(1 << 20)),
        with(2, &lower),
        with(3, ""),
        with(4, "+3"),
        with(4, "03"),
        with(5, "-17"),
        with(6, "18446744073709551616"),
        with(7, &digest[1..]),
        with(7, &format!("{digest}0")),
        with(8, &digest.replace(|c: char| c.is_ascii_digit(), "g")),
    ];
    for text in wrong {
        let err = text.parse::<Signed>().expect_err(&text);
        assert_eq!(err.kind(), ErrorKind::InvalidInput);
    }
}

/// Whatever is changed in a text, it is refused as a text or as a signature.
#[test]
fn a_text_with_any_byte_changed_is_not_taken() {
    let text = key().sign(claims()).to_string();
    for at in 0..text.len() {
        for byte in 0..0x80_u8 {
            let mut changed = text.clone().into_bytes();
            let was = std::mem::replace(&mut changed[at], byte);
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(signed) = changed.parse::<Signed>() {
                assert_eq!(check(&signed).is_ok(), was == byte, "{changed}");
            }
        }
    }
}

#[test]
fn neither_a_key_nor_a_code_is_shown() {
    assert_eq!(format!("{:?}", key()), "SigningKey(..)");
    let shown = format!("{:?}", key().sign(claims()));
    assert!(shown.contains("send.mail") && !shown.contains("24, 76, 186"), "{shown}");
    assert!(!shown.contains(CODE), "{shown}");
}

#[test]
fn keys_that_nobody_gave_differ() {
    let signed = SigningKey::random().unwrap().sign(claims());
    let other = SigningKey::random().unwrap();
    assert_eq!(verify(&other, &signed, claims().request, 0), Err(Rejected::Forged));
}
