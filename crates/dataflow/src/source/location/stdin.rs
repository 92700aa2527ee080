//! Standard input as a source: it is copied into a temporary file, which is then read like any other file.
//!
//! Input can be read once. A source is read several times: for its format, for the types of its columns, and for its
//! rows. The temporary file has no name, so it disappears with the process, however the process ends.

use std::{
    fmt,
    fs::File,
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::{Attributes, Extensions, GetResult, GetResultPayload, ObjectMeta, path::Path};
use tokio::{sync::oneshot, task::spawn_blocking};

use super::listing::Listing;
use crate::{
    error::SourceError,
    source::{file::SourceFile, uri::STDIN_NAME},
};

/// The bytes that are copied, or read again, at a time.
const PART_BYTES: usize = 1 << 20;

/// The bytes of standard input that were copied. A process has one standard input.
static COPIED: AtomicU64 = AtomicU64::new(0);

/// The bytes of standard input that this process has read as a source so far.
pub fn stdin_bytes() -> u64 {
    COPIED.load(Ordering::Relaxed)
}

/// Input in a temporary file. All readers share the file, and each has a position of its own.
pub(crate) struct Spool {
    file: Mutex<File>,
    size: u64,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Reads standard input to its end.
pub(super) async fn find() -> Result<(Arc<Spool>, Listing), SourceError> {
    if io::stdin().is_terminal() {
        return Err(SourceError::Terminal);
    }
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: nothing can interrupt its reads, and no runtime waits for it at the end.
    std::thread::spawn(move || {
        let spool = Spool::copy(&mut io::stdin().lock(), &COPIED, || sender.is_closed());
        drop(sender.send(spool));
    });
    let spool = receiver.await.map_err(|error| SourceError::Input { source: Box::new(error) })??;
    let listing = Listing { files: vec![spool.listed()], ..Listing::default() };
    Ok((Arc::new(spool), listing))
}

impl Spool {
    /// Copies input into a temporary file until its end, or until `is_cancelled`.
    fn copy(input: &mut impl Read, copied: &AtomicU64, is_cancelled: impl Fn() -> bool) -> Result<Self, SourceError> {
        let mut file = tempfile::tempfile().map_err(SourceError::temporary)?;
        let (mut size, mut part) = (0, vec![0; PART_BYTES]);
        while !is_cancelled() {
            let read = match input.read(&mut part) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SourceError::Input { source: Box::new(error) }),
            };
            file.write_all(&part[..read]).map_err(SourceError::temporary)?;
            size += read as u64;
            copied.store(size, Ordering::Relaxed);
        }
        if size == 0 {
            return Err(SourceError::EmptyInput);
        }
        Ok(Self { file: Mutex::new(file), size })
    }

    /// The input as the only file of its source. Nothing shows whether two inputs are the same, so it has no state.
    fn listed(&self) -> SourceFile {
        let (uri, path) = (STDIN_NAME.to_owned(), Path::from(STDIN_NAME));
        SourceFile { uri, path, size: self.size, state: None, unreadable: None }
    }

    /// A reader from this position on.
    pub(crate) fn reader(self: &Arc<Self>, position: u64) -> SpoolReader {
        SpoolReader { spool: Arc::clone(self), position }
    }

    /// The bytes of a range, or all, as a store returns them.
    pub(crate) fn get(self: &Arc<Self>, range: Option<Range<u64>>) -> GetResult {
        let range = range.unwrap_or(0..self.size);
        let end = range.end.min(self.size);
        let parts = stream::try_unfold(self.reader(range.start), move |mut reader| async move {
            let length = PART_BYTES.min(usize::try_from(end.saturating_sub(reader.position)).unwrap_or(PART_BYTES));
            if length == 0 {
                return Ok(None);
            }
            let part = spawn_blocking(move || {
                let mut part = vec![0; length];
                reader.read_exact(&mut part)?;
                Ok::<_, io::Error>((Bytes::from(part), reader))
            });
            part.await.map_err(io::Error::other).flatten().map(Some).map_err(unreadable)
        });
        GetResult {
            payload: GetResultPayload::Stream(parts.boxed()),
            meta: ObjectMeta {
                location: Path::from(STDIN_NAME),
                last_modified: chrono::DateTime::UNIX_EPOCH,
                size: self.size,
                e_tag: None,
                version: None,
            },
            range,
            attributes: Attributes::default(),
            extensions: Extensions::default(),
        }
    }
}

fn unreadable(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "the temporary file of standard input", source: Box::new(error) }
}

/// Reads the copied input from a position of its own.
pub(crate) struct SpoolReader {
    spool: Arc<Spool>,
    position: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.spool.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.position))?;
        let read = file.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for SpoolReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.spool.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::source::location::{Location, Store, listing::Scope};

    /// The source that these bytes on standard input are.
    fn piped(input: &[u8]) -> Location {
        let spool = Spool::copy(&mut &*input, &AtomicU64::new(0), || false).unwrap();
        Location {
            files: Arc::from([spool.listed()]),
            store: Store::Stdin(Arc::new(spool)),
            unchanged: Arc::from([]),
            part: None,
            codes: None,
            scope: Scope::One,
            format: None,
            notes: Vec::new(),
        }
    }

    #[tokio::test]
    async fn readers_and_ranges_of_one_input_do_not_disturb_each_other() {
        let input: Vec<u8> = (0..3 * PART_BYTES + 7).map(|at| (at % 251) as u8).collect();
        let copied = AtomicU64::new(0);
        let spool = Arc::new(Spool::copy(&mut &*input, &copied, || false).unwrap());
        assert_eq!(copied.into_inner(), input.len() as u64);
        assert_eq!(spool.get(None).bytes().await.unwrap(), input);
        let (mut one, mut other) = (spool.reader(0), spool.reader(5));
        let mut read = [0; 4];
        one.read_exact(&mut read).unwrap();
        assert_eq!(read, input[..4]);
        assert_eq!(spool.get(Some(10..20)).bytes().await.unwrap(), input[10..20]);
        other.read_exact(&mut read).unwrap();
        assert_eq!(read, input[5..9]);
        one.seek(SeekFrom::End(-4)).unwrap();
        one.read_exact(&mut read).unwrap();
        assert_eq!(read, input[input.len() - 4..]);
        assert_eq!(one.read(&mut read).unwrap(), 0);
        assert!(one.seek(SeekFrom::Current(-i64::MAX)).is_err());
    }

    #[test]
    fn empty_input_and_a_read_error_are_no_source() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let copy = |input: &mut dyn Read| Spool::copy(&mut { input }, &AtomicU64::new(0), || false).unwrap_err();
        assert!(matches!(copy(&mut &b""[..]), SourceError::EmptyInput));
        assert!(matches!(copy(&mut Broken), SourceError::Input { .. }));
    }

    #[test]
    fn input_is_always_read_again() {
        let location = piped(b"{}");
        assert_eq!(location.fingerprint(&location.files[0], location.time(chrono::Utc::now())), None);
    }
}
