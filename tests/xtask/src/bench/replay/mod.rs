//! `cargo xtask bench replay`: `replay` beside its peers, on one input.

mod input;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cli::Exit;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

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
            contender.figures.push(measure(&contender.command)?);
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

/// One run.
fn measure(command: &[OsString]) -> Result<Figures> {
    let processor = || -> Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
    };
    let (before, start) = (processor()?, Instant::now());
    let memory = wait(&mut start_it(command, Stdio::null())?)?;
    Ok(Figures { processor: processor()? - before, wall: start.elapsed().as_secs_f64(), memory })
}

fn start_it(command: &[OsString], stdin: Stdio) -> Result<Child> {
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    program.spawn().with_context(|| format!("cannot start {}", command[0].display()))
}

/// Waits for the end; gives the most memory that was in use, in MB.
fn wait(child: &mut Child) -> Result<f64> {
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0.0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        memory = most_memory(&status).unwrap_or(memory);
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(ended.success(), "the program ended with {ended}");
    Ok(memory)
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

/// What one more packet costs, by the number of flows.
fn growth(args: &Args, replay: &Path, folder: &Path) -> Result<()> {
    const PACKETS: u32 = 8_000_000;
    let mut out = std::io::stdout();
    writeln!(out, "\n| flows | ns per packet | memory MB | bytes of memory per flow |\n|---|---|---|---|")?;
    let command: Vec<OsString> = [replay.as_os_str().to_owned()]
        .into_iter()
        .chain(
            ["-qq", "--threads", "1", "--window", "86400", "--max-flows", "2000000", "-"].map(OsString::from),
        )
        .collect();
    let mut least = None;
    for flows in [1_000, 10_000, 100_000, 1_000_000] {
        let path = folder.join("flows.pcap");
        let half = input::make_flows(&path, flows, PACKETS)?;
        let runs = (0..args.runs).map(|_| second_half(&command, &path, half)).collect::<Result<Vec<_>>>()?;
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        let nanoseconds = middle(&runs, |figures| figures.processor) * 1e9 / f64::from(PACKETS / 2);
        let memory = middle(&runs, |figures| figures.memory);
        let base = *least.get_or_insert(memory);
        let per_flow = (memory - base) * 1e6 / f64::from(flows);
        writeln!(out, "| {flows} | {nanoseconds:.0} | {memory:.0} | {per_flow:.0} |")?;
    }
    Ok(())
}

/// What the packets after the first `half` bytes cost a program that reads its stdin: its processor time from there to
/// the end of the input. Every flow has its record by then and no row is written before the end, so that it is packets
/// alone that are timed, and all in one run: between two runs the cost of rows and of fresh memory differs by more.
fn second_half(command: &[OsString], path: &Path, half: u64) -> Result<Figures> {
    let mut child = start_it(command, Stdio::piped())?;
    let clock = clock_getcpuclockid(Pid::from_raw(child.id().try_into()?))?;
    let mut input = child.stdin.take().context("the program has no stdin")?;
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // What the program has not read yet is at most a pipe's worth at both times.
    std::io::copy(&mut (&mut file).take(half), &mut input).context("cannot feed the program")?;
    let (before, start) = (Duration::from(clock.now()?), Instant::now());
    std::io::copy(&mut file, &mut input).context("cannot feed the program")?;
    let (processor, wall) = (Duration::from(clock.now()?) - before, start.elapsed());
    drop(input);
    let memory = wait(&mut child)?;
    Ok(Figures { processor: processor.as_secs_f64(), wall: wall.as_secs_f64(), memory })
}
