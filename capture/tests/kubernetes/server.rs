//! A server that speaks the Kubernetes API's list and watch over HTTPS: pods and services, a history of their changes,
//! bookmarks, expired histories, and connections that break in the middle of an event.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What clients have to show.
pub const TOKEN: &str = "a-token-of-the-test";

/// How soon a watch looks for what is new.
const STEP: Duration = Duration::from_millis(10);

/// What the cluster knows; it outlives a server.
#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// By kind (`pods`, `services`) and name.
    objects: BTreeMap<(String, String), Value>,
    /// Version, kind, type and object of each change.
    history: Vec<(u64, String, &'static str, Value)>,
    /// Watches from before this version are told that it is too old.
    expired: u64,
    /// Watches begun before this was raised are cut in the middle of a chunk.
    cuts: u64,
    forbidden: bool,
    is_over: bool,
    /// Paths with their queries, in order.
    requests: Vec<String>,
}

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Adds an object, or changes the one of its name.
    pub fn apply(&self, kind: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let old = state.objects.insert((kind.to_owned(), name), object.clone());
        let what = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.history.push((version, kind.to_owned(), what, object));
    }

    pub fn delete(&self, kind: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.remove(&(kind.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        state.history.push((version, kind.to_owned(), "DELETED", object));
    }

    /// Tells watches of a version without a change.
    pub fn bookmark(&self, kind: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let object = json!({"metadata": {"resourceVersion": version.to_string()}});
        state.history.push((version, kind.to_owned(), "BOOKMARK", object));
    }

    /// Forgets its history: who watches from before has to list again.
    pub fn expire(&self) {
        let mut state = self.state();
        state.expired = state.version;
        state.history.clear();
    }

    /// Cuts every watch in the middle of an event.
    pub fn cut(&self) {
        self.state().cuts += 1;
    }

    pub fn forbid(&self, forbidden: bool) {
        self.state().forbidden = forbidden;
    }

    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }
}

/// A running server.
pub struct Running {
    cluster: Cluster,
    thread: Option<JoinHandle<()>>,
    pub port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cluster.state().is_over = true;
        // The thread waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
        self.cluster.state().is_over = false;
    }
}

impl Cluster {
    /// Serves by this certificate and key, as PEM, on a port that is free or on this one.
    pub fn serve(&self, port: u16, (certificate, key): &(String, String)) -> Running {
        let certificates = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cluster, config) = (self.clone(), Arc::new(config));
        let accept = move || {
            let mut clients = Vec::new();
            for stream in listener.incoming() {
                if cluster.state().is_over {
                    break;
                }
                let (cluster, config) = (cluster.clone(), Arc::clone(&config));
                clients.push(std::thread::spawn(move || {
                    let session = ServerConnection::new(config).unwrap();
                    // A client may hang up at any time.
                    let _ = cluster.answer(&mut StreamOwned::new(session, stream.unwrap()));
                }));
            }
            clients.into_iter().for_each(|client| client.join().unwrap());
        };
        Running { cluster: self.clone(), thread: Some(std::thread::spawn(accept)), port }
    }

    fn answer(&self, stream: &mut StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
        stream.sock.set_read_timeout(Some(STEP))?;
        while let Some(head) = self.head(stream)? {
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let url = url(&target);
            let kind = url.0.rsplit('/').next().unwrap().to_owned();
            self.state().requests.push(target);
            let is_known = head.contains(&format!("Bearer {TOKEN}"));
            if !is_known || self.state().forbidden {
                status(
                    stream,
                    403,
                    "Forbidden",
                    &format!("{kind} is forbidden: this account may not list it"),
                )?;
            } else if url.1.contains_key("watch") {
                return self.watch(stream, &kind, &url.1);
            } else {
                self.list(stream, &kind, &url.1)?;
            }
        }
        Ok(())
    }

    /// A request's head; nothing where the server or the client is done.
    fn head(&self, stream: &mut impl Read) -> std::io::Result<Option<String>> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => head.push(byte[0]),
                Err(error) if is_timeout(&error) && !self.state().is_over => {}
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(String::from_utf8(head).unwrap()))
    }

    fn list(&self, stream: &mut impl Write, kind: &str, query: &Query) -> std::io::Result<()> {
        let state = self.state();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|((of, _), object)| of == kind && selects(query, object))
            .map(|(_, object)| object)
            .collect();
        let name = if kind == "pods" { "PodList" } else { "ServiceList" };
        let version = state.version.to_string();
        let list = json!({
            "kind": name, "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items
        });
        drop(state);
        whole(stream, "200 OK", &list)
    }

    fn watch(&self, stream: &mut impl Write, kind: &str, query: &Query) -> std::io::Result<()> {
        let mut next: u64 = query["resourceVersion"].parse().unwrap();
        let cuts = self.state().cuts;
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        stream.flush()?;
        loop {
            let state = self.state();
            let (is_cut, is_expired) = (state.cuts > cuts, next < state.expired);
            let is_over = state.is_over;
            let fresh: Vec<(u64, &'static str, Value)> = state
                .history
                .iter()
                .filter(|(version, of, what, object)| {
                    *version > next && of == kind && (*what == "BOOKMARK" || selects(query, object))
                })
                .map(|(version, _, what, object)| (*version, *what, object.clone()))
                .collect();
            drop(state);
            if is_cut {
                stream.write_all(b"40\r\n{\"type\":\"ADDED\",\"object\":{\"metadata\"")?;
                return stream.flush();
            }
            if is_over {
                return Ok(());
            }
            if is_expired {
                let gone = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "too old resource version", "reason": "Expired", "code": 410
                });
                chunk(stream, &json!({"type": "ERROR", "object": gone}))?;
                return stream.write_all(b"0\r\n\r\n").and_then(|()| stream.flush());
            }
            for (version, what, mut object) in fresh {
                next = version;
                let kind = if kind == "pods" { "Pod" } else { "Service" };
                (object["kind"], object["apiVersion"]) = (kind.into(), "v1".into());
                chunk(stream, &json!({"type": what, "object": object}))?;
            }
            std::thread::sleep(STEP);
        }
    }
}

type Query = BTreeMap<String, String>;

/// Path and query.
fn url(target: &str) -> (String, Query) {
    let url = url::Url::parse(&format!("https://cluster{target}")).unwrap();
    (url.path().to_owned(), url.query_pairs().into_owned().collect())
}

/// The one selector of fields that is known.
fn selects(query: &Query, object: &Value) -> bool {
    let Some(selector) = query.get("fieldSelector") else { return true };
    let node = selector.strip_prefix("spec.nodeName=").unwrap();
    object["spec"]["nodeName"] == node
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

fn chunk(stream: &mut impl Write, event: &Value) -> std::io::Result<()> {
    let line = format!("{event}\n");
    write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
    stream.flush()
}

fn status(stream: &mut impl Write, code: u16, reason: &str, message: &str) -> std::io::Result<()> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code
    });
    whole(stream, &format!("{code} {reason}"), &status)
}

fn whole(stream: &mut impl Write, status: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    stream.flush()
}
