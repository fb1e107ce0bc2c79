//! Exported models against ours, by onnxruntime where Python has it.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod noise;
mod rows;

use std::path::Path;
use std::process::Command;

use model::Model;
use noise::Noise;
use rows::recording;
use tempfile::TempDir;

/// Reads `rows.f32` and `INPUTS`, runs `model.onnx`, writes `label.i64` and `probabilities.f32`.
const SCRIPT: &str = "
import sys, numpy, onnxruntime
rows = numpy.fromfile('rows.f32', dtype='<f4').reshape(-1, int(sys.argv[1]))
session = onnxruntime.InferenceSession('model.onnx')
label, probabilities = session.run(['label', 'probabilities'], {'features': rows})
label.astype('<i8').tofile('label.i64')
probabilities.astype('<f4').tofile('probabilities.f32')
";

/// The Python to use: FAULTLINE_PYTHON, or python3.
fn python() -> String {
    std::env::var("FAULTLINE_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn has_onnxruntime() -> bool {
    let probe = Command::new(python()).args(["-c", "import numpy, onnxruntime"]).output();
    probe.is_ok_and(|output| output.status.success())
}

fn train(folder: &Path, args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_train")).current_dir(folder).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn onnxruntime_gives_the_same_labels_and_probabilities() {
    if !has_onnxruntime() {
        eprintln!(
            "skipped: onnxruntime_gives_the_same_labels_and_probabilities: {} has no numpy and onnxruntime",
            python()
        );
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut noise = Noise(5);
    let mut files = Vec::new();
    for (label, run) in [0, 2, 4].into_iter().flat_map(|label| (0..6).map(move |run| (label, run))) {
        files.push(format!("{label}-{run}.csv"));
        let text = recording(label, 0, 8, &mut noise);
        std::fs::write(folder.path().join(files.last().unwrap()), text).unwrap();
    }
    for kind in ["rf", "tree", "rules", "iforest"] {
        let mut args: Vec<&str> = files.iter().map(String::as_str).collect();
        args.extend(["--model", kind, "--trees", "100", "-o", "model.flm"]);
        train(folder.path(), &args);
        train(folder.path(), &["export", "model.flm", "--onnx", "model.onnx"]);
        compare(folder.path(), kind);
    }
}

fn compare(folder: &Path, kind: &str) {
    let model = Model::load(&folder.join("model.flm")).unwrap();
    let (inputs, classes) = (model.inputs().len(), model.classes().len());
    let mut noise = Noise(17);
    #[allow(clippy::cast_possible_truncation)]
    let rows: Vec<f32> = (0..20_000 * inputs)
        .map(|_| if noise.next() < 0.1 { f32::NAN } else { (noise.next() * 120.0) as f32 })
        .collect();
    let mut ours = vec![0.0; 20_000 * classes];
    model.predict_batch(&rows, &mut ours);
    std::fs::write(
        folder.join("rows.f32"),
        rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap();
    let inputs = inputs.to_string();
    let output = Command::new(python()).current_dir(folder).args(["-c", SCRIPT, &inputs]).output().unwrap();
    assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let theirs: Vec<f32> =
        read("probabilities.f32").as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let labels: Vec<i64> =
        read("label.i64").as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    assert_eq!((theirs.len(), labels.len()), (ours.len(), 20_000));
    let furthest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 1e-5, "{kind}: probabilities differ by {furthest}");
    let mut ties = 0;
    for (label, row) in labels.iter().zip(ours.chunks_exact(classes)) {
        let best = (0..classes).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        let near = row.iter().filter(|share| row[best] - **share < 1e-6).count();
        // Two classes whose votes are equal to the last bit may be told apart by the rounding of f32 sums.
        if i64::from(model.classes()[best].label) != *label {
            assert!(near > 1, "{kind}: labels differ");
            ties += 1;
        }
    }
    assert!(ties < 20, "{kind}: {ties} ties of 20000");
}
