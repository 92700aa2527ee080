//! Fingerprints that show without reading a file whether it changed.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    file::{FileState, SourceFile},
    location::{Location, Store},
};

/// A file may change again within one tick of its file system's clock and look the same. FAT has the coarsest tick in
/// use.
const CLOCK_TICK: TimeDelta = TimeDelta::seconds(2);
/// A web server's time of a file may be that of a copy which is made while the file is read. So more than a tick must
/// be between the two times where only the time shows a change.
const WEB_SETTLE_TIME: TimeDelta = TimeDelta::minutes(5);

impl Location {
    /// The time of the listing by the clock of the files' times, where it is known; of an object store the newest time
    /// in the listing, which is a lower bound. `listed` is the time of this machine.
    pub(super) fn time(&self, listed: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.store {
            Store::Memory(_) | Store::Stdin(_) | Store::Table(_) | Store::Iceberg(_) => None,
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
            // The files of a table never change, and its metadata name them.
            Store::Memory(_) | Store::Table(_) | Store::Iceberg(_) => true,
            // The next input may be different.
            Store::Stdin(_) => false,
            Store::Files => is_older(state?, time, CLOCK_TICK),
            // Every write of an object makes a new tag.
            Store::Objects(_) => state?.strong_tag().is_some() || is_older(state?, time, CLOCK_TICK),
            Store::Web(_) => web_file_shows_changes(state?, time),
        };
        let state = state.map(|state| {
            let modified = state.modified.map(|time| time.timestamp_nanos_opt());
            (modified, state.e_tag.as_deref(), state.version.as_deref())
        });
        shows_changes.then(|| hash(&format!("{:?} {} {state:?}", file.uri, file.size)))
    }

    /// A note about a file on a web server whose changes do not show.
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
                WEB_SETTLE_TIME.num_minutes()
            ),
            _ => format!(
                "{}: the server gives neither a strong ETag nor a Last-Modified with a Date, so a change cannot be \
                 seen: the file is read whole in every run",
                file.uri
            ),
        })
    }
}

/// Whether a file was written so long before `time` that a later change would show.
fn is_older(state: &FileState, time: Option<DateTime<Utc>>, min_age: TimeDelta) -> bool {
    state.modified.zip(time).is_some_and(|(modified, time)| time - modified >= min_age)
}

/// Whether a change of a file on a web server shows in the headers of the server. A tag may be made of the size and a
/// time in whole seconds, so it does not identify a file that was just written.
fn web_file_shows_changes(state: &FileState, date: Option<DateTime<Utc>>) -> bool {
    match (state.strong_tag(), state.modified, date) {
        (Some(_), Some(_), Some(_)) => is_older(state, date, CLOCK_TICK),
        (Some(_), _, _) => true,
        (None, _, _) => is_older(state, date, WEB_SETTLE_TIME),
    }
}

fn hash(text: &str) -> u128 {
    let mut bytes = [0; 16];
    blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}
