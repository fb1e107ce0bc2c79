//! Labels of a recording that says which flows its fault affects, by the real program.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

/// Rows by protocol and label.
fn labelled(more: &[&str]) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/recordings");
    let file = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("04-syn-flood"))
        .unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_replay")).arg(file).args(more).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[6].to_owned(), (*cells.last().unwrap()).to_owned())
    });
    rows.collect()
}

#[test]
fn a_label_is_for_the_flows_that_the_fault_affects() {
    let (udp, flood, normal) = ("17", "4", "0");
    let count = |rows: &[(String, String)], protocol: &str, label: &str| {
        rows.iter().filter(|row| row.0 == protocol && row.1 == label).count()
    };
    let affected = labelled(&[]);
    let all = labelled(&["--labels", "all"]);
    assert_eq!(affected.len(), all.len());
    // A look-up during a SYN flood against the web server is a normal row.
    assert_eq!(count(&affected, udp, flood), 0);
    assert!(count(&affected, "6", flood) > 0 && count(&affected, "6", normal) > 0);
    assert!(count(&all, udp, flood) > 0 && count(&all, udp, normal) > 0);
}
