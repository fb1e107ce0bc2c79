//! A file that is still being written, as a stream that waits at its end for more, and the files that follow it
//! where the recorder begins new ones.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cli::Interrupt;

use super::MCAP_MAGIC;

/// How often the file's end is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The recorder begins the next file of a recording as soon as it has ended one; a busy machine may take a while.
const SUCCESSION: Duration = Duration::from_secs(2);
/// Digits of a file's number, as in `trace-00001.mcap`.
const DIGITS: usize = 5;

/// Reads a file as it grows; ends where a recording has its end, or where the user says so.
pub struct Follow {
    file: File,
    interrupt: Interrupt,
    /// The last bytes read, and how many were read.
    last: [u8; MCAP_MAGIC.len()],
    read: u64,
}

impl Follow {
    pub fn open(path: &Path, interrupt: Interrupt) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, interrupt, last: [0; MCAP_MAGIC.len()], read: 0 })
    }

    /// Whether the writer of a recording has finished: the file ends as it began.
    fn is_finished(&self) -> bool {
        self.last == MCAP_MAGIC && self.read > MCAP_MAGIC.len() as u64
    }

    fn note(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        let kept = bytes.len().min(self.last.len());
        self.last.rotate_left(kept);
        let start = self.last.len() - kept;
        self.last[start..].copy_from_slice(&bytes[bytes.len() - kept..]);
    }

    fn was_cut(&mut self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() < self.file.stream_position()?)
    }
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(buffer)?;
            self.note(&buffer[..read]);
            if read > 0 || buffer.is_empty() || self.is_finished() || self.interrupt.is_raised() {
                return Ok(read);
            }
            if self.was_cut()? {
                return Err(io::Error::other("the file that is followed became shorter"));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// A file that comes after another, and how many that stood between them are gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Successor {
    pub path: PathBuf,
    pub missed: u32,
}

/// The file to begin with: the one named, or the newest of the files that the recorder made under that name.
pub fn first(path: &Path) -> PathBuf {
    if path.exists() {
        return path.to_owned();
    }
    numbered(path, &stem(path)).max().map_or_else(|| path.to_owned(), |(_, newest)| newest)
}

/// The file that follows one that has ended, once it is there; nothing where it was the last, or the user ends it.
pub fn successor(path: &Path, is_over: impl Fn() -> bool) -> Option<Successor> {
    let ended = stem(path);
    let (stem, number) = split(&ended)?;
    let asked = Instant::now();
    loop {
        let next = numbered(path, stem).filter(|(found, _)| *found > number).min();
        if let Some((found, path)) = next {
            return Some(Successor { path, missed: found - number - 1 });
        }
        if asked.elapsed() > SUCCESSION || is_over() {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// `trace-00001` as `trace` and 1.
fn split(stem: &str) -> Option<(&str, u32)> {
    let (name, number) = stem.rsplit_once('-')?;
    let is_number = number.len() >= DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Some((name, number.parse().ok()?)) } else { None }
}

/// The files `STEM-00001.mcap` and so on beside `path`, with its ending.
fn numbered<'a>(path: &'a Path, wanted: &'a str) -> impl Iterator<Item = (u32, PathBuf)> + 'a {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(move |entry| {
        let name = path.with_file_name(entry.file_name());
        let found = stem(&name);
        let (stem, number) = split(&found)?;
        (stem == wanted && name.extension() == path.extension()).then_some((number, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_each_other_by_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in
            ["a-00001.mcap", "a-00004.mcap", "a-00005.mcap", "b-00002.mcap", "a-00002.csv", "a-x.mcap"]
        {
            std::fs::write(path(name), "").unwrap();
        }
        assert_eq!(first(&path("a.mcap")), path("a-00005.mcap"));
        assert_eq!(first(&path("a-00001.mcap")), path("a-00001.mcap"));
        assert_eq!(first(&path("c.mcap")), path("c.mcap"));
        let next = |name| successor(&path(name), || true);
        assert_eq!(next("a-00004.mcap"), Some(Successor { path: path("a-00005.mcap"), missed: 0 }));
        assert_eq!(next("a-00001.mcap"), Some(Successor { path: path("a-00004.mcap"), missed: 2 }));
        assert_eq!((next("a-00005.mcap"), next("a.mcap"), next("a-x.mcap")), (None, None, None));
    }
}
