//! Polls the sources, writes down what they tell, and does what it is told meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use capture::control::{Control, Order, socket_of};
use capture::output::Output;
use capture::source::{Source, hubble, kernel, system, tc};
use capture::{Clock, POLL_INTERVAL};
use cli::Interrupt;
use event::{Event, Label, Mark};
use recording::Interface;

use super::Record;
use super::dump::Dumps;
use super::edit::Edit;
use super::header::{described, utc};
use super::live::Live;

/// The sources, the output, and who may give orders.
pub(super) struct Recorder {
    pub source: tc::Tc,
    pub kernel: Option<kernel::Kernel>,
    system: Option<system::System>,
    pub hubble: Option<hubble::Hubble>,
    pub output: Output,
    pub edit: Edit,
    /// Events that came when nothing could be written any more.
    pub unwritten: u64,
    /// What comes now is counted and not written.
    has_failed: bool,
    path: PathBuf,
    clock: Clock,
    /// Interfaces that the output has.
    interfaces: usize,
    control: Option<Control>,
    dump_asked: Arc<AtomicBool>,
    pub dumps: Dumps,
    live: Live,
}

impl Recorder {
    pub fn new(
        args: &Record,
        source: tc::Tc,
        kernel: Option<kernel::Kernel>,
        output: Output,
        edit: Edit,
        path: PathBuf,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let socket = args.socket.clone().unwrap_or_else(|| socket_of(&path));
        let control = Control::listen(&socket)
            .map_err(|error| {
                tracing::warn!("{}: {error}: marks and dumps cannot be asked for", socket.display())
            })
            .ok();
        let dump_asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&dump_asked))
            .context("cannot listen to SIGUSR1")?;
        let mut recorder = Self {
            interfaces: source.interfaces().count(),
            system: args.system(clock)?,
            hubble: args.application.hubble(clock)?,
            source,
            kernel,
            output,
            edit,
            unwritten: 0,
            has_failed: false,
            path,
            clock,
            control,
            dump_asked,
            dumps: Dumps::new(args.keep),
            live: Live::new(),
        };
        recorder.place_interfaces();
        Ok(recorder)
    }

    /// Records until the end or the interrupt, then stops and takes what is left. After a failure that is counted
    /// alone.
    pub fn record(&mut self, interrupt: &Interrupt, end: Option<Instant>) -> anyhow::Result<()> {
        let polled = self.poll_until(interrupt, end);
        self.live.end();
        self.has_failed = polled.is_err();
        let stopped = self.take_from(|source, take| source.stop(take).map(|()| 0)).map(drop);
        polled.and(stopped)
    }

    fn poll_until(&mut self, interrupt: &Interrupt, end: Option<Instant>) -> anyhow::Result<()> {
        while !interrupt.is_raised() && end.is_none_or(|end| Instant::now() < end) {
            let count = self.poll()?;
            self.follow_interfaces()?;
            self.obey()?;
            self.output.tick(self.clock.now())?;
            self.live.tell(&self.source, &self.output)?;
            if count == 0 {
                let left = end.map_or(POLL_INTERVAL, |end| end.saturating_duration_since(Instant::now()));
                std::thread::sleep(left.min(POLL_INTERVAL));
            }
        }
        Ok(())
    }

    /// Writes down what the sources have; how much it was.
    fn poll(&mut self) -> anyhow::Result<usize> {
        self.take_from(|source, take| source.poll(take))
    }

    /// Asks every source for its events and writes them down, up to the first that cannot be written.
    fn take_from(
        &mut self,
        ask: impl Fn(&mut dyn Source, &mut dyn FnMut(Event)) -> Result<usize, capture::source::Error>,
    ) -> anyhow::Result<usize> {
        let Self { source, kernel, system, hubble, output, edit, unwritten, .. } = self;
        let has_failed = self.has_failed;
        let mut sources: Vec<&mut dyn Source> = vec![source];
        sources.extend(kernel.as_mut().map(|kernel| kernel as &mut dyn Source));
        sources.extend(system.as_mut().map(|system| system as &mut dyn Source));
        sources.extend(hubble.as_mut().map(|hubble| hubble as &mut dyn Source));
        let mut failure = None;
        let mut take = |event: Event| {
            let Some(event) = edit.event(event) else { return };
            if !has_failed && failure.is_none() {
                failure = output.write(&event).err();
            }
            *unwritten += u64::from(has_failed || failure.is_some());
        };
        let taken = sources.into_iter().map(|source| ask(source, &mut take)).sum::<Result<usize, _>>()?;
        failure.map_or(Ok(taken), |failure| Err(failure.into()))
    }

    /// Adds interfaces that appeared, before the first packet that names them.
    fn follow_interfaces(&mut self) -> anyhow::Result<()> {
        let fresh: Vec<Interface> = self.source.interfaces().skip(self.interfaces).map(described).collect();
        for interface in &fresh {
            self.output.add_interface(interface)?;
            self.interfaces += 1;
        }
        if !fresh.is_empty() {
            self.place_interfaces();
        }
        Ok(())
    }

    fn place_interfaces(&mut self) {
        if let Some(system) = &mut self.system {
            system.set_places(self.source.interfaces().map(|interface| interface.index).zip(0..));
        }
    }

    /// Does what was asked for since the last time.
    fn obey(&mut self) -> anyhow::Result<()> {
        if self.dump_asked.swap(false, Ordering::Relaxed) {
            let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
            let path = self.path.with_file_name(format!("{stem}-dump-{}.mcap", utc(self.clock.now())?));
            self.dumps.start(&mut self.output, self.clock.now(), path, None)?;
        }
        let Some(request) = self.control.as_ref().and_then(Control::poll) else { return Ok(()) };
        match request.order.clone() {
            Order::Mark { label, note } => {
                let time = self.clock.now();
                let mark = Mark { time, arrival: time, label: label.map(Label), note };
                if let Some(mark) = self.edit.event(Event::Mark(mark)) {
                    self.output.write(&mark)?;
                }
                request.answer(Ok(format!("marked at {time}")));
            }
            Order::Dump { path } => {
                self.dumps.start(&mut self.output, self.clock.now(), path, Some(request))?;
            }
        }
        Ok(())
    }
}
