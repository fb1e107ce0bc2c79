//! Application events, and names of addresses.

use event::{
    DnsMessage, Duration, Event, HttpMessage, KafkaMessage, L7Flow, L7Message, L7Origin, L7Type, NameOrigin,
    Naming, TlsMessage, Verdict, Workload,
};

use super::proto::{self, l7};
use super::{BadMessage, address, address_bytes, nanos, narrow, narrow_option, times};

impl From<&L7Flow> for proto::L7 {
    fn from(flow: &L7Flow) -> Self {
        let origin = match flow.origin {
            L7Origin::Hubble => l7::Origin::Hubble,
            L7Origin::Wire => l7::Origin::Wire,
        };
        let kind = match flow.kind {
            L7Type::None => l7::Kind::None,
            L7Type::Request => l7::Kind::Request,
            L7Type::Response => l7::Kind::Response,
            L7Type::Sample => l7::Kind::Sample,
        };
        let verdict = match flow.verdict {
            None => l7::Verdict::Unspecified,
            Some(Verdict::Forwarded) => l7::Verdict::Forwarded,
            Some(Verdict::Translated) => l7::Verdict::Translated,
            Some(Verdict::Traced) => l7::Verdict::Traced,
            Some(Verdict::Redirected) => l7::Verdict::Redirected,
            Some(Verdict::Audit) => l7::Verdict::Audit,
            Some(Verdict::Error) => l7::Verdict::Error,
            Some(Verdict::Dropped) => l7::Verdict::Dropped,
        };
        Self {
            stamp: None,
            origin: origin.into(),
            kind: kind.into(),
            five_tuple: Some(flow.five_tuple.into()),
            source_translated: flow.source_translated.map(Into::into),
            is_reply: flow.is_reply,
            verdict: verdict.into(),
            drop_reason: flow.drop_reason.clone(),
            latency: flow.latency.map(nanos),
            source: workload(&flow.source),
            destination: workload(&flow.destination),
            node: flow.node.clone(),
            uuid: flow.uuid.clone(),
            message: message(&flow.message),
            naming: None,
        }
    }
}

impl From<&Naming> for proto::L7 {
    fn from(naming: &Naming) -> Self {
        let named =
            l7::Naming { address: address_bytes(naming.address), workload: workload(&naming.workload) };
        Self { naming: Some(named), ..Self::default() }
    }
}

/// Absent where nothing is known.
fn workload(workload: &Workload) -> Option<l7::Workload> {
    let Workload { namespace, pod, service, pod_origin, service_origin } = workload.clone();
    (*workload != Workload::default()).then_some(l7::Workload {
        namespace,
        pod,
        service,
        pod_origin: name_origin(pod_origin).into(),
        service_origin: name_origin(service_origin).into(),
    })
}

fn name_origin(origin: Option<NameOrigin>) -> l7::NameOrigin {
    match origin {
        None => l7::NameOrigin::Unspecified,
        Some(NameOrigin::Hubble) => l7::NameOrigin::Hubble,
        Some(NameOrigin::HubbleLabel) => l7::NameOrigin::HubbleLabel,
        Some(NameOrigin::HubbleWorkload) => l7::NameOrigin::HubbleWorkload,
        Some(NameOrigin::Kubernetes) => l7::NameOrigin::Kubernetes,
        Some(NameOrigin::File) => l7::NameOrigin::File,
    }
}

fn message(message: &L7Message) -> Option<l7::Message> {
    match message.clone() {
        L7Message::None => None,
        L7Message::Dns(DnsMessage { query, query_types, rcode, answers }) => {
            Some(l7::Message::Dns(l7::Dns {
                query,
                query_types,
                rcode: rcode.map(Into::into),
                answers: answers.map(Into::into),
            }))
        }
        L7Message::Http(HttpMessage { status, method, path, protocol, is_grpc, grpc_status }) => {
            Some(l7::Message::Http(l7::Http {
                status: status.map(Into::into),
                method,
                path,
                protocol,
                is_grpc,
                grpc_status: grpc_status.map(Into::into),
            }))
        }
        L7Message::Kafka(KafkaMessage { api_key, api_version, correlation_id, error_code, topic }) => {
            Some(l7::Message::Kafka(l7::Kafka {
                api_key: api_key.into(),
                api_version: api_version.into(),
                correlation_id,
                error_code: error_code.map(Into::into),
                topic,
            }))
        }
        L7Message::Tls(TlsMessage { server_name, version }) => {
            Some(l7::Message::Tls(l7::Tls { server_name, version: version.into() }))
        }
    }
}

/// `None` for an origin, kind or verdict that this version does not know.
pub(super) fn decode(mut message: proto::L7) -> Result<Option<Event>, BadMessage> {
    let Some(l7::Naming { address: bytes, workload }) = message.naming.take() else {
        return Ok(decode_flow(message)?.map(|flow| Event::L7(Box::new(flow))));
    };
    let (time, arrival) = times(message.stamp)?;
    let (address, workload) = (address(&bytes)?, decode_workload(workload));
    Ok(Some(Event::Naming(Box::new(Naming { time, arrival, address, workload }))))
}

fn decode_flow(flow: proto::L7) -> Result<Option<L7Flow>, BadMessage> {
    let (time, arrival) = times(flow.stamp)?;
    let origin = match flow.origin() {
        l7::Origin::Unspecified => return Ok(None),
        l7::Origin::Hubble => L7Origin::Hubble,
        l7::Origin::Wire => L7Origin::Wire,
    };
    let Ok(kind) = l7::Kind::try_from(flow.kind) else { return Ok(None) };
    let Ok(verdict) = l7::Verdict::try_from(flow.verdict) else { return Ok(None) };
    Ok(Some(L7Flow {
        time,
        arrival,
        origin,
        kind: match kind {
            l7::Kind::None => L7Type::None,
            l7::Kind::Request => L7Type::Request,
            l7::Kind::Response => L7Type::Response,
            l7::Kind::Sample => L7Type::Sample,
        },
        five_tuple: flow.five_tuple.ok_or(BadMessage::Missing("five_tuple"))?.try_into()?,
        source_translated: flow.source_translated.map(TryInto::try_into).transpose()?,
        is_reply: flow.is_reply,
        verdict: match verdict {
            l7::Verdict::Unspecified => None,
            l7::Verdict::Forwarded => Some(Verdict::Forwarded),
            l7::Verdict::Translated => Some(Verdict::Translated),
            l7::Verdict::Traced => Some(Verdict::Traced),
            l7::Verdict::Redirected => Some(Verdict::Redirected),
            l7::Verdict::Audit => Some(Verdict::Audit),
            l7::Verdict::Error => Some(Verdict::Error),
            l7::Verdict::Dropped => Some(Verdict::Dropped),
        },
        drop_reason: flow.drop_reason,
        latency: flow.latency.map(Duration::from_nanos),
        source: decode_workload(flow.source),
        destination: decode_workload(flow.destination),
        node: flow.node,
        uuid: flow.uuid,
        message: decode_message(flow.message)?,
    }))
}

fn decode_workload(workload: Option<l7::Workload>) -> Workload {
    let workload = workload.unwrap_or_default();
    Workload {
        pod_origin: decode_name_origin(workload.pod_origin()),
        service_origin: decode_name_origin(workload.service_origin()),
        namespace: workload.namespace,
        pod: workload.pod,
        service: workload.service,
    }
}

fn decode_name_origin(origin: l7::NameOrigin) -> Option<NameOrigin> {
    Some(match origin {
        l7::NameOrigin::Unspecified => return None,
        l7::NameOrigin::Hubble => NameOrigin::Hubble,
        l7::NameOrigin::HubbleLabel => NameOrigin::HubbleLabel,
        l7::NameOrigin::HubbleWorkload => NameOrigin::HubbleWorkload,
        l7::NameOrigin::Kubernetes => NameOrigin::Kubernetes,
        l7::NameOrigin::File => NameOrigin::File,
    })
}

fn decode_message(message: Option<l7::Message>) -> Result<L7Message, BadMessage> {
    Ok(match message {
        None => L7Message::None,
        Some(l7::Message::Dns(l7::Dns { query, query_types, rcode, answers })) => {
            L7Message::Dns(DnsMessage {
                query,
                query_types,
                rcode: narrow_option(rcode, "rcode")?,
                answers: narrow_option(answers, "answers")?,
            })
        }
        Some(l7::Message::Http(http)) => L7Message::Http(HttpMessage {
            status: narrow_option(http.status, "status")?,
            method: http.method,
            path: http.path,
            protocol: http.protocol,
            is_grpc: http.is_grpc,
            grpc_status: narrow_option(http.grpc_status, "grpc_status")?,
        }),
        Some(l7::Message::Kafka(kafka)) => L7Message::Kafka(KafkaMessage {
            api_key: narrow(kafka.api_key, "api_key")?,
            api_version: narrow(kafka.api_version, "api_version")?,
            correlation_id: kafka.correlation_id,
            error_code: narrow_option(kafka.error_code, "error_code")?,
            topic: kafka.topic,
        }),
        Some(l7::Message::Tls(tls)) => L7Message::Tls(TlsMessage {
            server_name: tls.server_name,
            version: narrow(tls.version, "version")?,
        }),
    })
}
