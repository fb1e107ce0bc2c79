//! One run: inputs through the engine to the output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use cli::{Exit, Interrupt};
use dissect::{FlowNumber, L7, L7Options};
use event::{Event, L7Flow, NameMap};
use features::{Closing, Config, Engine, FlowId};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::args::{Args, Command};
use crate::coverage::CoverageFile;
use crate::input::{self, Ahead, Batch, Input, Item, Merge, Packets};
use crate::output::{Output, Pcapng, Sink};
use crate::schema;
use crate::select::Select;
use crate::stats::Stats;
use crate::summary::{self, Summary};

/// Does what the command line says.
///
/// # Errors
/// Where an input cannot be opened or the output not be written. Damage of an input is no error.
pub fn run(args: &Args) -> Result<Exit> {
    match &args.command {
        Some(Command::Schema(schema)) => {
            schema::print(*schema, &mut io::stdout().lock()).context("cannot write the schema")?;
            Ok(Exit::Done)
        }
        Some(Command::Stats(stats)) => {
            let summary = |name| Stats::new(name, stats.window, stats.top.into(), stats.json);
            in_threads(args, |threads| {
                replay(&stats.reading(), threads, |name, _| Ok(Output::Stats(Box::new(summary(name)))))
            })
        }
        None if args.to_pcapng.is_some() => export(args),
        None => {
            in_threads(args, |threads| replay(args, threads, |name, node| Output::open(args, name, node)))
        }
    }
}

/// The threads that a run has, at least one.
///
/// One does everything. With two, reading and writing each have a thread beside the one that computes, which has the
/// most to do: together they keep two processors busy. What is more than that computes too.
#[derive(Clone, Copy)]
struct Threads(usize);

impl Threads {
    fn computing(self) -> usize {
        self.0.saturating_sub(1).max(1)
    }

    /// Making rows takes about a third of what computing takes.
    fn writing(self) -> usize {
        self.0.div_ceil(4)
    }

    fn has_stages(self) -> bool {
        self.0 > 1
    }
}

fn in_threads(args: &Args, work: impl FnOnce(Threads) -> Result<Exit> + Send) -> Result<Exit> {
    let there_are = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads(args.threads.map_or_else(there_are, usize::from));
    pool(threads.computing())?.install(|| work(threads))
}

fn pool(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")
}

/// The inputs that were asked for, and the name that their rows go by.
fn open(args: &Args, interrupt: &Interrupt) -> Result<(Vec<Input>, String)> {
    let paths = input::choose(&args.inputs)?;
    let named = paths.iter().map(|path| Input::open(path, args, interrupt));
    let hubble = args.hubble.iter().map(|path| Input::open_hubble(path, args));
    let inputs = named.chain(hubble).collect::<Result<_>>()?;
    let names = paths.iter().map(|path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    Ok((inputs, names.collect::<Vec<_>>().join("+")))
}

/// Inputs through the engine to the output.
fn replay(
    args: &Args,
    threads: Threads,
    output: impl FnOnce(String, &str) -> Result<Output>,
) -> Result<Exit> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let (inputs, name) = open(args, &interrupt)?;
    let mut output = output(name, inputs.first().map_or("", Input::node))?;
    if args.follow {
        output.flush()?;
    }
    // A summary takes in what is no row, too.
    let is_apart = threads.has_stages() && !matches!(output, Output::Stats(_));
    let sink = if is_apart {
        Sink::apart(output, args.follow, threads.writing())?
    } else {
        Sink::here(output, args.follow)
    };
    let names = names(args, &inputs)?;
    let mut work = Work {
        engine: Engine::new(config(args)),
        flows: Vec::new(),
        l7: (!args.no_l7).then(|| L7::new(L7Options { redact: args.redact, ..L7Options::default() })),
        found: Vec::new(),
        sink,
        coverage: args.coverage.as_deref().map(CoverageFile::create).transpose()?,
        select: Select::new(args),
        is_live: args.follow,
        interrupt,
    };
    names.into_iter().for_each(|names| work.engine.set_names(names));
    let inputs = Merge::new(inputs);
    let read = if threads.has_stages() { work.read_ahead(inputs) } else { work.read_inline(inputs) };
    let inputs = match read {
        Ok(inputs) => inputs,
        Err(error) => {
            // What was computed before is written all the same.
            drop(work.sink.finish());
            return Err(error);
        }
    };
    // Nothing is left to be read: all threads make the rows of the windows that are still open.
    if threads.has_stages() { pool(threads.0)?.install(|| work.end()) } else { work.end() }?;
    let left_out = (work.select.packets, work.select.flows);
    let l7 = work.l7.map(|l7| l7.counts()).unwrap_or_default();
    let engine = work.engine.counts();
    if let Some(stats) = work.sink.stats() {
        stats.flows = engine.flows;
    }
    work.sink.finish()?.finish()?;
    Ok(Summary { inputs: inputs.reports(), left_out, l7, engine }.tell())
}

/// The names of addresses that were given, or those of the first recording that has some.
fn names(args: &Args, inputs: &[Input]) -> Result<Option<NameMap>> {
    if let Some(path) = &args.names {
        let failed = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(failed)?;
        return text.parse().map(Some).with_context(|| path.display().to_string());
    }
    let mut found = inputs.iter().filter_map(|input| input.names().transpose());
    found.next().transpose()
}

/// The packets of the inputs to a pcapng file.
fn export(args: &Args) -> Result<Exit> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let path = args.to_pcapng.as_deref().unwrap_or(Path::new("-"));
    let (inputs, _) = open(args, &interrupt)?;
    let names = if let [only] = inputs.as_slice() { only.interfaces() } else { Vec::new() };
    let failed = || format!("cannot write {}", path.display());
    let output: Box<dyn Write> = if path.as_os_str() == "-" {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(path).with_context(failed)?)
    };
    let mut output = Pcapng::new(BufWriter::with_capacity(1 << 16, output), names).with_context(failed)?;
    let (mut select, mut inputs) = (Select::new(args), Merge::new(inputs));
    while let Some(item) = inputs.next()?
        && !interrupt.is_raised()
    {
        let batch = match select.apply(item) {
            Item::Packets(packets) => packets.packets.to_vec(),
            Item::Taken(batch) => batch.packets,
            Item::Event(_) | Item::Label(..) | Item::Affected(..) => continue,
        };
        batch.iter().try_for_each(|packet| output.write(packet)).with_context(failed)?;
    }
    let written = output.finish().with_context(failed)?;
    Ok(summary::tell_export(&inputs.reports(), written, select.packets))
}

fn config(args: &Args) -> Config {
    let is_live = args.as_live || args.follow;
    let closing = if is_live { Closing::Live { lateness: args.lateness } } else { Closing::default() };
    let max_flows = args.max_flows as usize;
    Config { window: args.window, closing, max_flows, label: args.label }
}

struct Work {
    engine: Engine,
    /// Of the packets taken in last.
    flows: Vec<FlowId>,
    /// Absent where application messages are not asked for.
    l7: Option<L7>,
    /// Messages read from payload that the engine is to have next.
    found: Vec<L7Flow>,
    sink: Sink,
    coverage: Option<CoverageFile>,
    select: Select,
    /// Whether somebody waits for each row.
    is_live: bool,
    interrupt: Interrupt,
}

impl Work {
    fn read_inline(&mut self, mut inputs: Merge) -> Result<Merge> {
        while let Some(item) = inputs.next()? {
            self.take(item);
            self.drain()?;
            if self.is_interrupted() {
                break;
            }
        }
        Ok(inputs)
    }

    fn read_ahead(&mut self, inputs: Merge) -> Result<Merge> {
        std::thread::scope(|scope| {
            let mut ahead = Ahead::start(scope, inputs, self.is_live);
            while let Some(item) = ahead.next() {
                if let Some(emptied) = self.take(item) {
                    ahead.give_back(emptied);
                }
                self.drain()?;
                if self.is_interrupted() {
                    break;
                }
            }
            ahead.finish()
        })
    }

    /// Takes an item in; gives back a batch that can be filled again.
    fn take(&mut self, item: Item<'_>) -> Option<Batch> {
        match self.select.apply(item) {
            Item::Packets(packets) => self.packets(packets),
            Item::Taken(batch) => {
                self.packets(batch.lend());
                return Some(batch);
            }
            Item::Event(event) => {
                if let (Some(stats), Event::L7(flow)) = (self.sink.stats(), &event) {
                    stats.message(flow);
                }
                self.engine.push(&event);
            }
            Item::Label(time, label) => self.engine.label_from(time, label),
            Item::Affected(time, affected) => self.engine.affected_from(time, affected),
        }
        None
    }

    /// Packets first, then the messages in them, as far as goes before a window is closed.
    fn packets(&mut self, packets: Packets<'_>) {
        let mut taken = 0;
        while taken < packets.packets.len() {
            let count = self.engine.push_some(&packets.packets[taken..], &mut self.flows);
            if let Some(l7) = &mut self.l7 {
                for (at, flow) in (taken..taken + count).zip(&self.flows) {
                    if let Some(payload) = packets.payload(at) {
                        let number = FlowNumber { place: flow.place, birth: flow.birth };
                        l7.observe_flow(number, &packets.packets[at], payload, &mut self.found);
                    }
                }
                self.push_found();
            }
            taken += count;
        }
    }

    fn push_found(&mut self) {
        for flow in self.found.drain(..) {
            if let Some(stats) = self.sink.stats() {
                stats.message(&flow);
            }
            self.engine.push_flow(flow);
        }
    }

    /// No more will come.
    fn end(&mut self) -> Result<()> {
        if let Some(l7) = &mut self.l7 {
            l7.finish(&mut self.found);
            self.push_found();
        }
        self.engine.finish();
        self.sink.come_here()?;
        self.drain()?;
        self.coverage.as_mut().map_or(Ok(()), CoverageFile::flush)
    }

    fn drain(&mut self) -> Result<()> {
        while let Some(window) = self.engine.next_closed() {
            self.sink.write(window)?;
        }
        let covered = self.engine.take_coverage();
        if let Some(coverage) = &mut self.coverage
            && !covered.is_empty()
        {
            coverage.write(&covered)?;
            if self.is_live {
                coverage.flush()?;
            }
        }
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        let is_raised = self.interrupt.is_raised();
        if is_raised {
            tracing::warn!("interrupted: the rows are of what was read so far");
        }
        is_raised
    }
}
