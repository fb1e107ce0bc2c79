//! Three in a row, joined by two pairs of virtual Ethernet devices: a client; a router, which is the node that is
//! recorded; and the server, a pod of that node, as a container network has it.

use std::net::Ipv4Addr;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::node::Node;

/// All addresses are of 198.18.0.0/15, which is reserved for tests of network devices (RFC 2544).
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
/// Where spoofed packets claim to come from: the upper half of the range; the router drops what is sent there.
pub const SPOOFED: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);

/// The router's interface that leads to the server: recordings are made there.
pub const SERVER_INTERFACE: &str = "server0";

/// How TCP of both ends answers loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// Sends less: the kernel's default
    #[default]
    Cubic,
    /// Goes by the measured rate, and hides most of the loss
    Bbr,
}

/// Dropped in the order of declaration, the pod before its node: the kernel lets a node's first process end only
/// when all processes of the node are reaped, and the pod's first process is a child of ours.
pub struct Topology {
    pub client: Node,
    pub server: Node,
    pub router: Node,
}

impl Topology {
    pub fn build(congestion: Congestion) -> Result<Self> {
        let (client, router) = (Node::new("client")?, Node::new("router")?);
        let server = router.pod("server")?;
        for node in [&client, &router, &server] {
            quiet(node)?;
        }
        router.sysctl("ipv4/ip_forward", "1")?;
        link(&router, "client0", "198.18.0.1/24", &client, &format!("{CLIENT}/24"))?;
        link(&router, SERVER_INTERFACE, "198.18.1.1/24", &server, &format!("{SERVER}/24"))?;
        // Pinned: the host's default is the host's affair.
        let control = crate::proof::name(congestion);
        client.run(&format!("ip route replace default via 198.18.0.1 congctl {control}"))?;
        server.run(&format!("ip route replace default via 198.18.1.1 congctl {control}"))?;
        router.run(&format!("ip route add blackhole {SPOOFED}/16"))?;
        router.mount_proc()?;
        server.mount_proc()?;
        Ok(Self { client, server, router })
    }
}

/// No IPv6 neighbour discovery in the recordings, no filter by return path in the way of spoofed sources, and
/// nothing remembered from one connection for the next.
fn quiet(node: &Node) -> Result<()> {
    node.run("ip link set lo up")?;
    for scope in ["all", "default"] {
        node.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1")?;
        node.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
    }
    node.sysctl("ipv4/tcp_no_metrics_save", "1")
}

/// Joins `device` of the router with `eth0` of another node.
fn link(router: &Node, device: &str, address: &str, other: &Node, other_address: &str) -> Result<()> {
    let namespace = other.network_path();
    router.run(&format!("ip link add {device} type veth peer name eth0 netns {namespace}"))?;
    for (node, name, address) in [(router, device, address), (other, "eth0", other_address)] {
        // Packets of wire size: with offloads on, a recording would hold super-packets of up to 64 KiB.
        node.run(&format!("ethtool -K {name} tso off gso off gro off"))?;
        node.run(&format!("ip address add {address} dev {name}"))?;
        node.run(&format!("ip link set {name} up"))?;
    }
    Ok(())
}
