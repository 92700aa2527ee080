//! Files that have not changed since a run read them.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};

use super::{file::SourceFile, open::Source};

impl Source {
    /// A hash of all listed files, which changes when one of them does. `None` when a change of a file may not show.
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

    /// The address and a hash of each file that is read whole and whose changes show.
    pub fn fingerprints(&self, listed: DateTime<Utc>) -> impl Iterator<Item = (&str, u128)> {
        let time = self.location.time(listed);
        let hashed = move |file: &SourceFile| self.location.fingerprint(file, time);
        let files = self.location.files.get(self.whole_files()).unwrap_or_default();
        files.iter().filter_map(move |file| Some((file.uri.as_str(), hashed(file)?)))
    }

    /// Marks the files with these hashes as unchanged: the table has their rows, and nothing is read of them but the
    /// ids, which must be distinct in the whole source. Returns the number of unchanged files.
    ///
    /// Of rows with equal texts that are one document, the first one has the kept columns: a change in one file may
    /// make a row of another one the first, so that no file counts as unchanged.
    pub fn mark_unchanged(&mut self, listed: DateTime<Utc>, hashes: &HashSet<u128>) -> usize {
        if self.projection.has_content_ids() && !self.keep_fields().is_empty() {
            return 0;
        }
        let time = self.location.time(listed);
        let is_unchanged = |file| self.location.fingerprint(file, time).is_some_and(|hash| hashes.contains(&hash));
        let unchanged: Arc<[bool]> = self.location.files.iter().map(is_unchanged).collect();
        self.location.unchanged = unchanged;
        self.unchanged_files()
    }

    /// The number of files to read that are marked as unchanged.
    pub fn unchanged_files(&self) -> usize {
        let unchanged = self.location.unchanged.get(self.location.read_files()).unwrap_or_default();
        unchanged.iter().filter(|is_unchanged| **is_unchanged).count()
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
    async fn the_fingerprint_changes_with_a_file_and_only_then() {
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
    async fn the_fingerprint_of_the_built_in_corpus_depends_on_the_selection() {
        let german = fingerprint("builtin:udhr?codes=deu_1996").await.unwrap();
        assert_eq!(fingerprint("builtin:udhr?codes=deu_1996").await.unwrap(), german);
        assert_ne!(fingerprint("builtin:udhr").await.unwrap(), german);
    }
}
