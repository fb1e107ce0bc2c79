//! Asks rtnetlink for the network interfaces of a namespace, and for what becomes of them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use decode::link::{changes_in, interface, messages};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use decode::link::{Change, Interface, LinkLayer};

/// A netlink datagram that carries a dump is at most this long (`NLMSG_GOODSIZE`, and 32 KiB since 4.10).
const DATAGRAM: usize = 64 << 10;

/// The interfaces of the calling thread's network namespace.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            found.push(interface(&link));
        }
    })?;
    found.sort_by_key(|interface: &Interface| interface.index);
    Ok(found)
}

/// Indices of the interfaces that default routes leave by.
pub fn uplinks() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| {
        if let RouteNetlinkMessage::NewRoute(route) = message
            && route.header.destination_prefix_length == 0
        {
            found.extend(route.attributes.iter().filter_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            }));
        }
    })?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Asks for everything of a kind, and hands over the answers.
fn dump(question: RouteNetlinkMessage, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let socket = ask(question, NLM_F_DUMP | NLM_F_REQUEST)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for answer in messages(&buffer) {
            match answer? {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => take(message),
                _ => {}
            }
        }
    }
}

/// Sends a question; the answer comes from the socket.
fn ask(question: RouteNetlinkMessage, flags: u16) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(question);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(socket)
}

/// The interfaces whose other end is in another namespace, by the id that this namespace knows it by.
pub fn outlets() -> io::Result<BTreeMap<i32, Vec<u32>>> {
    let mut found: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            for attribute in &link.attributes {
                if let LinkAttribute::LinkNetNsId(id) = attribute {
                    found.entry(*id).or_default().push(link.header.index);
                }
            }
        }
    })?;
    Ok(found)
}

/// The id that the calling thread's namespace knows another one by; none where it has no link to it.
pub fn namespace_id(namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut question = NsidMessage::default();
    // A descriptor in use is never negative.
    question.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    let socket = ask(RouteNetlinkMessage::GetNsId(question), NLM_F_REQUEST)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    socket.recv(&mut buffer, 0)?;
    for answer in messages(&buffer) {
        match answer? {
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) => {
                return Ok(answer.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Tells of interfaces that come, change and go.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    buffer: Vec<u8>,
}

/// `RTNLGRP_LINK`
const GROUP_LINK: u32 = 1;

impl Watch {
    /// Tells of what happens from now on in the calling thread's network namespace.
    pub fn start() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(GROUP_LINK)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// What happened since the last call, in order. Does not wait.
    ///
    /// # Errors
    /// `ENOBUFS` where more happened than the socket holds: ask for [`interfaces`] again.
    pub fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => changes.extend(changes_in(&self.buffer)?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_interface_of_every_namespace() {
        let found = interfaces().unwrap();
        let loopback = found.iter().find(|interface| interface.is_loopback).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.link_layer), ("lo", Some(LinkLayer::Ethernet)));
        for index in uplinks().unwrap() {
            assert!(found.iter().any(|interface| interface.index == index));
        }
    }
}
