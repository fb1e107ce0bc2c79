//! The report in a real browser, without window and without network: are the plots there, and do they fit?

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod noise;
mod rows;

use std::path::{Path, PathBuf};
use std::process::Command;

use noise::Noise;
use rows::recording;
use tempfile::TempDir;

/// Chromium, or what stands for it: the program named by CHROMIUM, or one of PATH.
fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|program| program.is_file())
}

/// Runs the browser on a page for at most two minutes.
fn open(browser: &Path, folder: &Path, page: &str, what: &str) -> String {
    let output = Command::new("timeout")
        .arg("120")
        .arg(browser)
        // Its sandbox refuses root; names do not resolve, so that a page that needs the network is seen to.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,4200"])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND")
        .arg(format!("--user-data-dir={}", folder.join("browser").display()))
        .arg(what)
        .arg(format!("file://{}", folder.join(page).display()))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Trains on twelve recordings of a manifest and writes report.html.
fn report(folder: &Path) {
    let mut noise = Noise(7);
    let (mut names, mut manifest) = (Vec::new(), String::new());
    for (label, fault) in [(0, "normal"), (2, "packet-loss"), (4, "syn-flood")] {
        for (run, severity) in ["low", "medium", "high", "low"].into_iter().enumerate() {
            let name = format!("{fault}-{run}");
            let rows = recording(label, 1_000_000, 12, &mut noise);
            std::fs::write(folder.join(format!("{name}.csv")), rows).unwrap();
            manifest += &format!(
                "[[recording]]\nfile = \"{name}.mcap\"\nfault = \"{fault}\"\nseverity = \"{severity}\"\n"
            );
            names.push(format!("{name}.csv"));
        }
    }
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(folder)
        .args(&names)
        .args(["--trees", "30", "--hold-out", "0.5", "--folds", "2", "--runs", "manifest.toml"])
        .args(["--report", "report.html"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Notes on every plot its size on the page, its marks, and how many of them stand outside of it.
const MEASURE: &str = "<script>for (const plot of document.querySelectorAll('svg')) {
  const box = plot.getBoundingClientRect();
  const marks = [...plot.querySelectorAll('path,rect,circle,polyline,text')];
  const outside = marks.map(mark => mark.getBoundingClientRect()).filter(mark =>
    mark.left < box.left - 1 || mark.right > box.right + 1 || mark.top < box.top - 1 || mark.bottom > box.bottom + 1);
  plot.outerHTML = `<p>plot ${plot.getAttribute('class')} ${Math.round(box.width)} ${Math.round(box.height)} ` +
    `${marks.length} ${outside.length} end</p>`;
}</script>";

#[test]
fn a_browser_shows_every_plot_of_the_report() {
    let Some(browser) = browser() else {
        eprintln!("skipped: a_browser_shows_every_plot_of_the_report: no chromium on this machine");
        return;
    };
    let folder = TempDir::new().unwrap();
    report(folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    let measured = page.replace("</body>", &format!("{MEASURE}</body>"));
    std::fs::write(folder.path().join("measured.html"), measured).unwrap();
    let document = open(&browser, folder.path(), "measured.html", "--dump-dom");
    let mut found: Vec<&str> = Vec::new();
    // The script's own text stands behind what it wrote.
    let written = document.split("<script>").next().unwrap();
    for plot in written.split("<p>plot ").skip(1) {
        let words: Vec<&str> = plot.split(" end").next().unwrap().split(' ').collect();
        let [kind, width, height, marks, outside] = words[..] else { panic!("{plot}") };
        let number = |word: &str| word.parse::<u32>().unwrap();
        assert!(number(width) > 200 && number(height) > 40, "{kind} is {width} x {height}");
        assert!(number(marks) > 4, "{kind} has {marks} marks");
        assert_eq!(number(outside), 0, "{kind}: marks outside of the plot");
        found.push(kind);
    }
    let expected = [
        "baseline-plot",
        "severity-plot",
        "pr-curve",
        "pr-curve",
        "pr-curve",
        "reliability-plot",
        "importance-plot",
        "drift-plot",
    ];
    assert_eq!(found, expected);
    assert!(document.contains("class=\"matrix\""), "the confusion matrix");

    // A picture to look at: FAULTLINE_REPORT_PNG keeps it.
    let picture = folder.path().join("report.png");
    open(&browser, folder.path(), "report.html", &format!("--screenshot={}", picture.display()));
    let bytes = std::fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 50_000, "{} bytes", bytes.len());
    if let Some(kept) = std::env::var_os("FAULTLINE_REPORT_PNG") {
        std::fs::copy(&picture, kept).unwrap();
    }
}
