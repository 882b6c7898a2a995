//! A store in a file: redb's, each change a transaction that is on the disk when it is done.
//!
//! ```text
//! entries   key → value
//! totals    "bytes" → what all entries come to
//! ```
//!
//! Whoever opened the file has locked it, so there is one process at a time.

use super::{After, Failure, KeyPage, grown, page, size};
use redb::{BackendError, Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Bound,
    os::unix::fs::FileExt,
    sync::{PoisonError, RwLock},
};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";

/// What a file of redb's begins with.
const MARK_BYTES: usize = 9;

/// Of what is in the file, in memory.
const CACHE_BYTES: usize = 2 << 20;

#[derive(Debug)]
pub(super) struct Kept {
    file: File,
    /// None after an error of the file, until it is opened anew: a full disk may have room again.
    database: RwLock<Option<Database>>,
}

/// The file, of which nobody else knows.
#[derive(Debug)]
struct Backend(File);

impl Kept {
    pub(super) fn open(file: &File) -> Result<Self, Failure> {
        let database = database(file)?;
        // So that both tables are there for who reads.
        let begun = database.begin_write().map_err(broken)?;
        begun.open_table(ENTRIES).map_err(broken)?;
        begun.open_table(TOTALS).map_err(broken)?;
        begun.commit().map_err(broken)?;
        Ok(Self { file: file.try_clone().map_err(broken)?, database: RwLock::new(Some(database)) })
    }

    /// Does something with the database, which is opened anew after what failed.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            drop(open);
            let mut closed = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if closed.is_none() {
                *closed = Some(database(&self.file)?);
            }
            drop(closed);
            open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(database) = open.as_ref() else { return Err(Failure::File("it was closed".to_owned())) };
        let done = work(database);
        drop(open);
        if matches!(done, Err(Failure::File(_))) {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        done
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.with(|database| {
            let reading = database.begin_read().map_err(broken)?;
            let entries = reading.open_table(ENTRIES).map_err(broken)?;
            Ok(entries.get(key).map_err(broken)?.map(|value| value.value().to_vec()))
        })
    }

    pub(super) fn keys(&self, after: &After) -> Result<KeyPage, Failure> {
        self.with(|database| {
            let reading = database.begin_read().map_err(broken)?;
            let entries = reading.open_table(ENTRIES).map_err(broken)?;
            let (from, skipped) = match after {
                After::Count(count) => (Bound::Unbounded, usize::try_from(*count).unwrap_or(usize::MAX)),
                After::Key(key) => (Bound::Excluded(key.as_str()), 0),
            };
            let found = entries.range::<&str>((from, Bound::Unbounded)).map_err(broken)?;
            page(found.skip(skipped).map(|entry| Ok(entry.map_err(broken)?.0.value().to_owned())))
        })
    }

    pub(super) fn change(&self, entries: &[(String, Option<Vec<u8>>)], most: u64) -> Result<(), Failure> {
        let last: BTreeMap<&str, Option<&Vec<u8>>> =
            entries.iter().map(|(key, value)| (key.as_str(), value.as_ref())).collect();
        self.write(most, |table| {
            let (mut added, mut removed) = (0, 0);
            for (key, value) in last {
                let old = match value {
                    Some(value) => {
                        added += size(key, value);
                        table.insert(key, value.as_slice()).map_err(broken)?
                    }
                    None => table.remove(key).map_err(broken)?,
                };
                removed += old.map_or(0, |old| size(key, old.value()));
            }
            Ok(((), added, removed))
        })
    }

    pub(super) fn update<T>(
        &self,
        key: &str,
        most: u64,
        new: impl FnOnce(Option<&[u8]>) -> Result<(Option<Vec<u8>>, T), Failure>,
    ) -> Result<T, Failure> {
        self.write(most, |table| {
            let old = table.get(key).map_err(broken)?;
            let (value, result) = new(old.as_ref().map(|old| old.value()))?;
            let removed = old.as_ref().map_or(0, |old| size(key, old.value()));
            drop(old);
            let Some(value) = value else { return Ok((result, 0, 0)) };
            table.insert(key, value.as_slice()).map_err(broken)?;
            Ok((result, size(key, &value), removed))
        })
    }

    /// One transaction; nothing of it stays if it fails, or if the store would have too much.
    fn write<T>(
        &self,
        most: u64,
        work: impl FnOnce(&mut Table<'_, &'static str, &'static [u8]>) -> Result<(T, u64, u64), Failure>,
    ) -> Result<T, Failure> {
        self.with(|database| {
            let writing = database.begin_write().map_err(broken)?;
            let result = {
                let mut entries = writing.open_table(ENTRIES).map_err(broken)?;
                let (result, added, removed) = work(&mut entries)?;
                let mut totals = writing.open_table(TOTALS).map_err(broken)?;
                let total = totals.get(BYTES).map_err(broken)?.map_or(0, |total| total.value());
                totals.insert(BYTES, grown(total, added, removed, most)?).map_err(broken)?;
                result
            };
            writing.commit().map_err(broken)?;
            Ok(result)
        })
    }
}

fn database(file: &File) -> Result<Database, Failure> {
    forget_unfinished(file).map_err(broken)?;
    let backend = Backend(file.try_clone().map_err(broken)?);
    Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(broken)
}

/// The bytes that make a file one of redb's are written last, when all else of a new one is on the disk: without them nobody has been told
/// that there is a store. It was killed meanwhile, or found the disk full.
fn forget_unfinished(file: &File) -> io::Result<()> {
    let mut begin = [0; MARK_BYTES];
    match file.read_exact_at(&mut begin, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Ok(()) if begin == [0; MARK_BYTES] => file.set_len(0),
        other => other,
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::File(error.to_string())
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_all_at(data, offset)
    }

    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
