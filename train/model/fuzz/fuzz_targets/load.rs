//! Any bytes as a model file: loading never panics, and what loads predicts probabilities.
//!
//! `cargo +nightly fuzz run load` in `train/model`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Model;
use sha2::{Digest as _, Sha256};

fuzz_target!(|bytes: &[u8]| {
    let _ = Model::from_bytes(bytes);
    if bytes.len() < 64 {
        return;
    }
    // What stands behind magic, lengths and hash must hold on its own.
    let mut sealed = bytes.to_vec();
    sealed[..12].copy_from_slice(b"\x89FLM\r\n\x1a\n\x01\0\0\0");
    let length = sealed.len() as u64;
    sealed[16..24].copy_from_slice(&length.to_le_bytes());
    let mut hasher = Sha256::new();
    hasher.update(&sealed[..32]);
    hasher.update(&sealed[64..]);
    sealed[32..64].copy_from_slice(&hasher.finalize());
    if let Ok(model) = Model::from_bytes(&sealed) {
        let row = vec![f32::NAN; model.meta().inputs.len()];
        let mut probabilities = vec![0.0; model.meta().classes.len()];
        model.predict(&row, &mut probabilities);
        assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert_eq!(Model::from_bytes(&model.to_bytes()).map(|again| again.to_bytes()).ok(), Some(model.to_bytes()));
    }
});
