//! The two calls of Hubble's observer that are used here.

use std::time::Duration;

use http::uri::PathAndQuery;
use hubble::proto::{
    EventTypeFilter, FlowFilter, GetFlowsRequest, GetFlowsResponse, ServerStatus, ServerStatusRequest,
};
use prost::Message as _;
use prost::bytes::Buf as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// A message, or why it is none: one that cannot be decoded does not end the stream.
pub type Decoded = Result<GetFlowsResponse, prost::DecodeError>;

/// What is asked for: application messages, drops and policy verdicts. Each is a filter of its own, of which one
/// has to match; names of protocols are not asked for, as servers differ in which they know.
const EVENT_TYPES: [i32; 3] = [129, 1, 5];

/// Hubble's observer on a connection.
pub struct Observer {
    grpc: Grpc<Channel>,
    /// How long an answer may take.
    patience: Duration,
}

impl Observer {
    pub fn new(channel: Channel, patience: Duration) -> Self {
        Self { grpc: Grpc::new(channel), patience }
    }

    /// Flows from this time on, without an end.
    pub async fn flows(&mut self, since: hubble::proto::Timestamp) -> Result<Streaming<Decoded>, Status> {
        let filter = |r#type| FlowFilter { event_type: vec![EventTypeFilter { r#type }] };
        let request = GetFlowsRequest {
            number: 0,
            follow: true,
            whitelist: EVENT_TYPES.map(filter).into(),
            since: Some(since),
        };
        self.ready().await?;
        let path = PathAndQuery::from_static("/observer.Observer/GetFlows");
        let call = self.grpc.server_streaming(Request::new(request), path, FlowsCodec);
        // Headers come with the first flow from some servers: no limit, the check of the stream is the limit.
        Ok(call.await?.into_inner())
    }

    /// How the server does; nothing where it cannot tell.
    pub async fn status(&mut self) -> Result<Option<ServerStatus>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/observer.Observer/ServerStatus");
        let codec = ProstCodec::<ServerStatusRequest, ServerStatus>::default();
        let call = self.grpc.unary(Request::new(ServerStatusRequest {}), path, codec);
        match tokio::time::timeout(self.patience, call).await {
            Err(_) => Err(self.silence()),
            Ok(Ok(status)) => Ok(Some(status.into_inner())),
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(None),
            Ok(Err(status)) => Err(status),
        }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = tokio::time::timeout(self.patience, self.grpc.ready()).await;
        ready.map_err(|_| self.silence())?.map_err(|error| Status::from_error(error.into()))
    }

    fn silence(&self) -> Status {
        Status::deadline_exceeded(format!("no answer within {:?}", self.patience))
    }
}

struct FlowsCodec;

impl Codec for FlowsCodec {
    type Encode = GetFlowsRequest;
    type Decode = Decoded;
    type Encoder = <ProstCodec<GetFlowsRequest, GetFlowsResponse> as Codec>::Encoder;
    type Decoder = FlowsDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<GetFlowsRequest, GetFlowsResponse>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        FlowsDecoder
    }
}

struct FlowsDecoder;

impl Decoder for FlowsDecoder {
    type Item = Decoded;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Decoded>, Status> {
        // All of it is taken, whatever comes of it: the next message starts behind.
        let bytes = source.copy_to_bytes(source.remaining());
        Ok(Some(GetFlowsResponse::decode(bytes)))
    }
}
