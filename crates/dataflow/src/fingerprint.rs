//! By which files are known to be those that were read before, without reading them.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Source, location::SourceFile};

/// A file may change once more within one tick of its file system's clock and look the same. The coarsest tick in use
/// is FAT's.
const TICK: TimeDelta = TimeDelta::seconds(2);

impl Source {
    /// A hash of all files as they were listed, which changes when one of them does. `None` when a file changed so
    /// short before `listed` that it may change again and not show it.
    pub fn fingerprint(&self, listed: DateTime<Utc>) -> Option<String> {
        let files: Option<Vec<_>> = self.location.files.iter().map(|file| file.fingerprint(listed)).collect();
        Some(short_hash(&format!("{:?} {:?}", files?, self.location.codes)))
    }

    /// The address and a hash of each file that can be told from any other state of itself.
    pub fn fingerprints(&self, listed: DateTime<Utc>) -> Vec<(String, String)> {
        let of = |file: &SourceFile| Some((file.uri.clone(), file.fingerprint(listed)?));
        self.location.files.iter().filter_map(of).collect()
    }

    /// Takes the rows of the files with these hashes for rows that the table has: of them nothing is read but the
    /// ids, which must be distinct in the whole source. Returns how many files there are.
    pub fn trust(&mut self, listed: DateTime<Utc>, finished: &HashSet<String>) -> usize {
        for file in &mut self.location.files {
            file.trusted = file.fingerprint(listed).is_some_and(|hash| finished.contains(&hash));
        }
        self.location.files.iter().filter(|file| file.trusted).count()
    }
}

impl SourceFile {
    /// A hash of the name, size, time and entity tag.
    fn fingerprint(&self, listed: DateTime<Utc>) -> Option<String> {
        if self.may_change_unseen(listed) {
            return None;
        }
        let state = self.state.as_ref();
        let state = state.map(|s| (s.modified.timestamp_nanos_opt(), s.e_tag.as_deref(), s.version.as_deref()));
        Some(short_hash(&format!("{:?} {} {state:?}", self.uri, self.size)))
    }

    /// The tag of a local file is made of its time and its size; that of an object is of its content.
    fn may_change_unseen(&self, listed: DateTime<Utc>) -> bool {
        let Some(state) = &self.state else { return false };
        let tagged = self.is_remote() && state.e_tag.is_some();
        !tagged && listed - state.modified < TICK
    }
}

fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
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
        let uri = uri.to_owned();
        let columns = ("id".to_owned(), "text".to_owned());
        let spec = SourceSpec { uri, format: None, id: columns.0, text: columns.1, keep: vec![], max_bytes: 1 << 20 };
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
