//! Clients that a fault needs beside the background load, all of the same habit.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Dose;
use crate::draw::Draw;
use crate::load::Session;
use crate::node::Node;

/// A client that fails at once does not spin.
const LEAST_GAP: Duration = Duration::from_millis(5);

pub struct Crowd {
    session: Session,
    clients: Vec<JoinHandle<io::Result<()>>>,
}

impl Crowd {
    /// Each of the clients does `act` again and again until the crowd is told to end, or the fault's limit.
    /// Failures are what clients of a faulty server meet.
    pub fn start(
        node: &Node,
        count: u32,
        dose: &mut Dose,
        act: impl Fn(&mut Draw, &Session) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut crowd = Self { session: Session::new(dose.limit), clients: Vec::new() };
        let act = Arc::new(act);
        for index in 0..count {
            let (session, act) = (crowd.session.clone(), Arc::clone(&act));
            let name = format!("crowd-{index}");
            let mut draw = Draw::new(u64::from(dose.draw.integer(0, u32::MAX)), &name);
            crowd.clients.push(node.thread(&name, move || {
                while session.pause(LEAST_GAP) {
                    let _ = act(&mut draw, &session);
                }
            })?);
        }
        Ok(crowd)
    }

    pub fn len(&self) -> u64 {
        self.clients.len() as u64
    }

    pub fn finish(mut self) -> Result<()> {
        self.session.end();
        for client in self.clients.drain(..) {
            client.join().ok().context("a client of the fault panicked")??;
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.session.end();
    }
}
