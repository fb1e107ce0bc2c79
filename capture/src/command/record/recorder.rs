//! Polls the sources, writes down what they tell, and does what it is told meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use capture::Pace;
use capture::control::{Control, Order, socket_of};
use capture::output::Output;
use capture::watch::Watch;
use cli::Interrupt;
use event::{Event, Label, Mark};

use super::Record;
use super::dump::Dumps;
use super::edit::Edit;
use super::live::Live;
use super::path::utc;

/// The sources, the output, and who may give orders.
pub(super) struct Recorder {
    pub watch: Watch,
    pub output: Output,
    pub edit: Edit,
    /// Events that came when nothing could be written any more.
    pub unwritten: u64,
    /// What comes now is counted and not written.
    has_failed: bool,
    path: PathBuf,
    control: Option<Control>,
    dump_asked: Arc<AtomicBool>,
    pub dumps: Dumps,
    live: Live,
}

impl Recorder {
    pub fn new(
        args: &Record,
        watch: Watch,
        output: Output,
        edit: Edit,
        path: PathBuf,
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
        let (dumps, live) = (Dumps::new(args.keep), Live::new());
        Ok(Self {
            watch,
            output,
            edit,
            unwritten: 0,
            has_failed: false,
            path,
            control,
            dump_asked,
            dumps,
            live,
        })
    }

    /// Records until the end or the interrupt, then stops and takes what is left. After a failure that is counted
    /// alone.
    pub fn record(&mut self, interrupt: &Interrupt, end: Option<Instant>) -> anyhow::Result<()> {
        let polled = self.poll_until(interrupt, end);
        self.live.end();
        self.has_failed = polled.is_err();
        let stopped = self.write(Watch::stop);
        polled.and(stopped)
    }

    fn poll_until(&mut self, interrupt: &Interrupt, end: Option<Instant>) -> anyhow::Result<()> {
        let mut pace = self.watch.pace();
        while !interrupt.is_raised() && end.is_none_or(|end| Instant::now() < end) {
            let count = self.write(Watch::poll)?;
            for interface in self.watch.fresh_interfaces() {
                self.output.add_interface(&interface)?;
            }
            self.obey()?;
            self.output.tick(self.watch.clock().now())?;
            self.live.tell(self.watch.packets(), &self.output)?;
            let left = end.map_or(Pace::LONGEST, |end| end.saturating_duration_since(Instant::now()));
            std::thread::sleep(pace.after(count).min(left));
        }
        Ok(())
    }

    /// Writes down what the sources tell, up to the first that cannot be written.
    fn write<T>(
        &mut self,
        ask: impl FnOnce(&mut Watch, &mut dyn FnMut(Event)) -> Result<T, capture::source::Error>,
    ) -> anyhow::Result<T> {
        let Self { watch, output, edit, unwritten, .. } = self;
        let has_failed = self.has_failed;
        let mut failure = None;
        let told = ask(watch, &mut |event| {
            let Some(event) = edit.event(event) else { return };
            if !has_failed && failure.is_none() {
                failure = output.write(&event).err();
            }
            *unwritten += u64::from(has_failed || failure.is_some());
        })?;
        failure.map_or(Ok(told), |failure| Err(failure.into()))
    }

    /// Does what was asked for since the last time.
    fn obey(&mut self) -> anyhow::Result<()> {
        if self.dump_asked.swap(false, Ordering::Relaxed) {
            let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
            let path =
                self.path.with_file_name(format!("{stem}-dump-{}.mcap", utc(self.watch.clock().now())?));
            self.dumps.start(&mut self.output, self.watch.clock().now(), path, None)?;
        }
        let Some(request) = self.control.as_ref().and_then(Control::poll) else { return Ok(()) };
        match request.order.clone() {
            Order::Mark { label, note } => {
                let time = self.watch.clock().now();
                let mark = Mark { time, arrival: time, label: label.map(Label), note };
                if let Some(mark) = self.edit.event(Event::Mark(mark)) {
                    self.output.write(&mark)?;
                }
                request.answer(Ok(format!("marked at {time}")));
            }
            Order::Dump { path } => {
                self.dumps.start(&mut self.output, self.watch.clock().now(), path, Some(request))?;
            }
        }
        Ok(())
    }
}
