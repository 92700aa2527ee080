//! By which files are known to be those that were read before, without reading them.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    file::{FileState, SourceFile},
    location::{Location, Store},
};

/// A file may change once more within one tick of its file system's clock and look the same. The coarsest tick in use
/// is FAT's.
const TICK: TimeDelta = TimeDelta::seconds(2);
/// A web server's time of a file may be that of a copy that is made while it is read, so more than a tick must be
/// between the two where nothing but the time tells of a change.
const SETTLED: TimeDelta = TimeDelta::minutes(5);

impl Location {
    /// The time of the listing by the clock that the files' times are of, where it is known. Of an object store it is
    /// at least the newest time in the listing. `listed` is the time of this machine.
    pub(super) fn time(&self, listed: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Files => Some(listed),
            Store::Objects(_) => self.files.iter().filter_map(|file| file.state.as_ref()?.modified).max(),
            Store::Web(server) => server.date,
        }
    }

    /// A hash of a file's name, size, time and entity tag; `None` when it may change and look the same.
    pub(super) fn fingerprint(&self, file: &SourceFile, time: Option<DateTime<Utc>>) -> Option<u128> {
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
    pub(super) fn without_validators(&self) -> Option<String> {
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
