//! What comes out of a sort: rows in order, and groups of rows with one key.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::tables::rows::Row;

use super::merge::Merge;
use super::remove_folder;

/// Batches that wait between the merging thread and the reader. With one in use on each side there are four.
const BATCHES_WAITING: usize = 2;

/// Rows in ascending order. After an error there are no more.
pub struct Sorted<R> {
    batch: std::vec::IntoIter<R>,
    source: Option<Source<R>>,
}

/// A merge in a thread of its own, and the folder of its runs.
struct Source<R> {
    batches: Option<Receiver<Result<Vec<R>>>>,
    thread: Option<JoinHandle<()>>,
    folder: PathBuf,
}

impl<R: Row + Copy + Send + 'static> Sorted<R> {
    pub(super) fn in_memory(rows: Vec<R>) -> Sorted<R> {
        Sorted { batch: rows.into_iter(), source: None }
    }

    pub(super) fn merging(mut merge: Merge<R>, batch_rows: usize, folder: PathBuf) -> Result<Sorted<R>> {
        let (sender, receiver) = sync_channel(BATCHES_WAITING);
        let work = move || {
            loop {
                let batch = next_batch(&mut merge, batch_rows);
                let is_last = batch.as_ref().map_or(true, Vec::is_empty);
                // The stream may have been dropped before its end.
                if sender.send(batch).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(work);
        let thread = thread.map_err(Error::io(&folder, "start a thread to merge in"))?;
        let source = Source { batches: Some(receiver), thread: Some(thread), folder };
        Ok(Sorted { batch: Vec::new().into_iter(), source: Some(source) })
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// A run cannot be read or is damaged, or the runs cannot be removed at the end.
    pub fn next_row(&mut self) -> Result<Option<R>> {
        match self.batch.next() {
            Some(row) => Ok(Some(row)),
            None => self.next_batch(),
        }
    }

    fn next_batch(&mut self) -> Result<Option<R>> {
        let Some(source) = &mut self.source else { return Ok(None) };
        let batch = source.batches.as_ref().and_then(|batches| batches.recv().ok());
        let Some(batch) = batch else {
            // The thread ends without a last batch only by a panic, which `stop` hands on.
            let mut source = self.source.take();
            source.as_mut().map_or(Ok(()), Source::stop)?;
            return Ok(None);
        };
        let batch = batch.inspect_err(|_| self.source = None)?;
        if batch.is_empty() {
            let mut source = self.source.take();
            source.as_mut().map_or(Ok(()), Source::stop)?;
            return Ok(None);
        }
        self.batch = batch.into_iter();
        Ok(self.batch.next())
    }

    /// Cuts the rows into groups with one `key`, which must not descend along the rows.
    pub fn groups<K, F>(self, key: F) -> Groups<R, K, F>
    where
        K: PartialEq + Copy,
        F: Fn(&R) -> K,
    {
        Groups { rows: self, key, next: None, group: None }
    }
}

impl<R: Row + Copy + Send + 'static> Iterator for Sorted<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_row().transpose()
    }
}

fn next_batch<R: Row + Copy>(merge: &mut Merge<R>, batch_rows: usize) -> Result<Vec<R>> {
    let mut batch = Vec::with_capacity(batch_rows);
    while batch.len() < batch_rows {
        match merge.next_row()? {
            Some(row) => batch.push(row),
            None => break,
        }
    }
    Ok(batch)
}

impl<R> Source<R> {
    /// Ends the thread and removes the runs.
    fn stop(&mut self) -> Result<()> {
        self.batches = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        remove_folder(&self.folder)
    }
}

impl<R> Drop for Source<R> {
    /// A stream dropped early leaves no runs, and reports no error: what could not
    /// be removed is removed by the next sorter in the folder.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
            drop(remove_folder(&self.folder));
        }
    }
}

/// Groups of rows with one key, in ascending order. Neither groups nor rows are held in memory.
///
/// ```no_run
/// # use moe_data::tables::{rows::BandRow, sort::Sorter};
/// # fn main() -> moe_data::Result<()> {
/// # let watch = moe_data::watch::Watch::idle();
/// let mut sorter = Sorter::<BandRow>::new("work/bands".as_ref(), 256 << 20, &watch)?;
/// sorter.push(BandRow { key: 7, document: 1 })?;
/// sorter.push(BandRow { key: 7, document: 0 })?;
/// let mut groups = sorter.finish()?.groups(|row| row.key);
/// while let Some(mut group) = groups.next_group()? {
///     let first = group.next_row()?;
///     while let Some(other) = group.next_row()? {
///         println!("{first:?} and {other:?} share a band");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Groups<R, K, F> {
    rows: Sorted<R>,
    key: F,
    /// The first row of the next group, once the one before it was read to its end.
    next: Option<R>,
    /// The group being read.
    group: Option<K>,
}

impl<R, K, F> Groups<R, K, F>
where
    R: Row + Copy + Send + 'static,
    K: PartialEq + Copy,
    F: Fn(&R) -> K,
{
    /// The next group, or `None` after the last. Rows that were left in the group before are skipped.
    ///
    /// # Errors
    /// As [`Sorted::next_row`].
    pub fn next_group(&mut self) -> Result<Option<Group<'_, R, K, F>>> {
        while self.group.is_some() {
            self.next_in_group()?;
        }
        if self.next.is_none() {
            self.next = self.rows.next_row()?;
        }
        let Some(first) = &self.next else { return Ok(None) };
        let key = (self.key)(first);
        self.group = Some(key);
        Ok(Some(Group { groups: self, key }))
    }

    fn next_in_group(&mut self) -> Result<Option<R>> {
        let Some(key) = self.group else { return Ok(None) };
        let row = match self.next.take() {
            Some(row) => Some(row),
            None => self.rows.next_row()?,
        };
        match row {
            Some(row) if (self.key)(&row) == key => Ok(Some(row)),
            row => {
                self.next = row;
                self.group = None;
                Ok(None)
            }
        }
    }
}

/// Rows with one key, at least one.
pub struct Group<'a, R, K, F> {
    groups: &'a mut Groups<R, K, F>,
    key: K,
}

impl<R, K, F> Group<'_, R, K, F>
where
    R: Row + Copy + Send + 'static,
    K: PartialEq + Copy,
    F: Fn(&R) -> K,
{
    /// The key of all its rows.
    pub fn key(&self) -> K {
        self.key
    }

    /// The next row of the group, in ascending order, or `None` after its last.
    ///
    /// # Errors
    /// As [`Sorted::next_row`].
    pub fn next_row(&mut self) -> Result<Option<R>> {
        self.groups.next_in_group()
    }
}
