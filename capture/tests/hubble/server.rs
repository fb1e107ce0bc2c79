//! A server that speaks Hubble's protocol: a ring of flows that clients replay and follow, as an agent keeps it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use hubble::proto::{
    EventType, Flow, GetFlowsRequest, GetFlowsResponse, Ip, Layer4, Layer7, LostEvent, Ports, ServerStatus,
    ServerStatusRequest, Timestamp,
};
use prost::Message as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Flows that an agent keeps by default.
const RING: usize = 4095;

/// What an agent knows; it outlives a server, as an agent's memory outlives a connection.
#[derive(Clone)]
pub struct Agent {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

struct State {
    ring: VecDeque<Vec<u8>>,
    times: VecDeque<Option<(i64, i32)>>,
    /// Number of the ring's first message, counted from the start.
    first: u64,
    capacity: usize,
    uptime: Duration,
    /// Streams begun before this was raised end, as the status says.
    generation: u64,
    end: Option<tonic::Code>,
    /// What clients asked for, in order.
    requests: Vec<GetFlowsRequest>,
    /// It takes calls and never answers.
    is_hung: bool,
}

impl Agent {
    pub fn new() -> Self {
        let state = State {
            ring: VecDeque::new(),
            times: VecDeque::new(),
            first: 0,
            capacity: RING,
            uptime: Duration::from_secs(3600),
            generation: 0,
            end: None,
            requests: Vec::new(),
            is_hung: false,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(0) }
    }

    pub fn with_capacity(self, capacity: usize) -> Self {
        self.state.lock().unwrap().capacity = capacity;
        self
    }

    pub fn push(&self, message: &GetFlowsResponse) {
        let time = message.flow.as_ref().and_then(|flow| flow.time).map(|time| (time.seconds, time.nanos));
        self.push_bytes(message.encode_to_vec(), time);
    }

    /// What no version of Hubble would send too.
    pub fn push_bytes(&self, bytes: Vec<u8>, time: Option<(i64, i32)>) {
        let mut state = self.state.lock().unwrap();
        state.ring.push_back(bytes);
        state.times.push_back(time);
        if state.ring.len() > state.capacity {
            state.ring.pop_front();
            state.times.pop_front();
            state.first += 1;
        }
        drop(state);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Ends every stream: in order, or by this status.
    pub fn end_streams(&self, status: Option<tonic::Code>) {
        let mut state = self.state.lock().unwrap();
        state.generation += 1;
        state.end = status;
        drop(state);
        self.changed.send_modify(|version| *version += 1);
    }

    /// The agent is started anew: its memory is gone.
    pub fn restart(&self) {
        let mut state = self.state.lock().unwrap();
        state.first += state.ring.len() as u64;
        state.ring.clear();
        state.times.clear();
        state.uptime = Duration::from_secs(1);
    }

    pub fn hang(&self, is_hung: bool) {
        self.state.lock().unwrap().is_hung = is_hung;
    }

    pub fn requests(&self) -> Vec<GetFlowsRequest> {
        self.state.lock().unwrap().requests.clone()
    }

    fn status(&self) -> ServerStatus {
        let state = self.state.lock().unwrap();
        ServerStatus {
            num_flows: state.ring.len() as u64,
            max_flows: state.capacity as u64,
            seen_flows: state.first + state.ring.len() as u64,
            uptime_ns: u64::try_from(state.uptime.as_nanos()).unwrap(),
            version: "1.19.0".to_owned(),
        }
    }

    /// Streams the ring from `since` on, then what comes; a slow client is told what was overwritten.
    async fn stream(self, since: Option<Timestamp>, to: mpsc::Sender<Result<Vec<u8>, Status>>) {
        let since = since.map_or((0, 0), |since| (since.seconds, since.nanos));
        let mut changed = self.changed.subscribe();
        let (mut next, generation) = {
            let state = self.state.lock().unwrap();
            let skipped = state.times.iter().take_while(|time| time.is_some_and(|time| time < since)).count();
            (state.first + skipped as u64, state.generation)
        };
        loop {
            let (message, end) = {
                let state = self.state.lock().unwrap();
                let lost = state.first.saturating_sub(next);
                let place = usize::try_from(next - next.min(state.first)).unwrap();
                let message = if lost > 0 {
                    Some(ring_loss(lost).encode_to_vec())
                } else {
                    state.ring.get(place).cloned()
                };
                next = if lost > 0 { state.first } else { next + u64::from(message.is_some()) };
                (message, (state.generation > generation).then_some(state.end))
            };
            match (message, end) {
                (_, Some(None)) => return,
                (_, Some(Some(code))) => {
                    let _ = to.send(Err(Status::new(code, "the test says so"))).await;
                    return;
                }
                (Some(message), None) => {
                    if to.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                (None, None) => {
                    tokio::select! {
                        changed = changed.changed() => if changed.is_err() { return },
                        () = to.closed() => return,
                    }
                }
            }
        }
    }
}

/// As an agent tells a client that was too slow for its ring.
pub fn ring_loss(count: u64) -> GetFlowsResponse {
    lost(3, count)
}

pub fn lost(source: i32, count: u64) -> GetFlowsResponse {
    let lost = LostEvent { source, num_events_lost: count, first: None, last: None };
    GetFlowsResponse { lost_events: Some(lost), ..GetFlowsResponse::default() }
}

/// An HTTP response of this number, `nanos` after `second`.
pub fn flow(number: u64, time: Timestamp) -> GetFlowsResponse {
    let address = |last: u8| format!("198.18.0.{last}");
    let ip = Ip { source: address(2), destination: address(1), ..Ip::default() };
    let port = u32::try_from(1024 + number % 60_000).unwrap();
    let ports = Ports { source_port: 80, destination_port: port };
    let http = hubble::proto::Http {
        code: 200,
        method: "GET".to_owned(),
        url: format!("http://shop.example/item/{number}?token=secret"),
        protocol: "HTTP/1.1".to_owned(),
        headers: vec![hubble::proto::Header {
            key: "Authorization".to_owned(),
            value: "Bearer secret".to_owned(),
        }],
    };
    let flow = Flow {
        time: Some(time),
        verdict: 1,
        ip: Some(ip),
        l4: Some(Layer4 { tcp: Some(ports), ..Layer4::default() }),
        event_type: Some(EventType { r#type: 129, sub_type: 0 }),
        l7: Some(Layer7 { r#type: 2, latency_ns: 1_500_000, http: Some(http), ..Layer7::default() }),
        uuid: format!("uuid-{number}"),
        node_name: "node-1".to_owned(),
        ..Flow::default()
    };
    GetFlowsResponse { flow: Some(Box::new(flow)), time: Some(time), ..GetFlowsResponse::default() }
}

/// A running server; dropped, it cuts every connection.
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Certificate and key of the server, and the authority that clients have to be of, as PEM.
pub struct ServerTls {
    pub identity: (String, String),
    pub client_authority: Option<String>,
}

enum Listen {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

impl Agent {
    pub fn serve_unix(&self, path: &Path) -> Running {
        let _ = std::fs::remove_file(path);
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        self.serve(Listen::Unix(listener), None, 0)
    }

    /// On a port that is free, or on this one.
    pub fn serve_tcp(&self, port: u16, tls: Option<ServerTls>) -> Running {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.serve(Listen::Tcp(listener), tls, port)
    }

    fn serve(&self, listen: Listen, tls: Option<ServerTls>, port: u16) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let agent = self.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = agent.router(tls);
                tokio::select! {
                    _ = stopped => {}
                    result = listen.serve(server) => result.unwrap(),
                }
            });
            // Connections are cut, not ended in order.
            runtime.shutdown_background();
        });
        Running { stop: Some(stop), thread: Some(thread), port }
    }

    fn router(self, tls: Option<ServerTls>) -> Router {
        let mut builder = Server::builder();
        if let Some(tls) = tls {
            let (certificate, key) = tls.identity;
            let mut config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            if let Some(authority) = tls.client_authority {
                config = config.client_ca_root(Certificate::from_pem(authority));
            }
            builder = builder.tls_config(config).unwrap();
        }
        builder.add_service(ObserverServer(self))
    }
}

impl Listen {
    async fn serve(self, router: Router) -> Result<(), tonic::transport::Error> {
        match self {
            Self::Unix(listener) => {
                listener.set_nonblocking(true).unwrap();
                let listener = UnixListener::from_std(listener).unwrap();
                router.serve_with_incoming(UnixListenerStream::new(listener)).await
            }
            Self::Tcp(listener) => {
                listener.set_nonblocking(true).unwrap();
                let listener = TcpListener::from_std(listener).unwrap();
                router.serve_with_incoming(TcpListenerStream::new(listener)).await
            }
        }
    }
}

/// Routes the calls of `observer.Observer`.
#[derive(Clone)]
struct ObserverServer(Agent);

impl NamedService for ObserverServer {
    const NAME: &'static str = "observer.Observer";
}

impl tower::Service<http::Request<Body>> for ObserverServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let agent = self.0.clone();
        Box::pin(async move {
            if agent.state.lock().unwrap().is_hung {
                std::future::pending::<()>().await;
            }
            Ok(match request.uri().path() {
                "/observer.Observer/GetFlows" => {
                    Grpc::new(RawCodec).server_streaming(GetFlows(agent), request).await
                }
                "/observer.Observer/ServerStatus" => {
                    Grpc::new(ProstCodec::default()).unary(GetStatus(agent), request).await
                }
                _ => Status::unimplemented("no such call").into_http(),
            })
        })
    }
}

struct GetFlows(Agent);

impl ServerStreamingService<GetFlowsRequest> for GetFlows {
    type Response = Vec<u8>;
    type ResponseStream = ReceiverStream<Result<Vec<u8>, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<GetFlowsRequest>) -> Self::Future {
        let agent = self.0.clone();
        Box::pin(async move {
            let request = request.into_inner();
            agent.state.lock().unwrap().requests.push(request.clone());
            let (to, messages) = mpsc::channel(16);
            tokio::spawn(agent.stream(request.since, to));
            Ok(Response::new(ReceiverStream::new(messages)))
        })
    }
}

struct GetStatus(Agent);

impl UnaryService<ServerStatusRequest> for GetStatus {
    type Response = ServerStatus;
    type Future = std::future::Ready<Result<Response<ServerStatus>, Status>>;

    fn call(&mut self, _: Request<ServerStatusRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.status())))
    }
}

/// Answers are bytes already.
struct RawCodec;
struct RawEncoder;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = GetFlowsRequest;
    type Encoder = RawEncoder;
    type Decoder = <ProstCodec<GetFlowsResponse, GetFlowsRequest> as Codec>::Decoder;

    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<GetFlowsResponse, GetFlowsRequest>::default().decoder()
    }
}

impl Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}
