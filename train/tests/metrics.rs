//! Our scores against linfa's on the same predictions.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use linfa::prelude::ToConfusionMatrix as _;
use ndarray::Array1;
use proptest::prelude::*;
use train::evaluate::score::{PerClass, confusion, mcc};

/// linfa counts in f32.
fn near(ours: f64, theirs: f32) -> bool {
    (ours - f64::from(theirs)).abs() < 1e-4
}

proptest! {
    #[test]
    fn scores_are_linfas(rows in prop::collection::vec((0u8..5, 0u8..5), 1..300)) {
        // Every class is there and once right, so that no score is undefined.
        let (actual, predicted): (Vec<u8>, Vec<u8>) =
            rows.into_iter().chain((0..5).map(|class| (class, class))).unzip();
        let ours = confusion(&actual, &predicted, 5);
        let numbers = |classes: &[u8]| Array1::from(classes.iter().map(|class| usize::from(*class)).collect::<Vec<_>>());
        let theirs = numbers(&predicted).confusion_matrix(&numbers(&actual)).unwrap();
        let right: u64 = (0..5).map(|class| ours[class][class]).sum();
        prop_assert!(near(right as f64 / actual.len() as f64, theirs.accuracy()));
        prop_assert!(near(mcc(&ours), theirs.mcc()));
        for (class, theirs) in theirs.split_one_vs_all().into_iter().enumerate() {
            let ours = PerClass::new(class, &ours);
            // linfa 0.8 lays a class out as [[hits, false alarms], [misses, rest]] and divides by the first column for
            // precision, by the first row for recall: each is the other. Their F1 of one class is not hurt by it.
            prop_assert!(near(ours.precision().unwrap(), theirs.recall()));
            prop_assert!(near(ours.recall().unwrap(), theirs.precision()));
            prop_assert!(near(ours.f1().unwrap(), theirs.f1_score()));
        }
    }
}
