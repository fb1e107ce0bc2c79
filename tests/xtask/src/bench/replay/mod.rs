//! `cargo xtask bench replay`: `replay` beside its peers, on one input.

mod input;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cli::Exit;
use nix::sys::resource::{UsageWho, getrusage};

use super::measure::{machine, median, release, scratch};

/// Prints the tables of docs/src/replay-speed.md. Peers run where they are installed: softflowd and libpcap-dev from
/// Debian, nfstream from PyPI
#[derive(clap::Args)]
pub struct Args {
    /// Runs of each program, of which the middle one counts
    #[arg(long, default_value_t = 5)]
    runs: usize,

    /// The Python that has nfstream [default: one that is set up below target/]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,

    /// One of the tables alone
    #[arg(long, value_enum)]
    only: Option<Table>,
}

/// The tables of the page.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Table {
    /// `replay` and its peers on one input
    Peers,
    /// What a packet costs with 1,000 to 1,000,000 flows
    Growth,
}

/// A program that reads the input.
struct Contender {
    name: String,
    command: Vec<OsString>,
    /// Runs that would take minutes are fewer.
    runs: usize,
    figures: Vec<Figures>,
}

/// What one run took.
#[derive(Clone, Copy)]
struct Figures {
    /// User and system time of all threads, in s.
    processor: f64,
    wall: f64,
    /// Most memory, in MB.
    memory: f64,
}

pub fn run(args: &Args) -> Result<Exit> {
    let replay = release(&["replay"])?.join("replay");
    let folder = scratch()?;
    if args.only != Some(Table::Growth) {
        peers(args, &replay, &folder)?;
    }
    if args.only != Some(Table::Peers) {
        growth(args, &replay, &folder)?;
    }
    Ok(Exit::Done)
}

fn peers(args: &Args, replay: &Path, folder: &Path) -> Result<()> {
    let pcap = folder.join("replay.pcap");
    let made = input::make(replay, folder, &pcap)?;
    let recording = folder.join("replay.mcap");
    input::record(&pcap, &recording)?;
    let mut contenders = contenders(args, replay, folder, &pcap, &recording)?;
    // Side by side, so that what else the machine does falls on all alike.
    for round in 0..args.runs {
        for contender in contenders.iter_mut().filter(|contender| round < contender.runs) {
            contender.figures.push(measure(&contender.command, None)?);
        }
    }
    print(&contenders, &made)
}

fn contenders(
    args: &Args,
    replay: &Path,
    folder: &Path,
    pcap: &Path,
    recording: &Path,
) -> Result<Vec<Contender>> {
    let mut all = Vec::new();
    let mut add = |name: &str, runs: usize, command: Vec<&str>, input: &Path| {
        let mut command: Vec<OsString> = command.into_iter().map(OsString::from).collect();
        command.push(input.into());
        all.push(Contender { name: name.to_owned(), command, runs, figures: Vec::new() });
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let replay = text(replay);
    let (runs, replay) = (args.runs, replay.as_str());
    if let Some(count) = counting_loop(folder)? {
        add("libpcap, a loop that counts", runs, vec![&text(&count)], pcap);
    }
    add("`replay`, all 94 features", runs, vec![replay, "-qq", "--threads", "1"], pcap);
    add("`replay --no-l7`", runs, vec![replay, "-qq", "--threads", "1", "--no-l7"], pcap);
    add("`replay`, two threads", runs, vec![replay, "-qq", "--threads", "2"], pcap);
    add("`replay` of a recording", runs, vec![replay, "-qq", "--threads", "1"], recording);
    add("`replay` of a recording, two threads", runs, vec![replay, "-qq", "--threads", "2"], recording);
    if is_there("softflowd") {
        add("softflowd (NetFlow records)", runs, vec!["softflowd", "-d", "-m", "200000", "-r"], pcap);
    } else {
        eprintln!("skipped: softflowd: it is not installed");
    }
    if let Some(python) = nfstream(args, folder) {
        const SCRIPT: &str = "import sys; from nfstream import NFStreamer\n\
            for flow in NFStreamer(source=sys.argv[1], statistical_analysis=True, n_dissections=0, n_meters=1): pass";
        add("nfstream (statistical_analysis, no DPI)", 1, vec![&text(&python), "-c", SCRIPT], pcap);
    }
    Ok(all)
}

fn is_there(program: &str) -> bool {
    let started = Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_ok()
}

fn counting_loop(folder: &Path) -> Result<Option<PathBuf>> {
    let (source, program) = (folder.join("count.c"), folder.join("count"));
    std::fs::write(&source, include_str!("count.c"))
        .with_context(|| format!("cannot write {}", source.display()))?;
    let mut compile = Command::new("gcc");
    compile.arg("-O2").arg("-o").arg(&program).arg(&source).arg("-lpcap").stderr(Stdio::null());
    if compile.status().is_ok_and(|status| status.success()) {
        return Ok(Some(program));
    }
    eprintln!("skipped: the libpcap loop: gcc or libpcap-dev is not installed");
    Ok(None)
}

/// A Python with nfstream: the one that was named, or one of our own, made where pip can.
fn nfstream(args: &Args, folder: &Path) -> Option<PathBuf> {
    let has_it = |python: &Path| {
        let import = Command::new(python).args(["-c", "import nfstream"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    let environment = folder.join("python");
    let python = args.python.clone().unwrap_or_else(|| environment.join("bin/python"));
    if !has_it(&python) && args.python.is_none() {
        let run = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let _ = run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            && run(Command::new(environment.join("bin/pip")).args(["install", "nfstream"]));
    }
    if has_it(&python) {
        return Some(python);
    }
    eprintln!("skipped: nfstream: {} does not have it", python.display());
    None
}

/// One run, with the input on stdin where one is given.
fn measure(command: &[OsString], stdin: Option<File>) -> Result<Figures> {
    let processor = || -> Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
    };
    let (before, start) = (processor()?, Instant::now());
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command[0].display()))?;
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0.0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        memory = most_memory(&status).unwrap_or(memory);
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(ended.success(), "{} ended with {ended}", command[0].display());
    Ok(Figures { processor: processor()? - before, wall: start.elapsed().as_secs_f64(), memory })
}

/// In MB; gone with the process.
fn most_memory(status: &str) -> Option<f64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0 / 1e6)
}

fn middle(figures: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    median(&mut figures.iter().map(of).collect::<Vec<_>>())
}

fn print(contenders: &[Contender], input: &input::Input) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}\n", machine()?)?;
    writeln!(
        out,
        "{} packets and {} flows in 600 s, made of {}; medians of interleaved runs\n",
        input.packets,
        input.flows,
        input.sources.join(" and ")
    )?;
    writeln!(out, "| program | processor s | million packets per processor s | wall s | memory MB |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for Contender { name, figures, .. } in contenders {
        let processor = middle(figures, |figures| figures.processor);
        let speed = input.packets as f64 / processor / 1e6;
        let (wall, memory) = (middle(figures, |f| f.wall), middle(figures, |f| f.memory));
        writeln!(out, "| {name} | {processor:.2} | {speed:.2} | {wall:.2} | {memory:.0} |")?;
    }
    Ok(())
}

/// What one more packet costs, by the number of flows: two files of the same flows and rows, one with twice the
/// packets, so that the rows' cost stands in both.
fn growth(args: &Args, replay: &Path, folder: &Path) -> Result<()> {
    const PACKETS: u32 = 8_000_000;
    let mut out = std::io::stdout();
    writeln!(out, "\n| flows | ns per packet | memory MB | bytes of memory per flow |\n|---|---|---|---|")?;
    let mut least = None;
    for flows in [1_000, 10_000, 100_000, 1_000_000] {
        let path = folder.join("flows.pcap");
        let half = input::make_flows(&path, flows, PACKETS)?;
        let short = folder.join("half.pcap");
        std::fs::copy(&path, &short).context("cannot copy the input")?;
        File::options().write(true).open(&short)?.set_len(half)?;
        let command: Vec<OsString> = [replay.as_os_str().to_owned()]
            .into_iter()
            .chain(["-qq", "--threads", "1", "--window", "86400", "-"].map(OsString::from))
            .collect();
        let (mut whole, mut halves) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            whole.push(measure(&command, Some(File::open(&path)?))?);
            halves.push(measure(&command, Some(File::open(&short)?))?);
        }
        let processor = |figures: &[Figures]| middle(figures, |figures| figures.processor);
        let nanoseconds = (processor(&whole) - processor(&halves)) * 1e9 / f64::from(PACKETS / 2);
        let memory = middle(&whole, |figures| figures.memory);
        let base = *least.get_or_insert(memory);
        let per_flow = (memory - base) * 1e6 / f64::from(flows);
        writeln!(out, "| {flows} | {nanoseconds:.0} | {memory:.0} | {per_flow:.0} |")?;
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(&short);
    }
    Ok(())
}
