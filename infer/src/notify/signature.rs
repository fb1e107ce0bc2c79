//! Standard Webhooks signatures: HMAC-SHA256 over `id.timestamp.body`, made by the sender, checked by receivers.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Seconds that a message's time may lie from the receiver's clock, either way.
pub const TOLERANCE_SECONDS: i64 = 300;
/// A shorter key can be guessed.
const SHORTEST_KEY: usize = 24;
const LONGEST_KEY: usize = 64;
const PREFIX: &str = "whsec_";

/// Keys that a message is signed with: the current one first; an older one stays beside it while receivers
/// change over.
#[derive(Clone, Default)]
pub struct SigningKeys(Vec<Vec<u8>>);

impl fmt::Debug for SigningKeys {
    /// How many there are; never a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKeys({})", self.0.len())
    }
}

/// Why a text is not a signing key. The text itself is never told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "a signing key is `whsec_` and the base64 form of {SHORTEST_KEY} to {LONGEST_KEY} random bytes: make one with `printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\"`"
    )]
    Form,
    #[error("the signing key has {bytes} bytes: {SHORTEST_KEY} to {LONGEST_KEY} are wanted")]
    Length { bytes: usize },
}

/// Why a message is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("header `{name}` is missing")]
    Missing { name: &'static str },
    #[error("webhook-timestamp `{text}` is not a number of seconds")]
    Timestamp { text: String },
    #[error(
        "sent {seconds} s {side} the receiver's clock, and {TOLERANCE_SECONDS} s are allowed: a replay, or a clock that is wrong"
    )]
    Clock { seconds: i64, side: &'static str },
    #[error("no v1 signature of the message was made with a known key")]
    Signature,
    #[error(
        "message {id} came before: a replay, or a repetition to be answered with 2xx and otherwise ignored"
    )]
    Repeated { id: String },
}

impl SigningKeys {
    /// Keys from texts of the form `whsec_...`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        texts.into_iter().map(parse_key).collect::<Result<Vec<_>, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `webhook-signature` header: one `v1,...` per key; nothing where there is no key.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| format!("v1,{}", STANDARD.encode(mac(key, id, seconds, body).finalize().into_bytes())))
            .collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }

    fn accepts(&self, signature: &[u8], id: &str, seconds: i64, body: &[u8]) -> bool {
        // Compared in constant time.
        self.0.iter().any(|key| mac(key, id, seconds, body).verify_slice(signature).is_ok())
    }
}

fn parse_key(text: &str) -> Result<Vec<u8>, KeyError> {
    let encoded = text.trim().strip_prefix(PREFIX).ok_or(KeyError::Form)?;
    let key = STANDARD.decode(encoded).map_err(|_| KeyError::Form)?;
    if !(SHORTEST_KEY..=LONGEST_KEY).contains(&key.len()) {
        return Err(KeyError::Length { bytes: key.len() });
    }
    Ok(key)
}

fn mac(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// What a receiver checks: the signature, the time, and that a message did not come before.
#[derive(Debug)]
pub struct Verifier {
    keys: SigningKeys,
    /// Ids that came, with the time they were signed at; forgotten when that time alone would refuse them.
    seen: BTreeMap<String, i64>,
}

impl Verifier {
    pub const fn new(keys: SigningKeys) -> Self {
        Self { keys, seen: BTreeMap::new() }
    }

    /// Takes a message, by its headers (names in lower case) and its body as it came; its id where it is to be
    /// trusted.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify<'h>(
        &mut self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now_seconds: i64,
    ) -> Result<String, VerifyError> {
        let get = |name: &'static str| header(name).ok_or(VerifyError::Missing { name });
        let id = get("webhook-id")?;
        let text = get("webhook-timestamp")?;
        let signatures = get("webhook-signature")?;
        let seconds: i64 = text.parse().map_err(|_| VerifyError::Timestamp { text: text.to_owned() })?;
        let authentic = signatures
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|encoded| STANDARD.decode(encoded).ok())
            .any(|signature| self.keys.accepts(&signature, id, seconds, body));
        if !authentic {
            return Err(VerifyError::Signature);
        }
        let apart = now_seconds.saturating_sub(seconds);
        if apart.saturating_abs() > TOLERANCE_SECONDS {
            let side = if apart > 0 { "before" } else { "after" };
            return Err(VerifyError::Clock { seconds: apart.saturating_abs(), side });
        }
        self.seen.retain(|_, signed| now_seconds.saturating_sub(*signed) <= 2 * TOLERANCE_SECONDS);
        if self.seen.insert(id.to_owned(), seconds).is_some() {
            return Err(VerifyError::Repeated { id: id.to_owned() });
        }
        Ok(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECONDS: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn keys(texts: &[&str]) -> SigningKeys {
        SigningKeys::parse(texts.iter().copied()).unwrap()
    }

    fn verify(
        verifier: &mut Verifier,
        body: &[u8],
        signature: &str,
        now: i64,
    ) -> Result<String, VerifyError> {
        let seconds = SECONDS.to_string();
        let header = |name: &str| match name {
            "webhook-id" => Some(ID),
            "webhook-timestamp" => Some(seconds.as_str()),
            "webhook-signature" => Some(signature),
            _ => None,
        };
        verifier.verify(header, body, now)
    }

    /// The vector of the reference libraries.
    #[test]
    fn the_reference_vector_is_signed_alike() {
        assert_eq!(keys(&[KEY]).sign(ID, SECONDS, BODY).as_deref(), Some(SIGNATURE));
        assert_eq!(SigningKeys::default().sign(ID, SECONDS, BODY), None);
    }

    #[test]
    fn old_and_new_key_are_accepted_while_they_rotate() {
        let new = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let both = keys(&[new, KEY]).sign(ID, SECONDS, BODY).unwrap();
        for known in [KEY, new] {
            assert!(verify(&mut Verifier::new(keys(&[known])), BODY, &both, SECONDS).is_ok());
        }
    }

    #[test]
    fn a_changed_late_or_repeated_message_is_refused() {
        let mut verifier = Verifier::new(keys(&[KEY]));
        let changed = br#"{"test": 2432232315}"#;
        assert_eq!(verify(&mut verifier, changed, SIGNATURE, SECONDS), Err(VerifyError::Signature));
        assert_eq!(verify(&mut verifier, BODY, "v1,AAAA v1a,x", SECONDS), Err(VerifyError::Signature));
        let late = verify(&mut verifier, BODY, SIGNATURE, SECONDS + TOLERANCE_SECONDS + 1);
        assert!(matches!(late, Err(VerifyError::Clock { .. })));
        assert!(verify(&mut verifier, BODY, SIGNATURE, SECONDS + TOLERANCE_SECONDS).is_ok());
        let again = verify(&mut verifier, BODY, SIGNATURE, SECONDS);
        assert!(matches!(again, Err(VerifyError::Repeated { .. })));
    }

    #[test]
    fn a_bad_key_is_never_shown() {
        for bad in ["secret", "whsec_!!!", "whsec_c2hvcnQ="] {
            let error = SigningKeys::parse([bad]).unwrap_err().to_string();
            assert!(!error.contains(&bad[6..]) || bad == "secret", "{error}");
        }
        assert_eq!(format!("{:?}", keys(&[KEY])), "SigningKeys(1)");
    }
}
