//! One attempt to deliver one message, and what its end means.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, StatusCode, redirect};

use super::{AddressError, Guard, Message, retry_after};
use crate::notify::SigningKeys;
use crate::time::now_ms;

/// Bytes of an error's answer that are read, to show its first line.
const ANSWER_BYTES: usize = 512;

/// How a receiver is reached.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    pub url: String,
    /// From connecting to the end of the answer.
    pub timeout: Option<Duration>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Certificate chain and key (PEM) to show to the receiver.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub allow_link_local: bool,
}

/// Why a receiver cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no usable certificate or key in PEM form", path.display())]
    Pem { path: PathBuf, source: reqwest::Error },
    #[error("a client certificate needs its key, and a key its certificate: name both files")]
    Pair,
    #[error("cannot set up TLS")]
    Tls(#[source] reqwest::Error),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered {
        status: u16,
    },
    /// It may work later; the receiver may have said when.
    Retry {
        reason: String,
        status: Option<u16>,
        after: Option<Duration>,
    },
    /// The same message will never be taken.
    Refused {
        reason: String,
        status: u16,
    },
    /// The receiver wants nothing any more (410).
    Gone {
        reason: String,
    },
}

/// The way to one receiver.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: url::Url,
    keys: SigningKeys,
}

impl Client {
    /// # Errors
    /// [`ClientError`].
    pub fn new(settings: &ClientSettings, keys: SigningKeys) -> Result<Self, ClientError> {
        let guard = Guard { allow_link_local: settings.allow_link_local };
        let url = guard.check_url(&settings.url)?;
        // A second receiver finds it installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = settings.timeout.unwrap_or(Duration::from_secs(10));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("faultline-infer/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(guard)
            // A redirect could lead where the configuration does not allow.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .timeout(timeout);
        if let Some(path) = &settings.ca {
            let pem = |source| ClientError::Pem { path: path.clone(), source };
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(&read(path)?).map_err(pem)?);
        }
        match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => {
                let mut both = read(certificate)?;
                both.push(b'\n');
                both.extend(read(key)?);
                let pem = |source| ClientError::Pem { path: certificate.clone(), source };
                builder = builder.identity(Identity::from_pem(&both).map_err(pem)?);
            }
            (None, None) => {}
            _ => return Err(ClientError::Pair),
        }
        Ok(Self { http: builder.build().map_err(ClientError::Tls)?, url, keys })
    }

    /// Sends a message once.
    pub async fn send(&self, message: &Message) -> Outcome {
        let now = now_ms();
        let content_type = HeaderValue::from_str(&message.content_type)
            .unwrap_or(HeaderValue::from_static("application/json"));
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, content_type)
            .headers(self.signature(message, now / 1000))
            .body(message.body.clone());
        match request.send().await {
            Ok(response) => judge(response, now).await,
            Err(error) => Outcome::Retry { reason: reason_of(&error), status: None, after: None },
        }
    }

    /// The Standard Webhooks headers; without a key, id and time alone.
    fn signature(&self, message: &Message, seconds: i64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let signature = self.keys.sign(&message.id, seconds, message.body.as_bytes());
        let fields = [
            ("webhook-id", Some(message.id.clone())),
            ("webhook-timestamp", Some(seconds.to_string())),
            ("webhook-signature", signature),
        ];
        for (name, value) in fields {
            if let Some(Ok(value)) = value.map(|value| HeaderValue::from_str(&value)) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::Read { path: path.clone(), source })
}

async fn judge(mut response: reqwest::Response, now: i64) -> Outcome {
    let status = response.status();
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, now));
    // What was taken is taken, even where the answer's body breaks off.
    if status.is_success() {
        return Outcome::Delivered { status: status.as_u16() };
    }
    let reason = match response.chunk().await {
        Ok(Some(body)) => format!("{status}: {}", first_line(&body)),
        Ok(None) | Err(_) => status.to_string(),
    };
    let code = status.as_u16();
    match status {
        StatusCode::GONE => Outcome::Gone { reason },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Retry { reason, status: Some(code), after }
        }
        status if status.is_server_error() => Outcome::Retry { reason, status: Some(code), after },
        status if status.is_redirection() => {
            let reason = format!("{reason} (redirects are not followed: configure the final URL)");
            Outcome::Refused { reason, status: code }
        }
        _ => Outcome::Refused { reason, status: code },
    }
}

/// The first line of untrusted text, cut and without control characters.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES)]);
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}

/// The innermost cause of a failed request; the outer ones only repeat the URL.
fn reason_of(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let what = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "the connection failed"
    };
    format!("{what}: {innermost}")
}
