//! What `replay` writes besides CSV, read back by the formats' own readers and by the tools that people use.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int16Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use features::schema::{COLUMNS, fingerprint};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use program::{Run, replay};

fn captures(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    if !folder.is_dir() {
        eprintln!("skipped: {test}: ../shared/pcaps is absent");
        return None;
    }
    Some(folder)
}

/// A cell as it stands in CSV.
fn text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return String::new();
    }
    match column.data_type() {
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Boolean => u8::from(column.as_boolean().value(row)).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        other => panic!("{other} is no type of ours"),
    }
}

/// Compares all cells with those of the CSV, numbers by value.
fn assert_same_rows(batches: &[RecordBatch], csv: &Run, recording: &str) {
    let rows: Vec<Vec<String>> =
        csv.rows().map(|row| row.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows.len());
    let mut want = rows.iter();
    for batch in batches {
        let schema = batch.schema();
        assert_eq!(schema.fields().len(), COLUMNS.len() + 1);
        for row in 0..batch.num_rows() {
            let want = want.next().unwrap();
            for (place, want) in want.iter().enumerate() {
                let got = text(batch.column(place), row);
                let same = got == *want
                    || matches!((got.parse::<f64>(), want.parse::<f64>()), (Ok(a), Ok(b)) if a.to_bits() == b.to_bits());
                assert!(same, "{}: {got} is not {want}", COLUMNS[place].name);
            }
            assert_eq!(text(batch.column(COLUMNS.len()), row), recording);
        }
    }
}

fn read_parquet(bytes: Vec<u8>) -> Vec<RecordBatch> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.reopen().unwrap()).unwrap();
    let pairs: BTreeMap<String, Option<String>> = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect();
    assert_eq!(pairs["faultline.schema_fingerprint"].as_deref(), Some(fingerprint()));
    assert_eq!(pairs["faultline.window_s"].as_deref(), Some("5"));
    let count = |key: &str| pairs[key].as_deref().unwrap().parse::<u64>().unwrap();
    assert_eq!(
        count("faultline.l7_joined"),
        count("faultline.l7_seen"),
        "payload's messages find their packets"
    );
    assert!(count("faultline.l7_seen") > 0);
    for (field, column) in builder.schema().fields().iter().zip(&COLUMNS) {
        assert_eq!(field.name(), column.name);
        assert_eq!(field.metadata()["unit"], column.unit);
        assert_eq!(field.metadata()["definition"], column.definition);
    }
    builder.build().unwrap().map(Result::unwrap).collect()
}

/// Captures that fill columns of all groups that packets fill.
const NAMES: [&str; 3] = ["tls-subjectaltname__input.pcap", "206_example_b.pcap", "methods.pcap"];

#[test]
fn parquet_and_arrow_hold_the_rows_of_the_csv() {
    let Some(folder) = captures("parquet_and_arrow_hold_the_rows_of_the_csv") else { return };
    for name in NAMES {
        let file = folder.join(name);
        let file = file.to_str().unwrap();
        let csv = replay(&[file]);
        let parquet = replay(&[file, "--format", "parquet"]);
        assert_eq!(parquet.code, 0, "{}", parquet.stderr);
        assert_same_rows(&read_parquet(parquet.stdout.clone()), &csv, name);
        let arrow = replay(&[file, "--format", "arrow"]);
        let reader = arrow_ipc::reader::StreamReader::try_new(arrow.stdout.as_slice(), None).unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_same_rows(&batches, &csv, name);
        for threads in ["1", "2", "8"] {
            let again = replay(&[file, "--format", "parquet", "--threads", threads]);
            assert!(again.stdout == parquet.stdout, "{name}: other bytes with {threads} threads");
            let again = replay(&[file, "--format", "arrow", "--threads", threads]);
            assert!(again.stdout == arrow.stdout, "{name}: other bytes with {threads} threads");
        }
    }
}

/// A Python that can import a package: the one named by PYTHON, or python3.
fn python(test: &str, package: &str) -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", &format!("import {package}")]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {test}: {python} has no {package}");
        return None;
    }
    Some(python)
}

/// Rows and packets by day and node, as a reader of tables sees them.
fn table_by(test: &str, package: &str, script: &str) {
    let Some(folder) = captures(test) else { return };
    let Some(python) = python(test, package) else { return };
    let out = tempfile::tempdir().unwrap();
    let (mut rows, mut packets) = (0, 0.0);
    for name in NAMES {
        let file = folder.join(name);
        let run = replay(&[file.to_str().unwrap(), "--out", out.path().to_str().unwrap()]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stdout.is_empty());
        let csv = replay(&[file.to_str().unwrap()]);
        rows += csv.rows().count();
        packets += csv.sum("packet_count");
    }
    let output = Command::new(python).args(["-c", script]).arg(out.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, [rows.to_string(), format!("{packets}"), "3".to_owned(), "True".to_owned()]);
}

#[test]
fn pyarrow_reads_the_folder_as_a_table() {
    table_by(
        "pyarrow_reads_the_folder_as_a_table",
        "pyarrow",
        "import sys, pyarrow.dataset as d, pyarrow.compute as c\n\
         t = d.dataset(sys.argv[1], partitioning='hive').to_table()\n\
         print(t.num_rows, c.sum(t['packet_count']), len(c.unique(t['recording'])), {'date','node'} <= set(t.column_names))",
    );
}

#[test]
fn polars_reads_the_folder_as_a_table() {
    table_by(
        "polars_reads_the_folder_as_a_table",
        "polars",
        "import sys, polars as p\n\
         t = p.scan_parquet(sys.argv[1], hive_partitioning=True).collect()\n\
         print(t.height, t['packet_count'].sum(), t['recording'].n_unique(), {'date','node'} <= set(t.columns))",
    );
}

#[test]
fn duckdb_reads_the_folder_as_a_table() {
    table_by(
        "duckdb_reads_the_folder_as_a_table",
        "duckdb",
        "import sys, duckdb\n\
         t = duckdb.sql(\"select count(*), sum(packet_count)::bigint, count(distinct recording), bool_and(date is not null) \"\
         f\"from read_parquet('{sys.argv[1]}/**/*.parquet', hive_partitioning=true)\").fetchall()[0]\n\
         print(*t)",
    );
}

#[test]
fn a_second_run_replaces_the_files_of_the_first() {
    let Some(folder) = captures("a_second_run_replaces_the_files_of_the_first") else { return };
    let out = tempfile::tempdir().unwrap();
    let file = folder.join(NAMES[0]);
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![out.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    };
    let args = [file.to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    assert_eq!(replay(&args).code, 0);
    let first = files();
    assert!(!first.is_empty());
    assert!(first.iter().all(|(path, _)| path.extension().is_some_and(|ending| ending == "parquet")));
    assert_eq!(replay(&args).code, 0);
    assert!(files() == first, "other files or bytes");
}

/// What tshark says of each packet's headers.
fn by_tshark(file: &Path) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args([
        "-n",
        "-T",
        "fields",
        "-E",
        "occurrence=l",
        "-o",
        "ip.defragment:FALSE",
    ]);
    for field in [
        "frame.time_epoch",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "ip.proto",
        "ip.ttl",
        "ip.len",
        "tcp.srcport",
        "tcp.dstport",
        "tcp.flags",
        "tcp.seq_raw",
        "tcp.ack_raw",
        "tcp.window_size_value",
        "tcp.len",
        "tcp.options.wscale.shift",
        "tcp.options.timestamp.tsval",
        "tcp.analysis.retransmission",
        "tcp.analysis.out_of_order",
        "tcp.analysis.duplicate_ack",
        "udp.srcport",
        "udp.dstport",
        "udp.length",
    ] {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn wireshark_sees_the_same_headers_in_what_is_written_for_it() {
    let test = "wireshark_sees_the_same_headers_in_what_is_written_for_it";
    let Some(folder) = captures(test) else { return };
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("skipped: {test}: tshark is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for name in [
        "tls-subjectaltname__input.pcap",
        "206_example_b.pcap",
        "fix2.pcap",
        "syn_retransmit_with_ts.pcap",
        "timestamp.pcap",
    ] {
        let (file, made) = (folder.join(name), directory.path().join(name));
        let run = replay(&[file.to_str().unwrap(), "--to-pcapng", made.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        // Other packets than IP's are not written; nor can they be compared.
        let is_ip = |line: &String| line.split('\t').skip(1).take(4).any(|address| !address.is_empty());
        let theirs: Vec<String> = by_tshark(&file).into_iter().filter(is_ip).collect();
        let ours = by_tshark(&made);
        assert_eq!(theirs.len(), ours.len(), "{name}");
        // What stands in the field for the acknowledgement says nothing where the flag is not set, and is not kept.
        let known = |line: &String| -> Vec<String> {
            let mut cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let flags = u32::from_str_radix(cells[10].trim_start_matches("0x"), 16).unwrap_or(0);
            if flags & 0x10 == 0 {
                cells[12].clear();
            }
            cells
        };
        for (number, (theirs, ours)) in (1..).zip(theirs.iter().zip(&ours)) {
            assert_eq!(known(theirs), known(ours), "{name}: IP packet {number}");
        }
        compared += ours.len();
    }
    assert!(compared > 5000, "{compared} packets compared");
}

#[test]
fn packets_written_for_wireshark_give_the_same_rows() {
    let Some(folder) = captures("packets_written_for_wireshark_give_the_same_rows") else { return };
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("made.pcapng");
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if !file.extension().is_some_and(|ending| ending == "pcap" || ending == "pcapng") {
            continue;
        }
        let rows = replay(&[file.to_str().unwrap(), "--no-l7"]);
        let run = replay(&[file.to_str().unwrap(), "--to-pcapng", made.to_str().unwrap()]);
        assert_eq!(run.code, rows.code, "{}", run.stderr);
        let again = replay(&[made.to_str().unwrap(), "--no-l7", "--tunnel", "outer"]);
        for column in
            ["packet_count", "byte_count", "ack_count", "retransmission_count", "out_of_order_count"]
        {
            assert_eq!(again.sum(column), rows.sum(column), "{}: {column}", file.display());
        }
    }
}

#[test]
fn stats_sum_up_what_the_rows_hold() {
    let Some(folder) = captures("stats_sum_up_what_the_rows_hold") else { return };
    for name in NAMES {
        let file = folder.join(name);
        let file = file.to_str().unwrap();
        let rows = replay(&[file]);
        let stats = replay(&["stats", "--json", file]);
        assert_eq!(stats.code, 0, "{}", stats.stderr);
        let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
        assert_eq!(stats["packets"].as_f64().unwrap(), rows.sum("packet_count"));
        assert_eq!(stats["bytes"].as_f64().unwrap(), rows.sum("byte_count"));
        assert_eq!(stats["tcp"]["retransmissions"].as_f64().unwrap(), rows.sum("retransmission_count"));
        assert!(!stats["top_talkers"].as_array().unwrap().is_empty());
        let text = replay(&["stats", file]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains('█') && text.contains("top talkers"), "{text}");
    }
    let stats = replay(&["stats", "--json", folder.join("methods.pcap").to_str().unwrap()]);
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    let truth: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("truth.json")).unwrap()).unwrap();
    assert_eq!(stats["l7"]["http_status"], truth["methods.pcap"]["http_response_code"]);
}
