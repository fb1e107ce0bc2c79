//! `replay schema`, and the page of the guide that it makes.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::path::Path;
use std::process::Command;

fn schema(format: &str) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_replay")).args(["schema", "--format", format]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_guide_shows_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/features.md");
    let now = schema("markdown");
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let remedy = "run: replay schema --format markdown > docs/src/features.md";
    assert!(std::fs::read_to_string(&path).unwrap() == now, "{remedy}");
}

#[test]
fn every_format_has_every_column() {
    let json: serde_json::Value = serde_json::from_str(&schema("json")).unwrap();
    assert_eq!(json["columns"].as_array().unwrap().len(), features::schema::WIDTH);
    assert_eq!(json["fingerprint"], features::schema::fingerprint());
    for format in ["table", "markdown"] {
        let text = schema(format);
        assert!(features::schema::COLUMNS.iter().all(|column| text.contains(column.name)), "{format}");
    }
}
