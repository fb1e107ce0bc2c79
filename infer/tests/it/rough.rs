//! Receivers that are there and then not, that hang up in the midst, and that want to know who calls.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::binary::{Bench, stderr};
use crate::fixture::Script;
use crate::receiver::{Answer, Receiver};

const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Ids of the requests that came whole.
type Ids = Arc<Mutex<Vec<String>>>;

/// Reads one request to the end of its body; its id. An error where the caller went before.
fn read_request(stream: &mut impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    loop {
        let read = stream.read(&mut block)?;
        bytes.extend_from_slice(&block[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            let length: usize = field("content-length:").and_then(|length| length.parse().ok()).unwrap();
            if body.len() >= length {
                return Ok(field("webhook-id:").unwrap());
            }
        }
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Does to the n-th connection, counted from 0, what `serve` does.
fn listen(serve: impl Fn(usize, TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (place, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            serve(place, stream);
        }
    });
    address.to_string()
}

#[test]
fn a_receiver_that_hangs_up_in_the_midst_gets_the_message_again_and_once() {
    let bench = Bench::new(&Script::default());
    let ids = Ids::default();
    let came = Arc::clone(&ids);
    let address = listen(move |place, mut stream| match place {
        // In the midst of the request.
        0 => drop(stream.read(&mut [0; 64])),
        // In the midst of an answer that refuses it for now.
        1 => {
            read_request(&mut stream).unwrap();
            stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        }
        // In the midst of an answer that takes it: it is taken.
        2 => {
            came.lock().unwrap().push(read_request(&mut stream).unwrap());
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        }
        _ => {
            came.lock().unwrap().push(read_request(&mut stream).unwrap());
            stream.write_all(TAKEN.as_bytes()).unwrap();
        }
    });
    let output = bench.run(&["--webhook", &format!("http://{address}/hook")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let ids = ids.lock().unwrap();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert_ne!(ids[0], ids[1]);
    assert!(stderr(&output).contains("retried=2"), "{}", stderr(&output));
}

#[test]
fn a_receiver_that_comes_and_goes_gets_everything_in_order() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|place| Answer::Status(if place % 2 == 0 { 503 } else { 200 }));
    let output = bench.run(&["--webhook", &receiver.url]);
    assert!(output.status.success(), "{}", stderr(&output));
    let statuses: Vec<u16> = receiver.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [503, 200, 503, 200]);
    let told: Vec<String> = receiver
        .accepted()
        .iter()
        .map(|request| request.json()["data"]["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, ["firing", "resolved"]);
}

/// An authority, and what it signed for a receiver and for this daemon, as PEM.
struct Certificates {
    authority: String,
    server: (String, String),
    client: (String, String),
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let sign = |name: &str, usage| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
        };
        Self {
            server: sign("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth),
            client: sign("infer.example", ExtendedKeyUsagePurpose::ClientAuth),
            authority: authority.pem(),
        }
    }

    /// A server that talks to nobody without a certificate of the authority.
    fn config(&self) -> Arc<ServerConfig> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(self.server.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        Arc::new(config.with_single_cert(chain, key).unwrap())
    }
}

#[test]
fn mutual_tls_lets_in_who_has_a_certificate_and_nobody_else() {
    let bench = Bench::new(&Script::default());
    let certificates = Certificates::new();
    let config = certificates.config();
    let ids = Ids::default();
    let came = Arc::clone(&ids);
    let address = listen(move |_, stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        // A handshake that fails is the caller's to report.
        if let Ok(id) = read_request(&mut stream) {
            assert!(stream.conn.peer_certificates().is_some());
            came.lock().unwrap().push(id);
            let _ = stream.write_all(TAKEN.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let file = |name: &str, text: &str| std::fs::write(bench.path().join(name), text).unwrap();
    file("ca.pem", &certificates.authority);
    file("client.pem", &certificates.client.0);
    file("client.key", &certificates.client.1);
    let policy = |head: &str, tls: &str| {
        file(
            "policy.toml",
            &format!(
                "{head}\n[receivers.ops]\nurl = \"https://{address}/hook\"\n{tls}\n\
                 [[routes]]\nreceivers = [\"ops\"]\naction = \"restart\"\n"
            ),
        );
    };
    // A certificate stands for a signature: actions may be asked for.
    policy("mode = \"enforce\"", "ca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"");
    let output = bench.run(&["--policy", "policy.toml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(ids.lock().unwrap().len(), 2);
    assert!(!stderr(&output).contains("PRIVATE KEY"));
    // Without one they may not, and nothing is let in.
    policy("mode = \"enforce\"", "ca = \"ca.pem\"");
    let output = bench.run(&["--policy", "policy.toml"]);
    assert!(stderr(&output).contains("mutual TLS"), "{}", stderr(&output));
    policy("", "ca = \"ca.pem\"");
    let output = bench.run(&["--policy", "policy.toml", "--drain", "2s"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    // A receiver whose certificate nobody known has signed is told nothing either.
    policy("", "certificate = \"client.pem\"\nkey = \"client.key\"");
    let output = bench.run(&["--policy", "policy.toml", "--drain", "2s"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(ids.lock().unwrap().len(), 2);
}
