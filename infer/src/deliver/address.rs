//! Where a notification may go: never to the addresses from which clouds hand out credentials.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Why a receiver's address is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("`{url}` is not a URL: {reason}")]
    Syntax { url: String, reason: String },
    #[error("`{url}`: only http and https receivers are called")]
    Scheme { url: String },
    #[error(
        "a URL with a user name or password would show them in logs: put the secret into a file and name the file"
    )]
    Credentials,
    #[error("`{url}` has no host")]
    Host { url: String },
    #[error(
        "{address} is link-local or a metadata service's address, which nothing is sent to unless the receiver \
         says `allow_link_local = true`"
    )]
    LinkLocal { address: IpAddr },
}

/// Which addresses may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pub allow_link_local: bool,
}

impl Guard {
    /// Checks what can be checked before a name is resolved.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn check_url(self, text: &str) -> Result<Url, AddressError> {
        let url = Url::parse(text)
            .map_err(|error| AddressError::Syntax { url: text.to_owned(), reason: error.to_string() })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AddressError::Scheme { url: text.to_owned() });
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into())?,
            Some(Host::Ipv6(address)) => self.check(address.into())?,
            Some(Host::Domain(_)) => {}
            None => return Err(AddressError::Host { url: text.to_owned() }),
        }
        Ok(url)
    }

    /// # Errors
    /// [`AddressError::LinkLocal`].
    pub fn check(self, address: IpAddr) -> Result<(), AddressError> {
        if !self.allow_link_local && is_link_local(address.to_canonical()) {
            return Err(AddressError::LinkLocal { address });
        }
        Ok(())
    }
}

/// Link-local, and the metadata addresses that lie elsewhere (EC2's over IPv6, Alibaba's, Oracle's).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || matches!(v4.octets(), [100, 100, 100, 200] | [192, 0, 0, 192])
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

impl Resolve for Guard {
    /// The system's resolver; a name that leads to a forbidden address is refused whole.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                guard.check(address.ip())?;
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_not_called() {
        let guard = Guard::default();
        for url in [
            "http://169.254.169.254/latest",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::254]/",
            "http://2852039166/",
            "http://100.100.100.200/",
        ] {
            assert!(matches!(guard.check_url(url), Err(AddressError::LinkLocal { .. })), "{url}");
            assert!(Guard { allow_link_local: true }.check_url(url).is_ok(), "{url}");
        }
        for url in ["http://127.0.0.1:9000/hook", "https://hooks.example.org/x", "http://[::1]:80/"] {
            assert!(guard.check_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_receiver_says_why() {
        let guard = Guard::default();
        for (url, word) in [
            ("localhost:9000", "only http"),
            ("not a url", "not a URL"),
            ("ftp://example.org/", "only http"),
            ("https://user:secret@example.org/", "password"),
        ] {
            let error = guard.check_url(url).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("secret@"), "{url}: {error}");
        }
    }
}
