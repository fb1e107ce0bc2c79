//! Whom a row votes for: the pod where it is known, else the server's endpoint, else the node.

use std::fmt;
use std::net::IpAddr;

use event::{Fault, Label, Protocol};
use serde::{Deserialize, Serialize};

/// What an incident is about. The order is that of reports: the node first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    Node,
    Pod { namespace: String, pod: String },
    Endpoint { address: IpAddr, port: u16, protocol: u8 },
}

impl Target {
    /// The target of a row whose verdict is `label`. What is measured for the whole node (its disks) is said of
    /// the node, whoever's row it is; memory is the pod's where there is one, else the node's. A flow without
    /// ports has no server's endpoint: it speaks of the node.
    pub fn of(label: Label, pod: Option<(&str, &str)>, server: (IpAddr, u16, Protocol)) -> Self {
        let fault = label.fault();
        if fault == Some(Fault::DiskSaturation) {
            return Self::Node;
        }
        if let Some((namespace, pod)) = pod {
            return Self::Pod { namespace: namespace.to_owned(), pod: pod.to_owned() };
        }
        let (address, port, protocol) = server;
        if fault == Some(Fault::MemoryPressure) || port == 0 {
            return Self::Node;
        }
        Self::Endpoint { address, port, protocol: protocol.0 }
    }

    /// The pod's namespace; empty where there is none.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Pod { namespace, .. } => namespace,
            Self::Node | Self::Endpoint { .. } => "",
        }
    }

    /// What one cap holds for: the pods of one Deployment, StatefulSet or DaemonSet together, by the name that
    /// Kubernetes gives its pods (`web-7d4b9c5f6d-x2x9q` and `web-0` both belong to `web`).
    pub fn workload(&self) -> String {
        match self {
            Self::Pod { namespace, pod } => format!("{namespace}/{}", workload_of(pod)),
            other => other.to_string(),
        }
    }
}

/// The name of a pod's owner: without the ordinal, or without the pod's and the ReplicaSet's hash.
fn workload_of(pod: &str) -> &str {
    let Some((owner, last)) = pod.rsplit_once('-') else { return pod };
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return owner;
    }
    if last.len() != 5 || !is_hash(last) {
        return pod;
    }
    match owner.rsplit_once('-') {
        Some((deployment, hash)) if (8..=10).contains(&hash.len()) && is_hash(hash) => deployment,
        _ => owner,
    }
}

/// Kubernetes draws its hashes from letters and digits without vowels, so that they spell no word.
fn is_hash(text: &str) -> bool {
    text.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte) || byte.is_ascii_digit())
}

impl fmt::Display for Target {
    /// `node`, `pod/NAMESPACE/NAME`, `endpoint/198.18.1.2:80/6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Pod { namespace, pod } => write!(f, "pod/{namespace}/{pod}"),
            Self::Endpoint { address, port, protocol } => {
                write!(f, "endpoint/{}/{protocol}", event::Endpoint::new(*address, *port))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: (&str, u16) = ("198.18.1.2", 80);

    fn target(fault: Fault, pod: Option<(&str, &str)>, port: u16) -> String {
        Target::of(fault.into(), pod, (SERVER.0.parse().unwrap(), port, Protocol::TCP)).to_string()
    }

    #[test]
    fn a_row_speaks_of_pod_then_endpoint_then_node() {
        let pod = Some(("shop", "web-0"));
        assert_eq!(target(Fault::PacketLoss, pod, SERVER.1), "pod/shop/web-0");
        assert_eq!(target(Fault::PacketLoss, None, SERVER.1), "endpoint/198.18.1.2:80/6");
        assert_eq!(target(Fault::PacketLoss, None, 0), "node");
        assert_eq!(target(Fault::DiskSaturation, pod, SERVER.1), "node");
        assert_eq!(target(Fault::MemoryPressure, pod, SERVER.1), "pod/shop/web-0");
        assert_eq!(target(Fault::MemoryPressure, None, SERVER.1), "node");
    }

    #[test]
    fn pods_of_one_owner_are_one_workload() {
        for (pod, workload) in [
            ("web-7d4b9c5f6d-x2x9q", "web"),
            ("my-web-7d4b9c5f6d-x2x9q", "my-web"),
            ("web-0", "web"),
            ("web-12", "web"),
            ("fluentd-x2x9q", "fluentd"),
            ("web", "web"),
            ("web-front", "web-front"),
            ("web-", "web-"),
        ] {
            assert_eq!(workload_of(pod), workload, "{pod}");
        }
    }
}
