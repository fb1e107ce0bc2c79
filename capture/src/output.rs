//! Where a live recording goes: one file, or pieces of one that follow each other and of which the oldest go.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use event::{Duration, Event, Timestamp};
use recording::{Error, Header, Interface, Options, Writer};

use crate::in_force::NamesInForce;

/// When a piece ends, and when it goes. The default is one file without an end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// A piece ends when it has this many bytes.
    pub piece_bytes: Option<u64>,
    /// A piece ends when it is this old.
    pub piece_span: Option<Duration>,
    /// The oldest pieces go when all together have more bytes.
    pub keep_bytes: Option<u64>,
    /// A piece goes when its last event is this old.
    pub keep_span: Option<Duration>,
}

impl Bounds {
    /// Black-box mode: the last `span` stays, and at most a tenth more.
    pub fn black_box(span: Duration) -> Self {
        let tenth = Duration::from_nanos(span.as_nanos() / 10);
        Self { piece_span: Some(tenth), keep_span: Some(span), ..Self::default() }
    }

    const fn has_pieces(&self) -> bool {
        self.piece_bytes.is_some() || self.piece_span.is_some()
    }
}

/// A finished piece.
#[derive(Clone, Debug)]
pub struct Piece {
    pub path: PathBuf,
    pub bytes: u64,
    /// When it ended.
    pub end: Timestamp,
}

/// What was written in all.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The files that are there, oldest first.
    pub pieces: Vec<Piece>,
    pub events: u64,
    pub bytes: u64,
    /// Pieces that had to go.
    pub removed: u64,
}

/// Takes events, and ends and removes pieces by their bounds.
pub struct Output {
    path: PathBuf,
    options: Options,
    bounds: Bounds,
    /// As the next piece needs it: with the interfaces that appeared since, and the label last marked.
    header: Header,
    names: NamesInForce,
    writer: Option<Writer>,
    /// When the current piece began, by the first event or tick in it.
    begun: Option<Timestamp>,
    number: u32,
    pieces: VecDeque<Piece>,
    written: Written,
}

impl Output {
    /// Creates the first file. With bounds that make pieces, `trace.mcap` becomes `trace-00001.mcap`.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn create(path: &Path, header: Header, options: Options, bounds: Bounds) -> Result<Self, Error> {
        let mut output = Self {
            path: path.to_owned(),
            options,
            bounds,
            header,
            names: NamesInForce::default(),
            writer: None,
            begun: None,
            number: 0,
            pieces: VecDeque::new(),
            written: Written::default(),
        };
        output.open_piece()?;
        Ok(output)
    }

    fn open_piece(&mut self) -> Result<&mut Writer, Error> {
        self.number += 1;
        let path =
            if self.bounds.has_pieces() { piece_path(&self.path, self.number) } else { self.path.clone() };
        let writer = Writer::create(path, &self.header, self.options)?;
        self.begun = None;
        Ok(self.writer.insert(writer))
    }

    fn writer(&mut self) -> Result<&mut Writer, Error> {
        if self.writer.is_none() {
            return self.open_piece();
        }
        // Not `if let`: the borrow would last to the end of the function.
        Ok(self.writer.as_mut().expect("it was just looked at"))
    }

    /// Takes one event in.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write(&mut self, event: &Event) -> Result<(), Error> {
        self.keep_bounds(event.arrival())?;
        if let Event::Mark(mark) = event
            && mark.label.is_some()
        {
            self.header.label = mark.label;
        }
        self.names.note(event);
        self.writer()?.write(event)?;
        self.written.events += 1;
        Ok(())
    }

    /// To be called a few times a second while no events come.
    ///
    /// # Errors
    /// As [`Writer::tick`].
    pub fn tick(&mut self, now: Timestamp) -> Result<(), Error> {
        self.keep_bounds(now)?;
        self.writer()?.tick(now)
    }

    /// Adds an interface that appeared while recording.
    ///
    /// # Errors
    /// As [`Writer::add_interface`].
    pub fn add_interface(&mut self, interface: &Interface) -> Result<u32, Error> {
        let place = self.writer()?.add_interface(interface)?;
        self.header.interfaces.push(interface.clone());
        Ok(place)
    }

    /// Ends the current piece where it is past its bounds, and removes those that are past theirs.
    fn keep_bounds(&mut self, now: Timestamp) -> Result<(), Error> {
        if !self.bounds.has_pieces() {
            return Ok(());
        }
        let begun = *self.begun.get_or_insert(now);
        let bytes = self.writer.as_ref().map_or(0, Writer::bytes_written);
        let is_long = self.bounds.piece_span.is_some_and(|span| now - begun >= span);
        let is_large = self.bounds.piece_bytes.is_some_and(|most| bytes >= most);
        if is_long || is_large {
            self.end_piece(now)?;
            self.remove_pieces(now);
            self.go_on(now)?;
        }
        Ok(())
    }

    /// Begins the next piece, which is told what is in force.
    fn go_on(&mut self, now: Timestamp) -> Result<(), Error> {
        self.open_piece()?;
        self.begun = Some(now);
        let names = self.names.clone();
        let writer = self.writer()?;
        names.told(now, now).try_for_each(|name| writer.write(&name))
    }

    fn end_piece(&mut self, now: Timestamp) -> Result<(), Error> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let path = writer.path().to_owned();
        let bytes = writer.finish()?.bytes;
        self.written.bytes += bytes;
        self.pieces.push_back(Piece { path, bytes, end: now });
        Ok(())
    }

    fn remove_pieces(&mut self, now: Timestamp) {
        let mut bytes: u64 = self.pieces.iter().map(|piece| piece.bytes).sum();
        while let Some(oldest) = self.pieces.front() {
            let is_old = self.bounds.keep_span.is_some_and(|span| now - oldest.end >= span);
            let is_much = self.bounds.keep_bytes.is_some_and(|most| bytes > most);
            if !is_old && !is_much {
                return;
            }
            if let Err(error) = fs::remove_file(&oldest.path) {
                tracing::warn!("{}: cannot be removed: {error}", oldest.path.display());
            }
            bytes -= oldest.bytes;
            self.written.removed += 1;
            self.pieces.pop_front();
        }
    }

    /// Ends the current piece and begins another: the pieces up to now, oldest first. They stay until they are past
    /// their bounds.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn pieces_until(&mut self, now: Timestamp) -> Result<Vec<Piece>, Error> {
        self.end_piece(now)?;
        self.go_on(now)?;
        Ok(self.pieces.iter().cloned().collect())
    }

    /// Whether there are pieces to be had before the end.
    pub const fn has_pieces(&self) -> bool {
        self.bounds.has_pieces()
    }

    /// The file that holds what was seen at a time: the one that was written then, or the next that is still there.
    pub fn file_at(&self, time: Timestamp) -> Option<&Path> {
        let piece = self.pieces.iter().find(|piece| piece.end > time);
        piece.map(|piece| piece.path.as_path()).or_else(|| self.writer.as_ref().map(Writer::path))
    }

    /// Bytes on disk and events so far, in all pieces.
    pub fn progress(&self) -> (u64, u64) {
        let current = self.writer.as_ref().map_or(0, Writer::bytes_written);
        (self.written.bytes + current, self.written.events)
    }

    /// Ends the last piece, with these pairs at its end.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn finish_with(
        mut self,
        now: Timestamp,
        account: BTreeMap<String, String>,
    ) -> Result<Written, Error> {
        self.writer()?.add_metadata(account)?;
        self.finish(now)
    }

    /// Ends the last piece.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn finish(mut self, now: Timestamp) -> Result<Written, Error> {
        self.end_piece(now)?;
        self.written.pieces = self.pieces.into();
        Ok(self.written)
    }
}

/// `trace.mcap` as `trace-00001.mcap`.
fn piece_path(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    path.with_file_name(format!("{stem}-{number:05}{}", extension.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::{Label, Mark, Naming, Workload};
    use recording::Reader;

    fn mark(second: i64, label: Option<u16>) -> Event {
        let time = Timestamp::from_secs(second);
        Event::Mark(Mark { time, arrival: time, label: label.map(Label), note: second.to_string() })
    }

    fn read(path: &Path) -> (Header, Vec<Event>) {
        let mut reader = Reader::open(path).unwrap();
        let events = reader.events().map(Result::unwrap).collect();
        assert!(reader.report().is_whole());
        (reader.header().clone(), events)
    }

    #[test]
    fn one_file_has_the_name_that_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mcap");
        let mut output =
            Output::create(&path, Header::default(), Options::default(), Bounds::default()).unwrap();
        (0..100).for_each(|second| output.write(&mark(second, None)).unwrap());
        let written = output.finish(Timestamp::from_secs(100)).unwrap();
        assert_eq!((written.events, written.pieces.len(), written.removed), (100, 1, 0));
        assert_eq!(read(&path).1.len(), 100);
    }

    #[test]
    fn a_black_box_keeps_the_last_events_and_says_what_they_mean() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mcap");
        let bounds = Bounds::black_box(Duration::from_secs(100));
        let mut output = Output::create(&path, Header::default(), Options::default(), bounds).unwrap();
        output.write(&mark(0, Some(4))).unwrap();
        output.add_interface(&Interface { name: "late0".to_owned(), ..Interface::default() }).unwrap();
        (1..1000).for_each(|second| output.write(&mark(second, None)).unwrap());
        let pieces = output.pieces_until(Timestamp::from_secs(1000)).unwrap();
        let all: Vec<Event> = pieces.iter().flat_map(|piece| read(&piece.path).1).collect();
        assert!((100..=110).contains(&all.len()), "{}", all.len());
        assert_eq!(all.last(), Some(&mark(999, None)));
        let file = |second| output.file_at(Timestamp::from_secs(second)).unwrap().to_owned();
        assert_eq!(file(0), pieces[0].path);
        assert!(read(&file(950)).1.contains(&mark(950, None)));
        assert!(!pieces.iter().any(|piece| piece.path == file(1000)));
        assert!(all.windows(2).all(|pair| (pair[1].time() - pair[0].time()) == Duration::from_secs(1)));
        let (header, _) = read(&pieces[0].path);
        assert_eq!((header.label, header.interfaces.len()), (Some(Label(4)), 1));
        output.write(&mark(1000, None)).unwrap();
        let written = output.finish(Timestamp::from_secs(1001)).unwrap();
        assert_eq!(written.events, 1001);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), written.pieces.len());
        assert!(written.removed >= 88);
    }

    #[test]
    fn a_piece_begins_with_the_names_that_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mcap");
        let bounds = Bounds { piece_span: Some(Duration::from_secs(10)), ..Bounds::default() };
        let mut output = Output::create(&path, Header::default(), Options::default(), bounds).unwrap();
        let name = |second: i64, address: u8, pod: &str| {
            let (time, workload) =
                (Timestamp::from_secs(second), Workload { pod: pod.to_owned(), ..Workload::default() });
            Event::Naming(Box::new(Naming {
                time,
                arrival: time,
                address: [10, 0, 0, address].into(),
                workload,
            }))
        };
        for event in
            [name(1, 1, "one"), name(1, 2, "two"), name(5, 1, ""), name(6, 2, "other"), mark(15, None)]
        {
            output.write(&event).unwrap();
        }
        let written = output.finish(Timestamp::from_secs(16)).unwrap();
        assert_eq!((written.events, written.pieces.len()), (5, 2));
        assert_eq!(read(&written.pieces[1].path).1, [name(15, 2, "other"), mark(15, None)]);
    }

    #[test]
    fn pieces_end_and_go_by_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mcap");
        let bounds = Bounds { piece_bytes: Some(20_000), keep_bytes: Some(60_000), ..Bounds::default() };
        let mut output = Output::create(&path, Header::default(), Options::default(), bounds).unwrap();
        (0..5000).for_each(|second| output.write(&mark(second, None)).unwrap());
        let written = output.finish(Timestamp::from_secs(5000)).unwrap();
        assert!(written.removed > 0);
        let sizes: u64 = written.pieces.iter().map(|piece| fs::metadata(&piece.path).unwrap().len()).sum();
        assert!(sizes <= 60_000 + 30_000, "{sizes}");
        assert_eq!(sizes, written.pieces.iter().map(|piece| piece.bytes).sum::<u64>());
    }
}
