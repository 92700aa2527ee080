//! Which files belong to a source, those that are gone included.

use std::{path::Path, sync::Arc};

use super::{file::SourceFile, location::listing::Scope, open::Source};

/// The files whose rows a run over a whole source examines: those that are read, and missing ones that the folder or
/// the glob would include.
#[derive(Debug, Clone)]
pub struct Coverage {
    scope: Scope,
    /// By their addresses in rising order.
    files: Arc<[SourceFile]>,
    /// Which of them are unchanged, so that only their ids are read.
    unchanged: Arc<[bool]>,
}

impl Source {
    /// The files whose rows a run over this source examines.
    pub fn coverage(&self) -> Coverage {
        let location = &self.location;
        let (files, unchanged) = (Arc::clone(&location.files), Arc::clone(&location.unchanged));
        Coverage { scope: location.scope.clone(), files, unchanged }
    }
}

impl Coverage {
    /// Whether a run over the whole source reads every row of the file at this address, or would if the file existed.
    pub fn examines(&self, file: &str) -> bool {
        let belongs = match &self.scope {
            Scope::One => self.files.first().is_some_and(|listed| listed.uri == file),
            Scope::Below(folder) => file.starts_with(folder.as_str()),
            Scope::Matching(folder, glob) => {
                file.strip_prefix(folder.as_str()).is_some_and(|path| glob.is_match(Path::new(path)))
            }
        };
        let at = self.files.binary_search_by(|listed| listed.uri.as_str().cmp(file));
        let is_unchanged = at.is_ok_and(|at| self.unchanged.get(at).copied().unwrap_or_default());
        belongs && !is_unchanged
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::spec::SourceSpec;

    async fn coverage(uri: &str) -> Coverage {
        let spec = SourceSpec { max_bytes: 1000, ..SourceSpec::new(uri) };
        Source::open(spec).await.unwrap().coverage()
    }

    #[tokio::test]
    async fn missing_files_of_a_folder_or_a_glob_belong_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["a.jsonl", "b.jsonl", "sub/c.jsonl"] {
            fs::write(folder.path().join(name), r#"{"id": "1", "text": "one"}"#).unwrap();
        }
        let at = |name: &str| format!("{root}/{name}");
        for uri in [root.to_owned(), at(""), format!("file://{root}")] {
            let coverage = coverage(&uri).await;
            let base = if uri.starts_with("file") { "file://" } else { "" };
            assert!(coverage.examines(&format!("{base}{root}/gone.jsonl")), "{uri}");
            assert!(coverage.examines(&format!("{base}{root}/sub/c.jsonl")), "{uri}");
            assert!(!coverage.examines(&format!("{base}{root}2/a.jsonl")), "{uri}");
        }
        let glob = coverage(&at("*.jsonl")).await;
        assert!(glob.examines(&at("gone.jsonl")) && !glob.examines(&at("sub/c.jsonl")) && !glob.examines(&at("a.csv")));
        let one = coverage(&at("a.jsonl")).await;
        assert!(one.examines(&at("a.jsonl")) && !one.examines(&at("b.jsonl")));
        assert!(coverage("builtin:udhr?codes=eng").await.examines("builtin:udhr"));
    }
}
