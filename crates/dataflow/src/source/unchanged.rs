//! Files that have not changed since a run read them.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};

use super::{file::SourceFile, open::Source};

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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::source::spec::SourceSpec;

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
