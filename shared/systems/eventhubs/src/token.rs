//! Tokens that prove to the service that this process has a key: shared access signatures.

use millstream_core::{Error, Result, Secret};
use openssl::{base64::encode_block, error::ErrorStack, hash::MessageDigest, pkey::PKey, sign::Signer};

/// The type of these tokens in a put-token request to `$cbs`.
pub(crate) const TOKEN_TYPE: &str = "servicebus.windows.net:sastoken";

/// What a token is for: one event hub, with all its consumer groups and partitions.
pub(crate) fn audience(namespace: &str, hub: &str) -> String {
    format!("amqps://{namespace}/{hub}")
}

/// `SharedAccessSignature sr=…&sig=…&se=…&skn=…`: the resource, the HMAC-SHA256 of resource and end with the key's text, the end in
/// seconds since 1970, the key's name.
///
/// # Errors
/// `Stop` when OpenSSL can't sign.
pub(crate) fn sign(audience: &str, key_name: &str, key: &Secret, ends_s: i64) -> Result<Secret> {
    let resource = encode(audience).to_lowercase();
    let signature = hmac(key.expose().as_bytes(), format!("{resource}\n{ends_s}").as_bytes()).map_err(|error| {
        Error::stop("a token can't be signed with the key of the connection string").caused_by(error)
    })?;
    let (signature, key_name) = (encode(&encode_block(&signature)), encode(key_name));
    Ok(Secret::new(format!("SharedAccessSignature sr={resource}&sig={signature}&se={ends_s}&skn={key_name}")))
}

fn hmac(key: &[u8], text: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::hmac(key)?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
    signer.update(text)?;
    signer.sign_to_vec()
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_four_parts() {
        let token = sign("amqps://Ns.x/orders", "reader", &Secret::new("key"), 1_700_000_000).unwrap();
        // HMAC-SHA256 of "amqps%3a%2f%2fns.x%2forders\n1700000000" with "key", by Python's hmac.
        let expected = "SharedAccessSignature sr=amqps%3a%2f%2fns.x%2forders&sig=juao99BpUahDL0K5TIs1QRvunjuQXs0Ib1VQPPUWsZw%3D&se=1700000000&skn=reader";
        assert_eq!(token.expose(), expected);
    }
}
