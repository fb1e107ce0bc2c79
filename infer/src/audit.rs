//! The audit log: every decision as one line of JSON, each line sealed with the hash of all before it.
//!
//! A line is `{"sequence":N,"previous":"HASH","entry":{...},"hash":"HASH"}`, and its hash is the SHA-256 of the line
//! without its own `hash` field. Changing, dropping or reordering a line breaks every seal after it; cutting off
//! the end does not, which is why `infer audit verify` prints the last hash: keep it elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// `previous` of the first line.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const SEAL: &str = ",\"hash\":\"";

/// Why the log could not be written or is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("cannot {operation} the audit log {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}, line {line}: {reason}", path.display())]
    Broken { path: PathBuf, line: u64, reason: String },
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub lines: u64,
    pub last_hash: String,
    /// Bytes after the last whole line: a write that a crash cut short.
    pub torn: u64,
}

/// A log that is written.
pub struct Audit {
    path: PathBuf,
    file: File,
    sequence: u64,
    previous: String,
}

impl Audit {
    /// Opens a log to go on with, which is verified as a whole; or begins one.
    ///
    /// # Errors
    /// [`AuditError`]. A line that a crash cut short is no error: it is cut off, and the next line says so.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |operation| move |source| AuditError::File { operation, path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed("open"))?;
        let found = verify_file(&mut file, path)?;
        if found.torn > 0 {
            let length = file.metadata().map_err(failed("read"))?.len();
            file.set_len(length - found.torn).map_err(failed("mend"))?;
        }
        let (path, sequence, previous) = (path.to_owned(), found.lines, found.last_hash);
        let mut audit = Self { path, file, sequence, previous };
        if found.torn > 0 {
            audit.write(&serde_json::json!({"kind": "mended", "bytes_cut_off": found.torn}))?;
        }
        Ok(audit)
    }

    /// Appends a sealed line.
    ///
    /// # Errors
    /// [`AuditError::File`].
    pub fn write(&mut self, entry: &impl Serialize) -> Result<(), AuditError> {
        let failed = |source| AuditError::File { operation: "write", path: self.path.clone(), source };
        let entry = serde_json::to_string(entry).map_err(|error| failed(error.into()))?;
        let open = format!(
            "{{\"sequence\":{},\"previous\":\"{}\",\"entry\":{entry}",
            self.sequence + 1,
            self.previous
        );
        let hash = hash_of(&open);
        self.file.write_all(format!("{open}{SEAL}{hash}\"}}\n").as_bytes()).map_err(failed)?;
        self.sequence += 1;
        self.previous = hash;
        Ok(())
    }

    /// Waits until everything written is on the disk.
    ///
    /// # Errors
    /// [`AuditError::File`].
    pub fn sync(&self) -> Result<(), AuditError> {
        let failed = |source| AuditError::File { operation: "write", path: self.path.clone(), source };
        self.file.sync_data().map_err(failed)
    }
}

/// Checks every seal of a log.
///
/// # Errors
/// [`AuditError::Broken`] with the first line that does not fit.
pub fn verify(path: &Path) -> Result<Verified, AuditError> {
    let failed = |source| AuditError::File { operation: "open", path: path.to_owned(), source };
    verify_file(&mut File::open(path).map_err(failed)?, path)
}

fn verify_file(file: &mut File, path: &Path) -> Result<Verified, AuditError> {
    let failed = |source| AuditError::File { operation: "read", path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut reader = BufReader::new(&mut *file);
    let mut found = Verified { lines: 0, last_hash: GENESIS.to_owned(), torn: 0 };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(found);
        }
        if line.pop() != Some(b'\n') {
            found.torn = read as u64;
            return Ok(found);
        }
        let number = found.lines + 1;
        let broken = |reason: String| AuditError::Broken { path: path.to_owned(), line: number, reason };
        let text = std::str::from_utf8(&line).map_err(|_| broken("it is not text".to_owned()))?;
        found.last_hash = check_line(text, number, &found.last_hash).map_err(broken)?;
        found.lines = number;
    }
}

/// The line's hash, where the line fits after the one before.
fn check_line(line: &str, number: u64, previous: &str) -> Result<String, String> {
    let (open, seal) = line.rsplit_once(SEAL).ok_or("it has no seal")?;
    let hash = seal.strip_suffix("\"}").ok_or("its seal is not at its end")?;
    if hash_of(open) != hash {
        return Err("it was changed: its hash does not fit its content".to_owned());
    }
    let start = format!("{{\"sequence\":{number},\"previous\":\"{previous}\",\"entry\":");
    if !open.starts_with(&start) {
        return Err("it does not follow the line before: lines are missing, added or out of order".to_owned());
    }
    Ok(hash.to_owned())
}

fn hash_of(open: &str) -> String {
    Sha256::digest(open.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, count: usize) -> PathBuf {
        let path = folder.join("audit.jsonl");
        for number in 0..count {
            // Opened anew each time: a restart goes on with the chain.
            Audit::open(&path).unwrap().write(&serde_json::json!({"n": number, "text": SEAL})).unwrap();
        }
        path
    }

    #[test]
    fn a_chain_goes_on_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 5);
        assert_eq!(verify(&path).unwrap().lines, 5);
    }

    #[test]
    fn changed_dropped_and_swapped_lines_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 5);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let broken_line = |lines: &[&str]| {
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            match verify(&path) {
                Err(AuditError::Broken { line, .. }) => line,
                other => panic!("{other:?}"),
            }
        };
        let changed = lines[2].replace("\"n\":2", "\"n\":7");
        assert_eq!(broken_line(&[lines[0], lines[1], &changed, lines[3]]), 3);
        assert_eq!(broken_line(&[lines[0], lines[2], lines[3]]), 2);
        assert_eq!(broken_line(&[lines[1], lines[2]]), 1);
        assert_eq!(broken_line(&[lines[0], lines[2], lines[1]]), 2);
        assert!(Audit::open(&path).is_err(), "a broken log is not gone on with");
    }

    #[test]
    fn a_torn_line_is_mended_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 3);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert!(verify(&path).unwrap().torn > 0);
        Audit::open(&path).unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(verify(&path).unwrap().lines, 3);
        assert!(after.contains("mended"), "{after}");
    }
}
