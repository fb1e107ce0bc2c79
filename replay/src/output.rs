//! Where rows go.

mod arrow;
mod csv;
mod parquet;
mod pcapng;
mod sink;
mod table;

use std::io::{self, BufWriter, IsTerminal as _, Write};

use anyhow::{Context as _, Result, bail};
use features::ClosedWindow;

pub use csv::Csv;
pub use pcapng::Pcapng;
pub use sink::Sink;
pub use table::About;

use crate::args::{Args, Format};
use crate::stats::Stats;
use arrow::Arrow;
use parquet::{Parquet, Partitions};

type Stdout = BufWriter<io::Stdout>;

/// What becomes of the windows.
pub enum Output {
    Csv(Csv<Stdout>),
    Parquet(Box<Parquet<Stdout>>),
    Partitions(Box<Partitions>),
    Arrow(Box<Arrow<Stdout>>),
    Stats(Box<Stats>),
}

impl Output {
    /// What the command line asks for. `node` is that of the input, where it tells it.
    pub fn open(args: &Args, recording: String, node: &str) -> Result<Self> {
        let about = About { profile: args.profile.into(), recording, window: args.window };
        let stdout = || BufWriter::with_capacity(1 << 16, io::stdout());
        if let Some(folder) = &args.out {
            return Ok(Self::Partitions(Box::new(Partitions::new(folder, node, about))));
        }
        if args.format != Format::Csv && io::stdout().is_terminal() {
            bail!(
                "a terminal cannot show this format: redirect stdout to a file or a pipe, or give --out DIR"
            );
        }
        Ok(match args.format {
            Format::Csv => Self::Csv(Csv::new(stdout(), about.profile).context("cannot write the header")?),
            Format::Parquet => Self::Parquet(Box::new(Parquet::new(stdout(), &about)?)),
            Format::Arrow => Self::Arrow(Box::new(Arrow::new(stdout(), about)?)),
        })
    }

    pub fn write(&mut self, window: &ClosedWindow) -> Result<()> {
        match self {
            Self::Csv(csv) => csv.write(window).context("cannot write rows"),
            Self::Parquet(parquet) => parquet.write(window).context("cannot write rows"),
            Self::Partitions(partitions) => partitions.write(window),
            Self::Arrow(arrow) => arrow.write(window).context("cannot write rows"),
            Self::Stats(stats) => {
                stats.window(window);
                Ok(())
            }
        }
    }

    /// Hands on the rows so far, as far as the format allows.
    pub fn flush(&mut self) -> Result<()> {
        match self {
            Self::Csv(csv) => csv.flush().context("cannot write rows"),
            Self::Arrow(arrow) => arrow.flush().context("cannot write rows"),
            // These have an end that comes last.
            Self::Parquet(_) | Self::Partitions(_) | Self::Stats(_) => Ok(()),
        }
    }

    pub fn finish(self) -> Result<()> {
        match self {
            Self::Csv(csv) => csv.finish().context("cannot write rows"),
            Self::Parquet(parquet) => {
                let mut output = parquet.finish().context("cannot write rows")?;
                output.flush().context("cannot write rows")
            }
            Self::Partitions(partitions) => partitions.finish(),
            Self::Arrow(arrow) => arrow.finish().context("cannot write rows"),
            Self::Stats(stats) => stats.print(&mut io::stdout().lock()).context("cannot write the summary"),
        }
    }
}
