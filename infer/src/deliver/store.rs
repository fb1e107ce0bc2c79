//! What must survive a crash, in one database: the receivers' queues, dead letters, what was delivered, and the
//! memory of the incidents. What one window changes is written in one transaction, so that an incident and its
//! messages are kept together or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{
    ConcurrencyMode, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition, WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// (receiver, sequence) -> message
const QUEUE: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("queue");
/// sequence -> dead letter
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
/// (receiver, message id) -> sequence, of every message that was queued
const KNOWN: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("known");
/// sequence -> (receiver, message id)
const KNOWN_ORDER: TableDefinition<'_, u64, (&str, &str)> = TableDefinition::new("known_order");
/// name -> whatever is kept under it
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

const SEQUENCE: &str = "sequence";
const RECEIVER: &str = "receiver/";

/// Ids of queued messages that are remembered, delivered or not, so that nothing is sent again after a restart;
/// the oldest are forgotten first.
const REMEMBERED: u64 = 100_000;
/// Dead letters that are kept; the oldest are dropped first, and counted.
const DEAD_LETTERS: u64 = 10_000;
/// Pages held in memory; a queue is small, and the daemon's memory is bounded.
const CACHE_BYTES: usize = 4 << 20;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {operation} the state in {}", path.display())]
    Database { operation: &'static str, path: PathBuf, source: Box<redb::Error> },
    #[error("cannot {operation} {}", path.display())]
    Folder { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is in use by another infer: give each its own --state-dir", path.display())]
    InUse { path: PathBuf },
    #[error(
        "an entry of the state in {} cannot be read: move the file away to begin anew, or use the release that \
         wrote it", path.display()
    )]
    Entry { path: PathBuf, source: serde_json::Error },
}

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Tells of something: sent until it arrives, with one id, so that a receiver knows a repetition.
    Notification,
    /// Asks for something to be done: never late, and never again where it may have arrived before a crash.
    Action,
}

/// One POST to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The same on every attempt.
    pub id: String,
    pub kind: Kind,
    /// Messages about one subject arrive in order.
    pub subject: String,
    pub content_type: String,
    pub body: String,
    /// Wall times in milliseconds.
    pub created_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<i64>,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default)]
    pub not_before_ms: i64,
    /// An attempt was begun, and its end is not known.
    #[serde(default)]
    pub in_flight: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
}

impl Message {
    /// A message of JSON that tells of something, made now.
    pub fn notification(id: String, subject: String, body: String) -> Self {
        Self {
            id,
            kind: Kind::Notification,
            subject,
            content_type: "application/json".to_owned(),
            body,
            created_ms: crate::time::now_ms(),
            expires_ms: None,
            attempts: 0,
            not_before_ms: 0,
            in_flight: false,
            last_error: None,
        }
    }
}

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub receiver: String,
    pub reason: String,
    pub died_ms: i64,
    pub message: Message,
}

/// What is remembered of a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverState {
    /// Why nothing is sent to it any more; it said that it is gone (410).
    pub disabled: Option<String>,
}

/// What became of a message that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    Queued,
    /// It was delivered before, or waits already.
    Known,
    /// The queue is full.
    TurnedAway,
    /// The receiver is disabled.
    Disabled,
}

/// The database.
pub struct Store {
    database: Database,
    path: PathBuf,
    /// Held for the life of a daemon.
    _lock: Option<File>,
}

impl Store {
    /// The state of a daemon in `folder`, which no other daemon may use at the same time; `infer dlq` may.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let error =
            |operation| move |source| StoreError::Folder { operation, path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(error("create the state folder"))?;
        let lock = File::create(folder.join("lock")).map_err(error("create the lock in"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: folder.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(error("lock")(source)),
        }
        if !folder.join(FILE).exists() {
            create(folder)?;
        }
        Self { _lock: Some(lock), ..Self::attach(folder)? }.prepared()
    }

    /// The state in `folder` beside a daemon that may be running.
    ///
    /// # Errors
    /// [`StoreError`]; a folder without a state is one.
    pub fn beside(folder: &Path) -> Result<Self, StoreError> {
        if !folder.join(FILE).exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StoreError::Folder { operation: "find a state in", path: folder.to_owned(), source });
        }
        Self::attach(folder)
    }

    fn attach(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let opened = Database::builder()
            .set_concurrency_mode(ConcurrencyMode::MultiWriter)
            .set_cache_size(CACHE_BYTES)
            .create(&path);
        let database = opened.map_err(|source| StoreError::Database {
            operation: "open",
            path: path.clone(),
            source: Box::new(source.into()),
        })?;
        Ok(Self { database, path, _lock: None })
    }

    /// A state that ends with the process.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from("memory");
        let opened = Database::builder().create_with_backend(InMemoryBackend::new());
        let database = opened.map_err(|source| StoreError::Database {
            operation: "create",
            path: path.clone(),
            source: Box::new(source.into()),
        })?;
        Self { database, path, _lock: None }.prepared()
    }

    /// With every table there, so that readers need not ask.
    fn prepared(self) -> Result<Self, StoreError> {
        self.write(|_| Ok(()))?;
        Ok(self)
    }

    /// Makes one durable change.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was changed.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let inner = self.database.begin_write().map_err(self.failed("begin a change of"))?;
        let mut transaction = Transaction { inner, store: self };
        transaction.create_tables()?;
        let result = work(&mut transaction)?;
        transaction.inner.commit().map_err(self.failed("write"))?;
        Ok(result)
    }

    fn failed<E: Into<redb::Error>>(&self, operation: &'static str) -> impl Fn(E) -> StoreError + '_ {
        move |source| StoreError::Database {
            operation,
            path: self.path.clone(),
            source: Box::new(source.into()),
        }
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|source| StoreError::Entry { path: self.path.clone(), source })
    }

    /// The waiting messages of a receiver with their sequence numbers, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn queue(&self, receiver: &str, limit: usize) -> Result<Vec<(u64, Message)>, StoreError> {
        let read = self.database.begin_read().map_err(self.failed("read"))?;
        let table = read.open_table(QUEUE).map_err(self.failed("read"))?;
        let range = table.range((receiver, 0)..=(receiver, u64::MAX)).map_err(self.failed("read"))?;
        let mut messages = Vec::new();
        for entry in range.take(limit) {
            let (key, value) = entry.map_err(self.failed("read"))?;
            messages.push((key.value().1, self.decode(value.value())?));
        }
        Ok(messages)
    }

    /// How many messages wait for a receiver.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting(&self, receiver: &str) -> Result<u64, StoreError> {
        let read = self.database.begin_read().map_err(self.failed("read"))?;
        let table = read.open_table(QUEUE).map_err(self.failed("read"))?;
        let range = table.range((receiver, 0)..=(receiver, u64::MAX)).map_err(self.failed("read"))?;
        Ok(range.count() as u64)
    }

    /// The dead letters with their sequence numbers, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dead_letters(&self) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        let read = self.database.begin_read().map_err(self.failed("read"))?;
        let table = read.open_table(DEAD).map_err(self.failed("read"))?;
        let mut letters = Vec::new();
        for entry in table.iter().map_err(self.failed("read"))? {
            let (key, value) = entry.map_err(self.failed("read"))?;
            letters.push((key.value(), self.decode(value.value())?));
        }
        Ok(letters)
    }

    /// What is remembered of a receiver.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn receiver(&self, receiver: &str) -> Result<ReceiverState, StoreError> {
        Ok(self.state(&format!("{RECEIVER}{receiver}"))?.unwrap_or_default())
    }

    /// Whatever was kept under a name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn state<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let read = self.database.begin_read().map_err(self.failed("read"))?;
        let table = read.open_table(STATE).map_err(self.failed("read"))?;
        let value = table.get(name).map_err(self.failed("read"))?;
        value.map(|value| self.decode(value.value())).transpose()
    }
}

const FILE: &str = "state.redb";

/// Makes an empty state under another name and renames it when it is whole: a crash in between leaves nothing that
/// looks like a state and is none.
fn create(folder: &Path) -> Result<(), StoreError> {
    let unfinished = folder.join("state.redb.new");
    let failed =
        |source| StoreError::Folder { operation: "create a state in", path: folder.to_owned(), source };
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let database = Database::builder()
        .set_concurrency_mode(ConcurrencyMode::MultiWriter)
        .create(&unfinished)
        .map_err(|source| StoreError::Database {
            operation: "create",
            path: unfinished.clone(),
            source: Box::new(source.into()),
        })?;
    drop(database);
    std::fs::rename(&unfinished, folder.join(FILE)).map_err(failed)
}

/// A change that becomes durable as a whole.
pub struct Transaction<'s> {
    inner: WriteTransaction,
    store: &'s Store,
}

impl Transaction<'_> {
    fn create_tables(&self) -> Result<(), StoreError> {
        let failed = |source| self.store.failed::<redb::TableError>("create tables of")(source);
        self.inner.open_table(QUEUE).map_err(failed)?;
        self.inner.open_table(DEAD).map_err(failed)?;
        self.inner.open_table(KNOWN).map_err(failed)?;
        self.inner.open_table(KNOWN_ORDER).map_err(failed)?;
        self.inner.open_table(STATE).map_err(failed)?;
        Ok(())
    }

    fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(value)
            .map_err(|source| StoreError::Entry { path: self.store.path.clone(), source })
    }

    fn failed<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + '_ {
        self.store.failed("write")
    }

    /// Keeps a value under a name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), StoreError> {
        let bytes = self.encode(value)?;
        let mut table = self.inner.open_table(STATE).map_err(self.failed())?;
        table.insert(name, bytes.as_slice()).map_err(self.failed())?;
        Ok(())
    }

    fn next_sequence(&mut self) -> Result<u64, StoreError> {
        let mut table = self.inner.open_table(STATE).map_err(self.failed())?;
        let last: u64 = match table.get(SEQUENCE).map_err(self.failed())? {
            Some(value) => self.store.decode(value.value())?,
            None => 0,
        };
        let next = self.encode(&(last + 1))?;
        table.insert(SEQUENCE, next.as_slice()).map_err(self.failed())?;
        Ok(last + 1)
    }

    /// Queues a message for a receiver, unless it is known already or there is no room.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn enqueue(&mut self, receiver: &str, message: &Message, room: u64) -> Result<Enqueued, StoreError> {
        if self.is_known(receiver, &message.id)? {
            return Ok(Enqueued::Known);
        }
        if self.store.receiver(receiver)?.disabled.is_some() {
            return Ok(Enqueued::Disabled);
        }
        let sequence = self.next_sequence()?;
        let bytes = self.encode(message)?;
        let mut table = self.inner.open_table(QUEUE).map_err(self.failed())?;
        let waiting =
            table.range((receiver, 0)..=(receiver, u64::MAX)).map_err(self.failed())?.count() as u64;
        if waiting >= room {
            return Ok(Enqueued::TurnedAway);
        }
        table.insert((receiver, sequence), bytes.as_slice()).map_err(self.failed())?;
        self.remember(receiver, &message.id, sequence)?;
        Ok(Enqueued::Queued)
    }

    fn is_known(&self, receiver: &str, id: &str) -> Result<bool, StoreError> {
        let known = self.inner.open_table(KNOWN).map_err(self.failed())?;
        Ok(known.get((receiver, id)).map_err(self.failed())?.is_some())
    }

    fn remember(&self, receiver: &str, id: &str, sequence: u64) -> Result<(), StoreError> {
        let mut known = self.inner.open_table(KNOWN).map_err(self.failed())?;
        let mut order = self.inner.open_table(KNOWN_ORDER).map_err(self.failed())?;
        known.insert((receiver, id), sequence).map_err(self.failed())?;
        order.insert(sequence, (receiver, id)).map_err(self.failed())?;
        while order.len().map_err(self.failed())? > REMEMBERED {
            let Some(oldest) = order.pop_first().map_err(self.failed())? else { break };
            known.remove(oldest.1.value()).map_err(self.failed())?;
        }
        Ok(())
    }

    /// Writes a waiting message anew, after an attempt.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn update(&mut self, receiver: &str, sequence: u64, message: &Message) -> Result<(), StoreError> {
        let bytes = self.encode(message)?;
        let mut table = self.inner.open_table(QUEUE).map_err(self.failed())?;
        table.insert((receiver, sequence), bytes.as_slice()).map_err(self.failed())?;
        Ok(())
    }

    /// Takes a delivered message from its queue; its id stays known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delivered(&mut self, receiver: &str, sequence: u64) -> Result<(), StoreError> {
        self.remove(receiver, sequence)
    }

    fn remove(&mut self, receiver: &str, sequence: u64) -> Result<(), StoreError> {
        let mut table = self.inner.open_table(QUEUE).map_err(self.failed())?;
        table.remove((receiver, sequence)).map_err(self.failed())?;
        Ok(())
    }

    /// Moves a message from its queue to the dead letters. Returns how many old dead letters had to go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bury(&mut self, sequence: u64, letter: &DeadLetter) -> Result<u64, StoreError> {
        self.remove(&letter.receiver, sequence)?;
        let place = self.next_sequence()?;
        let bytes = self.encode(letter)?;
        let mut table = self.inner.open_table(DEAD).map_err(self.failed())?;
        table.insert(place, bytes.as_slice()).map_err(self.failed())?;
        let mut dropped = 0;
        while table.len().map_err(self.failed())? > DEAD_LETTERS {
            table.pop_first().map_err(self.failed())?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Queues a dead letter once more, as if it were new; an expired action stays dead. True where it is queued.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revive(&mut self, place: u64, letter: &DeadLetter, now_ms: i64) -> Result<bool, StoreError> {
        if letter.message.expires_ms.is_some_and(|expires| expires <= now_ms) {
            return Ok(false);
        }
        let message = Message {
            attempts: 0,
            not_before_ms: 0,
            in_flight: false,
            created_ms: now_ms,
            ..letter.message.clone()
        };
        {
            let mut table = self.inner.open_table(DEAD).map_err(self.failed())?;
            table.remove(place).map_err(self.failed())?;
        }
        let sequence = self.next_sequence()?;
        self.update(&letter.receiver, sequence, &message)?;
        Ok(true)
    }

    /// Sends nothing more to a receiver, for this reason; or sends again, where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_disabled(&mut self, receiver: &str, reason: Option<String>) -> Result<(), StoreError> {
        self.keep(&format!("{RECEIVER}{receiver}"), &ReceiverState { disabled: reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Message {
        Message {
            id: id.to_owned(),
            kind: Kind::Notification,
            subject: "i".to_owned(),
            content_type: "application/json".to_owned(),
            body: "{}".to_owned(),
            created_ms: 1,
            expires_ms: None,
            attempts: 0,
            not_before_ms: 0,
            in_flight: false,
            last_error: None,
        }
    }

    fn enqueue(store: &Store, id: &str, room: u64) -> Enqueued {
        store.write(|change| change.enqueue("ops", &message(id), room)).unwrap()
    }

    #[test]
    fn what_was_queued_survives_and_what_was_delivered_is_not_queued_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(enqueue(&store, "a", 10), Enqueued::Queued);
        assert_eq!(enqueue(&store, "b", 10), Enqueued::Queued);
        assert_eq!(enqueue(&store, "a", 10), Enqueued::Known);
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        let queue = store.queue("ops", 10).unwrap();
        assert_eq!(queue.iter().map(|(_, m)| m.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        store.write(|change| change.delivered("ops", queue[0].0)).unwrap();
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(enqueue(&store, "a", 10), Enqueued::Known);
        assert_eq!(store.waiting("ops").unwrap(), 1);
        assert_eq!(store.waiting("op").unwrap(), 0);
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let store = Store::in_memory().unwrap();
        let failed: Result<(), StoreError> = store.write(|change| {
            change.enqueue("ops", &message("a"), 10)?;
            Err(StoreError::InUse { path: PathBuf::new() })
        });
        assert!(failed.is_err());
        assert_eq!(store.waiting("ops").unwrap(), 0);
    }

    #[test]
    fn a_full_queue_and_a_disabled_receiver_turn_away() {
        let store = Store::in_memory().unwrap();
        assert_eq!(enqueue(&store, "a", 1), Enqueued::Queued);
        assert_eq!(enqueue(&store, "b", 1), Enqueued::TurnedAway);
        store.write(|change| change.set_disabled("ops", Some("410".to_owned()))).unwrap();
        assert_eq!(enqueue(&store, "c", 9), Enqueued::Disabled);
    }

    #[test]
    fn a_dead_letter_is_sent_again_unless_it_expired() {
        let store = Store::in_memory().unwrap();
        for id in ["a", "late"] {
            enqueue(&store, id, 9);
        }
        for (sequence, mut message) in store.queue("ops", 9).unwrap() {
            message.expires_ms = (message.id == "late").then_some(50);
            let letter = DeadLetter { receiver: "ops".into(), reason: "404".into(), died_ms: 9, message };
            store.write(|change| change.bury(sequence, &letter)).unwrap();
        }
        assert_eq!(store.waiting("ops").unwrap(), 0);
        let letters = store.dead_letters().unwrap();
        let revived: Vec<bool> = letters
            .iter()
            .map(|(place, letter)| store.write(|change| change.revive(*place, letter, 100)).unwrap())
            .collect();
        assert_eq!(revived, [true, false]);
        assert_eq!(store.dead_letters().unwrap().len(), 1);
        assert_eq!(store.queue("ops", 9).unwrap()[0].1.id, "a");
    }

    #[test]
    fn two_daemons_cannot_share_a_state_but_a_tool_can_look_in() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Store::beside(folder.path()).is_err());
        let store = Store::open(folder.path()).unwrap();
        enqueue(&store, "a", 9);
        let error = Store::open(folder.path()).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("--state-dir")));
        assert_eq!(Store::beside(folder.path()).unwrap().waiting("ops").unwrap(), 1);
    }
}
