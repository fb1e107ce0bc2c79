//! Where Hubble is: an address on the command line, or the environment that the hubble command line reads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The agent's socket on every node that runs Cilium.
const NODE_SOCKET: &str = "/var/run/cilium/hubble.sock";
/// Where the hubble command line looks for a relay.
const RELAY: &str = "localhost:4245";

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Always without TLS.
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
        tls: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of Hubble's: unix:///var/run/cilium/hubble.sock, HOST:PORT or tls://HOST:PORT \
     (the name of an interface stands before --hubble)"
)]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(error()) } else { Ok(Self::Unix(path.into())) };
        }
        let (rest, tls) = match text.split_once("://") {
            Some(("tls", rest)) => (rest, true),
            Some(("tcp", rest)) => (rest, false),
            Some(_) => return Err(error()),
            None => (text, false),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(error)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // A colon outside brackets would make two readings of an IPv6 address.
        let is_host = |host: &str| !host.is_empty() && !host.contains([':', '/', '@']);
        let host = match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().map_err(|_| error())?.to_string(),
            None if is_host(host) => host.to_owned(),
            None => return Err(error()),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(error)?;
        Ok(Self::Tcp { host, port, tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "tls://" } else { "" };
                let is_ipv6 = host.contains(':');
                if is_ipv6 {
                    write!(f, "{scheme}[{host}]:{port}")
                } else {
                    write!(f, "{scheme}{host}:{port}")
                }
            }
        }
    }
}

/// How TLS is done. Files are named, not read: they are read anew for each connection, as certificates rotate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Takes any certificate of the server's.
    pub allow_insecure: bool,
    /// Authorities to trust; the system's where there are none.
    pub ca_files: Vec<PathBuf>,
    /// Certificate and key that we show (mTLS).
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate; the address's host where absent.
    pub server_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("HUBBLE_SERVER: {0}")]
    Server(#[from] ParseAddressError),
    #[error("{name} is `{value}`; true or false is expected")]
    NotABool { name: &'static str, value: String },
    #[error("HUBBLE_TLS_CLIENT_CERT_FILE and HUBBLE_TLS_CLIENT_KEY_FILE go together; {missing} is not set")]
    HalfAClient { missing: &'static str },
}

impl Address {
    /// This address, else `HUBBLE_SERVER`, else the node's socket where there is one, else a relay on this host.
    /// `variable` looks a variable of the environment up.
    ///
    /// # Errors
    /// Where the environment contradicts itself.
    pub fn or_environment(
        given: Option<&Self>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Tls), EnvironmentError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_true = |name: &'static str| match variable(name) {
            None => Ok(false),
            Some(value) => match value.trim().to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => Ok(true),
                "false" | "f" | "0" => Ok(false),
                _ => Err(EnvironmentError::NotABool { name, value }),
            },
        };
        let mut address = match (given, variable("HUBBLE_SERVER")) {
            (Some(given), _) => given.clone(),
            (None, Some(server)) => server.trim().parse()?,
            (None, None) if Path::new(NODE_SOCKET).exists() => Self::Unix(NODE_SOCKET.into()),
            (None, None) => RELAY.parse()?,
        };
        if let Self::Tcp { tls, .. } = &mut address {
            *tls |= is_true("HUBBLE_TLS")?;
        }
        let path = |name: &str| variable(name).map(PathBuf::from);
        let client = match (path("HUBBLE_TLS_CLIENT_CERT_FILE"), path("HUBBLE_TLS_CLIENT_KEY_FILE")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(EnvironmentError::HalfAClient { missing: "HUBBLE_TLS_CLIENT_KEY_FILE" });
            }
            (None, Some(_)) => {
                return Err(EnvironmentError::HalfAClient { missing: "HUBBLE_TLS_CLIENT_CERT_FILE" });
            }
        };
        let files = variable("HUBBLE_TLS_CA_CERT_FILES").unwrap_or_default();
        // The hubble command line takes spaces in the environment and commas on the command line.
        let ca_files = files.split([',', ' ']).filter(|file| !file.is_empty()).map(PathBuf::from).collect();
        let tls = Tls {
            allow_insecure: is_true("HUBBLE_TLS_ALLOW_INSECURE")?,
            ca_files,
            client,
            server_name: variable("HUBBLE_TLS_SERVER_NAME"),
        };
        Ok((address, tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Address {
        Address::Tcp { host: host.to_owned(), port, tls }
    }

    #[test]
    fn addresses_are_read_as_the_hubble_command_line_reads_them() {
        for (text, address) in [
            ("unix:///run/h.sock", Address::Unix("/run/h.sock".into())),
            ("unix:h.sock", Address::Unix("h.sock".into())),
            ("node:4244", tcp("node", 4244, false)),
            ("tls://node:4244", tcp("node", 4244, true)),
            ("[::1]:4245", tcp("::1", 4245, false)),
            ("tls://10.0.0.1:443", tcp("10.0.0.1", 443, true)),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for text in ["tls://[::1]:4245", "node:4244", "unix:///run/h.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["eth0", "", "unix:", "node:", "node:0", "::1:4245", "http://node:1", "a b@c:1", "[x]:1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert!("eth0".parse::<Address>().unwrap_err().to_string().contains("before --hubble"));
    }

    #[test]
    fn the_environment_fills_in_what_was_not_said() {
        let with = |variables: &'static [(&str, &str)], given: Option<&Address>| {
            Address::or_environment(given, move |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let server = [("HUBBLE_SERVER", "relay:4245"), ("HUBBLE_TLS", "true")];
        let server: &'static [_] = Box::leak(Box::new(server));
        assert_eq!(with(server, None).unwrap().0, tcp("relay", 4245, true));
        let socket = Address::Unix("/run/h.sock".into());
        assert_eq!(with(server, Some(&socket)).unwrap().0, socket, "a socket has no TLS");
        let (_, tls) = with(
            &[
                ("HUBBLE_TLS_CA_CERT_FILES", "a.pem,b.pem c.pem"),
                ("HUBBLE_TLS_CLIENT_CERT_FILE", "c.crt"),
                ("HUBBLE_TLS_CLIENT_KEY_FILE", "c.key"),
                ("HUBBLE_TLS_SERVER_NAME", "n.default.hubble-grpc.cilium.io"),
                ("HUBBLE_TLS_ALLOW_INSECURE", "0"),
            ],
            None,
        )
        .unwrap();
        assert_eq!(tls.ca_files.len(), 3);
        assert_eq!(tls.client, Some(("c.crt".into(), "c.key".into())));
        assert_eq!(tls.server_name.as_deref(), Some("n.default.hubble-grpc.cilium.io"));
        assert!(!tls.allow_insecure);
        let half = with(&[("HUBBLE_TLS_CLIENT_CERT_FILE", "c.crt")], None).unwrap_err();
        assert_eq!(half, EnvironmentError::HalfAClient { missing: "HUBBLE_TLS_CLIENT_KEY_FILE" });
        let odd = with(&[("HUBBLE_SERVER", "h:1"), ("HUBBLE_TLS", "maybe")], None).unwrap_err();
        assert_eq!(odd.to_string(), "HUBBLE_TLS is `maybe`; true or false is expected");
        assert!(with(&[("HUBBLE_SERVER", "nonsense")], None).is_err());
    }
}
