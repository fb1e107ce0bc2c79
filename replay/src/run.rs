//! One run: inputs through the engine to the output.

use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result};
use cli::{Exit, Interrupt};
use dissect::{FlowNumber, L7, L7Options};
use event::L7Flow;
use features::{Closing, Config, Engine, FlowId};

use crate::args::{Args, Command};
use crate::input::{self, Ahead, Batch, Input, Item, Merge, Packets};
use crate::output::Csv;
use crate::schema;
use crate::select::Select;
use crate::summary::Summary;

/// Does what the command line says.
///
/// # Errors
/// Where an input cannot be opened or the output not be written. Damage of an input is no error.
pub fn run(args: &Args) -> Result<Exit> {
    if let Some(Command::Schema(schema)) = &args.command {
        schema::print(*schema, &mut io::stdout().lock()).context("cannot write the schema")?;
        return Ok(Exit::Done);
    }
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = args.threads {
        pool = pool.num_threads(threads.into());
    }
    pool.build().context("cannot start threads")?.install(|| replay(args, io::stdout()))
}

fn replay(args: &Args, output: impl Write) -> Result<Exit> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let paths = input::choose(&args.inputs)?;
    let named = paths.iter().map(|path| Input::open(path, args));
    let hubble = args.hubble.iter().map(|path| Input::open_hubble(path, args));
    let inputs: Vec<Input> = named.chain(hubble).collect::<Result<_>>()?;
    let output = BufWriter::with_capacity(1 << 16, output);
    let output = Csv::new(output, args.profile.into()).context("cannot write the header")?;
    let mut work = Work {
        engine: Engine::new(config(args)),
        flows: Vec::new(),
        l7: (!args.no_l7).then(|| L7::new(L7Options { redact: args.redact, ..L7Options::default() })),
        found: Vec::new(),
        output,
        select: Select::new(args),
        interrupt,
    };
    let inputs = Merge::new(inputs);
    let inputs =
        if rayon::current_num_threads() > 1 { work.read_ahead(inputs)? } else { work.read_inline(inputs)? };
    work.end()?;
    work.output.finish().context("cannot write rows")?;
    let left_out = (work.select.packets, work.select.flows);
    let l7 = work.l7.map(|l7| l7.counts()).unwrap_or_default();
    Ok(Summary { inputs: inputs.reports(), left_out, l7, engine: work.engine.counts() }.tell())
}

fn config(args: &Args) -> Config {
    let closing = if args.as_live { Closing::Live { lateness: args.lateness } } else { Closing::default() };
    let max_flows = args.max_flows as usize;
    Config { window: args.window, closing, max_flows, label: args.label }
}

struct Work<W> {
    engine: Engine,
    /// Of the packets taken in last.
    flows: Vec<FlowId>,
    /// Absent where application messages are not asked for.
    l7: Option<L7>,
    /// Messages read from payload that the engine is to have next.
    found: Vec<L7Flow>,
    output: Csv<W>,
    select: Select,
    interrupt: Interrupt,
}

impl<W: Write> Work<W> {
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
            let mut ahead = Ahead::start(scope, inputs);
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
            Item::Event(event) => self.engine.push(&event),
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
                self.found.drain(..).for_each(|flow| self.engine.push_flow(flow));
            }
            taken += count;
        }
    }

    /// No more will come.
    fn end(&mut self) -> Result<()> {
        if let Some(l7) = &mut self.l7 {
            l7.finish(&mut self.found);
            self.found.drain(..).for_each(|flow| self.engine.push_flow(flow));
        }
        self.engine.finish();
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        while let Some(window) = self.engine.next_closed() {
            self.output.write(&window).context("cannot write rows")?;
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
