//! What the service checks of a token.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use millstream_core::{Clock as _, SystemClock};
use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};

use super::{HOST, KEY, READER, WRITER};

/// A token that is taken.
#[derive(Clone, Copy)]
pub(super) struct Token {
    /// In seconds since 1970.
    pub ends_s: i64,
    pub may_send: bool,
}

/// The event hub that a token is for, and what it allows; or why it is refused.
pub(super) fn check(kind: &str, audience: &str, token: &str) -> Result<(String, Token), String> {
    if kind != "servicebus.windows.net:sastoken" {
        return Err(format!("InvalidIssuer: tokens of type `{kind}` are not known here"));
    }
    let token = token.strip_prefix("SharedAccessSignature ").ok_or("MalformedToken: no SharedAccessSignature")?;
    let find = |name: &str| {
        let part = token.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        part.ok_or_else(|| format!("MalformedToken: no {name}"))
    };
    let (resource, signature, ends, policy) = (find("sr")?, find("sig")?, find("se")?, find("skn")?);
    let mut signer = Signer::new(MessageDigest::sha256(), &PKey::hmac(KEY.as_bytes()).unwrap()).unwrap();
    signer.update(format!("{resource}\n{ends}").as_bytes()).unwrap();
    if ![READER, WRITER].contains(&policy) || decode(signature) != STANDARD.encode(signer.sign_to_vec().unwrap()) {
        return Err("InvalidSignature: the token has an invalid signature".to_owned());
    }
    let ends_s: i64 = ends.parse().map_err(|_| "MalformedToken: se is no number")?;
    if ends_s <= SystemClock.now_ms() / 1_000 {
        return Err("ExpiredToken: the token has expired".to_owned());
    }
    let path = |url: &str| url.split_once("://").map(|(_, path)| path.to_lowercase()).unwrap_or_default();
    let (resource, audience) = (path(&decode(resource)), path(audience));
    if !audience.starts_with(&resource) {
        return Err("InvalidAudience: the token is for another resource".to_owned());
    }
    match audience.strip_prefix(&format!("{HOST}/")) {
        Some(hub) if !hub.is_empty() => Ok((hub.to_owned(), Token { ends_s, may_send: policy == WRITER })),
        _ => Err("InvalidAudience: the token is for another namespace".to_owned()),
    }
}

fn decode(text: &str) -> String {
    let (mut decoded, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("0");
                decoded.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
            }
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).unwrap_or_default()
}
