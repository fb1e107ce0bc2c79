//! One connection to Hubble: a socket or TCP, with TLS where the address asks for it.
//!
//! A channel has one connection and never makes a second by itself: certificates are read anew for each, and why
//! one fails is told in full.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::address::{Address, Tls};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("TLS with the server failed")]
    Handshake(#[source] io::Error),
    #[error("{} holds no usable PEM", .path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate", .path.display())]
    NoCertificate { path: PathBuf },
    #[error("the system trusts no certificate authority: name one by HUBBLE_TLS_CA_CERT_FILES")]
    NoRoots,
    #[error("certificate or key cannot be used for TLS")]
    Config(#[source] rustls::Error),
    #[error("`{name}` cannot stand in a certificate: set HUBBLE_TLS_SERVER_NAME")]
    ServerName { name: String, source: InvalidDnsNameError },
    #[error("the server does not speak gRPC here")]
    Http2(#[source] tonic::transport::Error),
}

/// Connects anew. Beside the channel, why its connection failed, once it did.
pub async fn connect(address: &Address, tls: &Tls) -> Result<(Channel, Failure), ConnectError> {
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(ConnectError::Connect)?;
            channel(stream, "http://localhost").await
        }
        Address::Tcp { host, port, tls: has_tls } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ConnectError::Connect)?;
            // Small requests should not wait for each other.
            stream.set_nodelay(true).map_err(ConnectError::Connect)?;
            if !has_tls {
                return channel(stream, "http://localhost").await;
            }
            let name = tls.server_name.as_ref().unwrap_or(host);
            let server_name = ServerName::try_from(name.clone())
                .map_err(|source| ConnectError::ServerName { name: name.clone(), source })?;
            let connector = TlsConnector::from(Arc::new(config(tls)?));
            let stream = connector.connect(server_name, stream).await.map_err(ConnectError::Handshake)?;
            channel(stream, "https://localhost").await
        }
    }
}

/// A channel over this stream, and over no other.
async fn channel<S>(stream: S, origin: &'static str) -> Result<(Channel, Failure), ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failure = Failure::default();
    let mut stream = Some(Watched { stream, failure: failure.clone(), unwritten: None });
    let connector = tower::service_fn(move |_| {
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        std::future::ready(stream.take().map(TokioIo::new).ok_or_else(ended))
    });
    // The address is in the connector; this scheme is what tonic takes without TLS of its own.
    let channel = Endpoint::from_static("http://localhost")
        .origin(origin.parse().expect("a constant URI"))
        .connect_with_connector(connector)
        .await
        .map_err(ConnectError::Http2)?;
    Ok((channel, failure))
}

/// Why a stream failed.
#[derive(Clone, Default)]
pub struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    pub fn take(&self) -> Option<io::Error> {
        self.0.lock().ok().and_then(|mut failure| failure.take())
    }

    /// Keeps the error, and passes on one of its kind.
    fn keep<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if let Ok(mut failure) = self.0.lock() {
                failure.get_or_insert(error);
            }
            kind.into()
        })
    }
}

/// A stream that remembers why it failed: HTTP/2 above it tells only that it ended. A server that refuses our
/// certificate says so after the handshake, in answer to the first bytes.
struct Watched<S> {
    stream: S,
    failure: Failure,
    /// Of a write, while it is read what came before.
    unwritten: Option<io::Error>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer).map(|result| self.failure.keep(result))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// After a write that failed: what the server said before it closed tells more. Its end is there to be read,
    /// so that this does not wait for long.
    fn after_write<T>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(error)) => self.unwritten = Some(error),
            Poll::Ready(Ok(_)) | Poll::Pending if self.unwritten.is_none() => return result,
            _ => {}
        }
        let mut scratch = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(self.as_mut().poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                let error = self.unwritten.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                return Poll::Ready(self.failure.keep(Err(error)));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.after_write(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn config(tls: &Tls) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::Config)?;
    let builder = if tls.allow_insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
    } else {
        builder.with_root_certificates(roots(&tls.ca_files)?)
    };
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key_path)) => {
            let key = PrivateKeyDer::from_pem_file(key_path)
                .map_err(|source| ConnectError::Pem { path: key_path.clone(), source })?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(ConnectError::Config)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn roots(files: &[PathBuf]) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    for path in files {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(ConnectError::Config)?;
        }
    }
    if files.is_empty() {
        // A certificate of the system's that cannot be read is not trusted, as if it were not there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() { Err(ConnectError::NoRoots) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let error = |source| ConnectError::Pem { path: path.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if certificates.is_empty() {
        return Err(ConnectError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// Takes any certificate, for `HUBBLE_TLS_ALLOW_INSECURE`; that the server has its key is still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// An error with all that lies behind it, and what to do about a certificate.
pub struct Explained<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = Some(self.0);
        let mut remedy = None;
        let mut last = String::new();
        while let Some(error) = next {
            if error.is::<tonic::Status>() {
                // Says again, in its own words, what is behind it.
                next = error.source();
                continue;
            }
            let text = error.to_string();
            // Some errors repeat the text of what is behind them.
            if !last.contains(&text) {
                let colon = if last.is_empty() { "" } else { ": " };
                write!(f, "{colon}{text}")?;
                last = text;
            }
            remedy = remedy.or_else(|| error.downcast_ref().and_then(remedy_of));
            // An `io::Error` is its inner error: its source would pass it over.
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        remedy.map_or(Ok(()), |remedy| write!(f, " ({remedy})"))
    }
}

fn remedy_of(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    Some(match error {
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "the server's certificate has expired: it has to be renewed there"
        }
        Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            "name its authority by HUBBLE_TLS_CA_CERT_FILES"
        }
        Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "set HUBBLE_TLS_SERVER_NAME, <node>.<cluster>.hubble-grpc.cilium.io for an agent",
        Error::AlertReceived(Alert::CertificateExpired) => {
            "our certificate has expired: renew the file that HUBBLE_TLS_CLIENT_CERT_FILE names"
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            "the server wants a certificate: set HUBBLE_TLS_CLIENT_CERT_FILE and HUBBLE_TLS_CLIENT_KEY_FILE"
        }
        Error::AlertReceived(Alert::UnknownCA | Alert::BadCertificate) => {
            "the server does not take our certificate: is it of its authority?"
        }
        Error::InvalidMessage(_) => {
            "does the server speak TLS? Without it, write HOST:PORT and no HUBBLE_TLS"
        }
        _ => return None,
    })
}
