//! SYN flood: connection requests from addresses that never answer, against the web server.
//!
//! `cookies`: the kernel answers with SYN cookies once its queue is full. `no-cookies`: it drops requests.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::{PacketBuilder, TcpOptionElement};
use event::Fault;
use features::Feature;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Dose, Injection, Recipe};
use crate::counters::Counters;
use crate::draw::Draw;
use crate::evidence::Evidence;
use crate::load::Session;
use crate::scene::Scene;
use crate::topology::{SERVER, SPOOFED};

pub const RECIPE: Recipe = Recipe {
    fault: Fault::SynFlood,
    mechanisms: &["cookies", "no-cookies"],
    optional: &[],
    affected: &["tcp/198.18.1.2:80"],
    shows: &[(Feature::HalfOpenConnections, 10.0)],
    own_drops: &[],
    inject,
};

/// SYNs a second: as many as fill a queue of 128 within seconds, and far more.
const PER_SECOND: [(f64, f64); 3] = [(60.0, 120.0), (200.0, 350.0), (600.0, 900.0)];
/// tcp_max_syn_backlog without cookies: small hosts have 128.
const BACKLOG: &str = "128";
/// IPPROTO_RAW: the sender writes the IP header.
const RAW: i32 = 255;

struct SynFlood {
    before: Counters,
    session: Session,
    sender: JoinHandle<io::Result<io::Result<u64>>>,
    cookies: bool,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let cookies = dose.mechanism == "cookies";
    let server = &scene.topology.server;
    server.sysctl("ipv4/tcp_syncookies", if cookies { "1" } else { "0" })?;
    server.sysctl("ipv4/tcp_max_syn_backlog", BACKLOG)?;
    let (low, high) = dose.severity.of(PER_SECOND);
    let rate = dose.draw.between(low, high);
    let before = Counters::read(server)?;
    let session = Session::new(dose.limit);
    let until = session.clone();
    let limit = dose.limit;
    let sender =
        scene.topology.client.thread("syn-flood", move || flood(rate, limit, &until, &mut dose.draw))?;
    Ok(Box::new(SynFlood { before, session, sender, cookies }))
}

impl Injection for SynFlood {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        self.session.end();
        let sent = self.sender.join().ok().context("the flood's thread panicked")??;
        let sent = sent.context("cannot send SYNs over a raw socket")?;
        let after = Counters::read(&scene.topology.server)?;
        let since = |name| after.since(&self.before, name);
        let mut evidence = Evidence::default();
        evidence.at_least("syns_sent", sent, 100);
        // The first SYNs fill the queue; of the rest most must have met a full one.
        let most_of_rest = sent.saturating_sub(256) / 2;
        let (answered, dropped) = (since("TcpExt.SyncookiesSent"), since("TcpExt.ListenDrops"));
        if self.cookies {
            evidence.at_least("syncookies_sent", answered, most_of_rest.max(1));
            evidence.note("listen_drops", dropped);
        } else {
            evidence.at_least("listen_drops", dropped, most_of_rest.max(1));
            evidence.at_most("syncookies_sent", answered, 0);
        }
        evidence.note("request_queue_full_drops", since("TcpExt.TCPReqQFullDrop"));
        Ok(evidence)
    }
}

/// Sends SYNs at that rate until the session is over, and tells how many.
fn flood(rate: f64, limit: Duration, session: &Session, draw: &mut Draw) -> io::Result<u64> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
    let target = SockAddr::from(SocketAddrV4::new(SERVER, 80));
    let start = Instant::now();
    let mut sent = 0_u64;
    while !session.is_over() {
        let elapsed = start.elapsed().min(limit).as_secs_f64();
        while (sent as f64) < rate * elapsed {
            socket.send_to(&syn(draw)?, &target)?;
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(sent)
}

/// A connection request as Linux sends it, but from nowhere.
fn syn(draw: &mut Draw) -> io::Result<Vec<u8>> {
    let source = Ipv4Addr::from(u32::from(SPOOFED) + draw.integer(1, 0xfffe));
    let port = u16::try_from(draw.integer(1024, 65_535)).unwrap_or(1024);
    let options =
        [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::SelectiveAcknowledgementPermitted];
    let builder = PacketBuilder::ipv4(source.octets(), SERVER.octets(), 64)
        .tcp(port, 80, draw.integer(0, u32::MAX), 64_240)
        .syn()
        .options(&options)
        .map_err(io::Error::other)?;
    let mut packet = Vec::with_capacity(64);
    builder.write(&mut packet, &[]).map_err(io::Error::other)?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoofed_sources_stay_in_the_range_that_the_router_drops() {
        let mut draw = Draw::new(3, "syn");
        for _ in 0..1000 {
            let packet = syn(&mut draw).unwrap();
            let headers = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
            let Some(etherparse::NetHeaders::Ipv4(ip, _)) = headers.net else { panic!("no IPv4 header") };
            assert_eq!(ip.source[..2], [198, 19]);
            let Some(etherparse::TransportHeader::Tcp(tcp)) = headers.transport else {
                panic!("no TCP header")
            };
            assert!(tcp.syn && !tcp.ack && tcp.destination_port == 80);
        }
    }
}
