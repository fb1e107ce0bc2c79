//! One run: inputs through the engine to the output.

use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result};
use cli::{Exit, Interrupt};
use features::{Closing, Config, Engine};

use crate::args::Args;
use crate::input::{self, Input, Item, Merge};
use crate::output::Csv;
use crate::summary::Summary;

/// Does what the command line says.
///
/// # Errors
/// Where an input cannot be opened or the output not be written. Damage of an input is no error.
pub fn run(args: &Args) -> Result<Exit> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = args.threads {
        pool = pool.num_threads(threads.into());
    }
    pool.build().context("cannot start threads")?.install(|| replay(args, io::stdout()))
}

fn replay(args: &Args, output: impl Write) -> Result<Exit> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let paths = input::choose(&args.inputs)?;
    let inputs: Vec<Input> = paths.iter().map(|path| Input::open(path, args)).collect::<Result<_>>()?;
    let mut inputs = Merge::new(inputs);
    let mut engine = Engine::new(config(args));
    let mut output = Csv::new(BufWriter::with_capacity(1 << 16, output), args.profile.into())
        .context("cannot write the header")?;
    while let Some(item) = inputs.next()? {
        match item {
            Item::Packets(packets) => engine.push_packets(packets),
            Item::TakenPackets(packets) => engine.push_packets(&packets),
            Item::Label(time, label) => engine.label_from(time, label),
            Item::Event(event) => engine.push(&event),
        }
        drain(&mut engine, &mut output)?;
        if interrupt.is_raised() {
            tracing::warn!("interrupted: the rows written so far are of what was read so far");
            break;
        }
    }
    engine.finish();
    drain(&mut engine, &mut output)?;
    output.finish().context("cannot write rows")?;
    Ok(Summary { inputs: inputs.reports(), engine: engine.counts() }.tell())
}

fn config(args: &Args) -> Config {
    let closing = if args.as_live { Closing::Live { lateness: args.lateness } } else { Closing::default() };
    let max_flows = args.max_flows as usize;
    Config { window: args.window, closing, max_flows, label: args.label }
}

fn drain(engine: &mut Engine, output: &mut Csv<impl Write>) -> Result<()> {
    while let Some(window) = engine.next_closed() {
        output.write(&window).context("cannot write rows")?;
    }
    Ok(())
}
