//! A real HTTP receiver that answers as it is told and keeps what it got.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How a request is answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Status(u16),
    RetryAfter(u16, u64),
    /// Not before the test lets it.
    Held,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
    pub status: u16,
}

impl Request {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
}

type Script = dyn Fn(usize) -> Answer + Send + Sync;

struct Shared {
    requests: Mutex<Vec<Request>>,
    script: Box<Script>,
    released: watch::Receiver<bool>,
}

pub struct Receiver {
    pub url: String,
    shared: Arc<Shared>,
    release: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Receiver {
    /// Answers the n-th request, counted from 0, as `script` says.
    pub fn start(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (release, released) = watch::channel(false);
        let shared = Arc::new(Shared { requests: Mutex::default(), script: Box::new(script), released });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let app = Router::new().route("/hook", post(take)).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, release, _runtime: runtime }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// What was answered with 2xx.
    pub fn accepted(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| (200..300).contains(&request.status)).collect()
    }

    /// Lets the held answers go.
    pub fn release(&self) {
        self.release.send(true).unwrap();
    }

    /// Waits until so many requests came.
    pub fn wait_for(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.requests().len() < count {
            assert!(Instant::now() < end, "{} of {count} requests came", self.requests().len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let place;
    let answer;
    {
        let mut requests = shared.requests.lock().unwrap();
        place = requests.len();
        answer = (shared.script)(place);
        let status = match answer {
            Answer::Status(status) | Answer::RetryAfter(status, _) => status,
            Answer::Held => 0,
        };
        requests.push(Request { headers, body: body.to_vec(), at: Instant::now(), status });
    }
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::RetryAfter(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Held => {
            let mut released = shared.released.clone();
            released.wait_for(|released| *released).await.unwrap();
            shared.requests.lock().unwrap()[place].status = 200;
            StatusCode::OK.into_response()
        }
    }
}
