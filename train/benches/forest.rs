//! What fitting and predicting cost, as a Markdown table, beside scikit-learn on the same rows in the same run
//! where Python has it (FAULTLINE_PYTHON, or python3). Costs are CPU seconds of the whole process, so that a busy
//! machine changes them little. FAULTLINE_BENCH_SMALL leaves 100,000 rows out.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use model::Forest;
use nix::time::{ClockId, clock_gettime};
use train::data::Cells;
use train::evaluate::score;
use train::forest::random::Random;
use train::forest::{ClassWeight, FeaturesPerNode, Rows, Settings, fit};
use train::isolation;

const INPUTS: usize = 92;
const CLASSES: usize = 12;
/// Class shares from 62 % to 0.5 %, as in recordings of a node that is mostly well.
const SHARES: [f64; CLASSES] = [62.0, 10.0, 7.0, 5.0, 4.0, 3.0, 3.0, 2.0, 1.5, 1.0, 1.0, 0.5];
/// Rows of one recording share an offset, which a split by rows would let a model learn.
const ROWS_PER_GROUP: usize = 100;

struct Data {
    cells: Cells,
    classes: Vec<u8>,
}

fn uniform(random: &mut Random) -> f64 {
    random.below(1 << 53) as f64 / (1u64 << 53) as f64
}

/// The sum of twelve uniform numbers: normal enough.
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
}

/// Heavy-tailed inputs, a few of which each class moves, and a tenth of the cells not measured.
fn data(rows: usize) -> Data {
    let mut random = Random::new("bench", 1, rows as u64);
    let moves: Vec<Vec<f64>> = (0..CLASSES)
        .map(|_| {
            (0..INPUTS)
                .map(|_| if uniform(&mut random) < 0.12 { 1.5 * normal(&mut random) } else { 0.0 })
                .collect()
        })
        .collect();
    let mut columns = vec![Vec::new(); INPUTS];
    let mut classes = Vec::new();
    while classes.len() < rows {
        let class = draw_class(&mut random, classes.len() / ROWS_PER_GROUP);
        let offset: Vec<f64> = (0..INPUTS).map(|_| 0.5 * normal(&mut random)).collect();
        for _ in 0..ROWS_PER_GROUP {
            classes.push(u8::try_from(class).unwrap_or(0));
            for (input, column) in columns.iter_mut().enumerate() {
                let value = (moves[class][input] + offset[input] + normal(&mut random)).exp();
                #[allow(clippy::cast_possible_truncation)]
                column.push(if uniform(&mut random) < 0.1 { f32::NAN } else { value as f32 });
            }
        }
    }
    Data { cells: columns.into(), classes }
}

/// The first groups show every class once, and once more.
fn draw_class(random: &mut Random, group: usize) -> usize {
    if group < 2 * CLASSES {
        return group % CLASSES;
    }
    let mut at = uniform(random) * 100.0;
    SHARES
        .iter()
        .position(|share| {
            at -= share;
            at < 0.0
        })
        .unwrap_or(0)
}

/// CPU seconds of this process.
#[allow(clippy::expect_used)]
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock that Linux has");
    std::time::Duration::from(time).as_secs_f64()
}

fn settings(trees: usize, max_depth: usize) -> Settings {
    Settings {
        trees,
        max_depth,
        min_leaf: 1,
        features: FeaturesPerNode::Sqrt,
        bootstrap: true,
        class_weight: ClassWeight::None,
        seed: 1,
    }
}

#[allow(clippy::expect_used, clippy::cast_possible_truncation)]
fn fitted(data: &Data, settings: &Settings) -> Forest {
    let chosen = numbers(0..data.classes.len());
    let rows =
        Rows { cells: &data.cells, classes: &data.classes, number_of_classes: CLASSES, chosen: &chosen };
    fit(rows, settings, || ()).expect("small trees")
}

#[allow(clippy::cast_possible_truncation)] // few rows
fn numbers(rows: std::ops::Range<usize>) -> Vec<u32> {
    rows.map(|row| row as u32).collect()
}

#[allow(clippy::expect_used)]
fn rows_of(data: &Data) -> Vec<f32> {
    data.cells.rows(&numbers(0..data.classes.len())).expect("rows in memory")
}

#[allow(clippy::cast_possible_truncation)]
fn quality(forest: &Forest, data: &Data) -> f64 {
    let mut shares = vec![0.0; data.classes.len() * CLASSES];
    forest.predict_batch(&rows_of(data), INPUTS, &mut shares);
    let winner =
        |row: &[f32]| (0..CLASSES).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0) as u8;
    let predicted: Vec<u8> = shares.chunks_exact(CLASSES).map(winner).collect();
    score::macro_f1(&data.classes, &predicted, CLASSES)
}

/// A line of the table: what was measured, ours, theirs, and what is aimed at.
struct Line {
    what: String,
    ours: String,
    theirs: String,
    ratio: String,
    goal: &'static str,
}

/// The middle value; of an even number the upper of both.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Fits ours and scikit-learn's in turn on the same rows and judges both on other groups.
fn against_scikit_learn(lines: &mut Vec<Line>, rows: usize, rounds: usize) {
    let all = data(rows + rows / 4);
    #[allow(clippy::expect_used)]
    let part = |from: usize, to: usize| {
        let rows = numbers(from..to);
        let columns = (0..INPUTS).map(|input| all.cells.column(input, &rows).expect("rows in memory"));
        Data { cells: columns.collect::<Vec<_>>().into(), classes: all.classes[from..to].to_vec() }
    };
    // The first groups show every class; they are dealt to both parts.
    let (held, learned) = (part(0, rows / 4), part(rows / 4, all.classes.len()));
    let (mut seconds, mut ratios) = (Vec::new(), Vec::new());
    let mut theirs: Vec<[f64; 3]> = Vec::new();
    let mut last = None;
    for _ in 0..rounds {
        let before = cpu();
        let forest = fitted(&learned, &settings(100, 64));
        seconds.push(cpu() - before);
        last = Some(forest);
        match scikit_learn(&learned, &held) {
            Err(reason) => eprintln!("skipped: scikit-learn at {rows} rows: {reason}"),
            Ok(found) => {
                ratios.push(seconds[seconds.len() - 1] / found[0]);
                theirs.push(found);
            }
        }
    }
    let Some(forest) = last else { return };
    let of = |k: usize| median(&theirs.iter().map(|found| found[k]).collect::<Vec<_>>());
    let (macro_f1, megabytes) = (quality(&forest, &held), megabytes(&forest));
    let number = |value: f64, digits: usize| {
        if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
    };
    lines.push(Line {
        what: format!("fit {rows} rows x {INPUTS} inputs x 100 trees, CPU s"),
        ours: number(median(&seconds), 2),
        theirs: number(of(0), 2),
        ratio: number(median(&ratios), 3),
        goal: "0.15",
    });
    lines.push(Line {
        what: "macro F1 of these on other groups".to_owned(),
        ours: number(macro_f1, 3),
        theirs: number(of(1), 3),
        ratio: format!("{} apart", number((macro_f1 - of(1)).abs(), 3)),
        goal: "0.01 apart",
    });
    lines.push(Line {
        what: "model, MB".to_owned(),
        ours: number(megabytes, 2),
        theirs: number(of(2), 2),
        ratio: number(megabytes / of(2), 3),
        goal: "0.1",
    });
}

/// Nodes and distinct leaves, as they stand in the file.
fn megabytes(forest: &Forest) -> f64 {
    let mut leaves = std::collections::BTreeSet::new();
    let mut bytes = 0;
    for node in (0..forest.trees()).flat_map(|tree| forest.tree(tree)) {
        bytes += 8;
        if node.is_leaf() && leaves.insert(node.leaf_index()) {
            bytes += 2 * forest.classes();
        }
    }
    bytes as f64 / 1e6
}

const SCRIPT: &str = "
import sys, time, pickle, numpy
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
def part(name):
    rows = numpy.fromfile(f'{sys.argv[1]}/{name}.f32', dtype='<f4').reshape(-1, 92)
    return rows, numpy.fromfile(f'{sys.argv[1]}/{name}.u8', dtype='u1')
(x, y), (u, v) = part('learned'), part('held')
before = time.process_time()
forest = RandomForestClassifier(100, random_state=1, n_jobs=1).fit(x, y)
seconds = time.process_time() - before
print(seconds, f1_score(v, forest.predict(u), average='macro'), len(pickle.dumps(forest)) / 1e6)
";

/// CPU seconds, macro F1 and megabytes of the pickle.
fn scikit_learn(learned: &Data, held: &Data) -> Result<[f64; 3], String> {
    let python = std::env::var("FAULTLINE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    write(folder.path(), "learned", learned).map_err(|error| error.to_string())?;
    write(folder.path(), "held", held).map_err(|error| error.to_string())?;
    let output = Command::new(&python).args(["-c", SCRIPT]).arg(folder.path()).output();
    let output = output.map_err(|error| format!("{python}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("{python}: {}", error.lines().last().unwrap_or("no output"))
    })
}

fn write(folder: &Path, name: &str, data: &Data) -> std::io::Result<()> {
    let bytes: Vec<u8> = rows_of(data).iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.join(format!("{name}.f32")), bytes)?;
    std::fs::write(folder.join(format!("{name}.u8")), &data.classes)
}

/// One row at a time on one thread, and all rows at once; goals for the middle, the 99th part and the batch.
fn prediction(lines: &mut Vec<Line>, forest: &Forest, data: &Data, name: &str, goals: [&'static str; 3]) {
    let rows = rows_of(data);
    let mut shares = vec![0.0; forest.classes()];
    let mut micros = Vec::new();
    for row in rows.chunks_exact(INPUTS) {
        let start = Instant::now();
        forest.predict(std::hint::black_box(row), &mut shares);
        micros.push(start.elapsed().as_secs_f64() * 1e6);
        std::hint::black_box(&shares);
    }
    micros.sort_by(f64::total_cmp);
    let mut shares = vec![0.0; data.classes.len() * forest.classes()];
    let per_second: Vec<f64> = (0..5)
        .map(|_| {
            let before = cpu();
            forest.predict_batch(std::hint::black_box(&rows), INPUTS, &mut shares);
            data.classes.len() as f64 / (cpu() - before)
        })
        .collect();
    let whole = format!("{name}, depth {}", forest.depth());
    let figures = [
        (format!("{whole}: one row, us, p50"), format!("{:.1}", micros[micros.len() / 2])),
        (format!("{whole}: one row, us, p99"), format!("{:.1}", micros[micros.len() * 99 / 100])),
        (format!("{whole}: batch, rows per CPU second"), format!("{:.0}", median(&per_second))),
    ];
    for ((what, ours), goal) in figures.into_iter().zip(goals) {
        lines.push(Line { what, ours, theirs: "-".to_owned(), ratio: "-".to_owned(), goal });
    }
}

#[allow(clippy::print_stdout, clippy::expect_used, clippy::cast_possible_truncation)]
fn main() {
    // `cargo test` runs benches too, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut lines = Vec::new();
    against_scikit_learn(&mut lines, 10_000, 5);
    if std::env::var_os("FAULTLINE_BENCH_SMALL").is_none() {
        against_scikit_learn(&mut lines, 100_000, 1);
    }
    let learned = data(20_000);
    let fresh = data(10_000);
    let forest = fitted(&learned, &settings(300, 16));
    prediction(&mut lines, &forest, &fresh, "300 trees", ["15", "40", "100000"]);
    let normal: Vec<u32> = (0..20_000u32).filter(|row| learned.classes[*row as usize] == 0).collect();
    let settings = isolation::Settings { trees: 100, sample: 1024, false_alarms: 0.01, seed: 1 };
    let (forest, _) = isolation::fit(&learned.cells, &normal, &[], &settings).expect("enough rows");
    prediction(&mut lines, &forest, &fresh, "isolation forest, 100 trees", ["3", "-", "-"]);
    println!("| | Faultline | scikit-learn | ratio | goal |\n|---|--:|--:|--:|--:|");
    for Line { what, ours, theirs, ratio, goal } in lines {
        println!("| {what} | {ours} | {theirs} | {ratio} | {goal} |");
    }
}
