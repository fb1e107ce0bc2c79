//! `cargo xtask demo`: the whole way from recording to webhook, by the real programs, in a screen and a half.

mod live;
mod receiver;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cli::Exit;

use crate::workspace::{programs, root, say};
pub use live::{Receive, receive};
use receiver::Receiver;

/// Builds the programs, replays the recordings that come with the project, trains a model, lets it judge a
/// recording that it has not seen, and shows the webhook that arrived. As root, and where the kernel has eBPF,
/// a live round between network namespaces follows.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the live round
    #[arg(long)]
    no_live: bool,
}

/// A webhook comes after the first windows of the recording were judged; a busy machine takes longer.
const WEBHOOK_LIMIT: Duration = Duration::from_secs(60);

/// Columns of a screen.
const WIDTH: usize = 110;

/// The columns that the demo shows of the rows.
const SHOWN: [&str; 9] = [
    "timestamp",
    "flow_id",
    "dst_ip",
    "dst_port",
    "protocol",
    "packet_count",
    "retransmission_rate",
    "syn_to_synack_ratio",
    "anomaly_label",
];

/// Where the demo works, and where cargo put the programs: beside this one.
struct Stage {
    folder: PathBuf,
    programs: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let stage = Stage::set()?;
    let recordings = recordings()?;
    let has = |path: &Path, words: &[&str]| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        words.iter().all(|word| name.contains(word))
    };
    let unseen = recordings.iter().rfind(|path| has(path, &["packet-loss", "-medium-"]));
    let unseen = unseen.context("datasets/ holds no recording of packet loss")?;
    // Four of each class: enough to show the way.
    let is_learned = |path: &&PathBuf| has(path, &["-low-", "-web-"]) || has(path, &["-high-", "-web-"]);
    let learned: Vec<&PathBuf> = recordings.iter().filter(is_learned).collect();
    let rows = stage.replay(&learned)?;
    stage.train(&rows)?;
    stage.infer(unseen)?;
    if !args.no_live {
        live::run(&stage)?;
    }
    Ok(Exit::Done)
}

impl Stage {
    /// Builds the programs and empties the demo's folder.
    fn set() -> anyhow::Result<Self> {
        say("building the programs (the first time takes some minutes)")?;
        let programs = programs()?;
        let folder = root().join("target/demo");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder.join("rows"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder, programs })
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// One file of rows for each recording, because a model is judged by recordings.
    fn replay(&self, recordings: &[&PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
        say(
            "$ for r in datasets/*/*-{low,high}-*-web-*.mcap; do replay $r --window 5 > rows/$(basename $r .mcap).csv; done",
        )?;
        let mut files = Vec::new();
        let mut samples = BTreeMap::new();
        let (mut total, mut width) = (0, 0);
        for recording in recordings {
            let name = recording.file_stem().context("a recording has a name")?;
            let rows = self.folder.join("rows").join(name).with_extension("csv");
            let csv = finish(self.program("replay").arg(recording).args(["--window", "5"]))?;
            fs::write(&rows, &csv).with_context(|| format!("cannot write {}", rows.display()))?;
            let mut reader = csv::Reader::from_reader(csv.as_slice());
            let header = reader.headers()?.clone();
            let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
            total += records.len();
            width = header.len();
            records.iter().for_each(|record| sample(&header, record, &mut samples));
            files.push(rows);
        }
        say(&format!("  {} recordings, {total} rows of {width} columns, some of them:", recordings.len()))?;
        let samples: Vec<Vec<String>> = samples.into_values().map(|(_, cells)| cells).collect();
        table(&SHOWN.map(str::to_owned), &samples)?;
        Ok(files)
    }

    fn train(&self, rows: &[PathBuf]) -> anyhow::Result<()> {
        say("$ train rows/*.csv --model rf --trees 100 -o model.flm")?;
        let mut command = self.program("train");
        command.args(rows).args(["--model", "rf", "--trees", "100", "-o", "model.flm"]);
        let output = command.output().context("cannot start train")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "train ended with {}: {said}", output.status);
        indented(&said)
    }

    fn infer(&self, recording: &Path) -> anyhow::Result<()> {
        let receiver = Receiver::listen("127.0.0.1:0")?;
        let url = format!("http://{}/", receiver.address);
        let name = recording.strip_prefix(root()).unwrap_or(recording);
        say(&format!("$ infer --model model.flm --from {} --webhook {url}", name.display()))?;
        let mut command = self.program("infer");
        command.args(["--model", "model.flm", "--webhook", &url, "--from"]).arg(recording);
        let verdicts = finish(&mut command)?;
        let lines = verdicts.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        say(&format!("  {} verdicts; the first webhook that arrived:", lines.count()))?;
        let body = receiver.bodies.recv_timeout(WEBHOOK_LIMIT).context("no webhook arrived")?;
        webhook(&body)
    }
}

/// The recordings that come with the project, by path.
fn recordings() -> anyhow::Result<Vec<PathBuf>> {
    let sets = root().join("datasets");
    let mut found = Vec::new();
    for set in fs::read_dir(&sets).with_context(|| format!("cannot list {}", sets.display()))? {
        let set = set?.path();
        if set.is_dir() {
            for file in fs::read_dir(&set).with_context(|| format!("cannot list {}", set.display()))? {
                found.push(file?.path());
            }
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "mcap"));
    found.sort();
    ensure!(!found.is_empty(), "no recordings below {}", sets.display());
    Ok(found)
}

/// Runs a program to its end and returns what it printed; what it logged is told only where it failed.
fn finish(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Keeps, of each label, the row with the most packets.
fn sample(
    header: &csv::StringRecord,
    record: &csv::StringRecord,
    samples: &mut BTreeMap<String, (u64, Vec<String>)>,
) {
    let cell = |name: &str| header.iter().position(|column| column == name).and_then(|at| record.get(at));
    let packets = cell("packet_count").and_then(|count| count.parse().ok()).unwrap_or(0);
    let best = samples.entry(cell("anomaly_label").unwrap_or("").to_owned()).or_default();
    if packets > best.0 {
        let cells = SHOWN.iter().map(|name| cell(name).unwrap_or("").chars().take(12).collect());
        *best = (packets, cells.collect());
    }
}

/// Prints aligned columns.
fn table(header: &[String], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).chain([header[at].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for row in std::iter::once(header).chain(rows.iter().map(Vec::as_slice)) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        say(&format!("  {}", cells.join(" ")))?;
    }
    Ok(())
}

/// Prints a webhook's body: one line for each thing it says.
fn webhook(body: &str) -> anyhow::Result<()> {
    let value: serde_json::Value = serde_json::from_str(body).context("the webhook's body is no JSON")?;
    let members = value.as_object().context("the webhook's body is no JSON object")?;
    for (name, member) in members {
        match member.as_object() {
            None => say(&format!("  {name}: {member}"))?,
            Some(inner) => {
                say(&format!("  {name}:"))?;
                for (name, member) in inner {
                    say(&cut(&format!("    {name}: {member}")))?;
                }
            }
        }
    }
    Ok(())
}

/// The line as far as a screen shows it; the dots say that it goes on.
fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

fn indented(text: &str) -> anyhow::Result<()> {
    text.trim_end()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .try_for_each(|line| say(&cut(&format!("  {line}"))))
}
