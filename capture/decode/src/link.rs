//! What rtnetlink says of the network interfaces of a namespace.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

/// What a packet on an interface starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    Ethernet,
    /// No link layer header: the IP header comes first.
    Ip,
}

impl LinkLayer {
    /// The LINKTYPE_ number that capture files know it by.
    pub const fn link_type(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::Ip => 101,
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// Absent where packets start with something that the programs cannot read.
    pub link_layer: Option<LinkLayer>,
    pub is_loopback: bool,
    /// One end of a pair whose other end is often in a container (veth, netkit).
    pub is_pair: bool,
    /// Made by software: veth, bridge, tun and the like.
    pub is_virtual: bool,
}

/// What became of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It appeared, or something about it is different.
    There(Interface),
    Gone {
        index: u32,
        name: String,
    },
}

/// An interface of an answer.
pub fn interface(link: &LinkMessage) -> Interface {
    let mut name = String::new();
    let mut kind = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Interface {
        index: link.header.index,
        name,
        link_layer: link_layer(link.header.link_layer_type),
        is_loopback: link.header.flags.contains(LinkFlags::Loopback),
        is_pair: matches!(kind, Some(InfoKind::Veth | InfoKind::Netkit)),
        is_virtual: kind.is_some(),
    }
}

const fn link_layer(kind: LinkLayerType) -> Option<LinkLayer> {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => Some(LinkLayer::Ethernet),
        // tun and wireguard, ipip, gre, sit, ip6tnl, rawip, ppp as the programs see it.
        LinkLayerType::None
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp => Some(LinkLayer::Ip),
        _ => None,
    }
}

/// The messages of one datagram.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<NetlinkPayload<RouteNetlinkMessage>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            Ok(message) => message,
            Err(error) => {
                bytes = &[];
                return Some(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        };
        // Messages start at multiples of 4 bytes.
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(Ok(message.payload))
    })
}

/// What a datagram of the kernel tells of interfaces.
///
/// # Errors
/// Where it is no sequence of rtnetlink messages.
pub fn changes_in(datagram: &[u8]) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for message in messages(datagram) {
        if let NetlinkPayload::InnerMessage(message) = message? {
            changes.extend(change(&message));
        }
    }
    Ok(changes)
}

fn change(message: &RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Change::There(interface(link))),
        RouteNetlinkMessage::DelLink(link) => {
            let Interface { index, name, .. } = interface(link);
            Some(Change::Gone { index, name })
        }
        _ => None,
    }
}
