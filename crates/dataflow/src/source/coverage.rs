//! Which files belong to a source, those that have left it included.

use std::{path::Path, sync::Arc};

use super::{file::SourceFile, location::listing::Scope, open::Source};

/// The files whose rows a run over a whole source examines: those that are read, and those that a folder or a glob
/// would name if they were there.
#[derive(Debug, Clone)]
pub struct Coverage {
    scope: Scope,
    /// By their addresses in rising order.
    files: Arc<[SourceFile]>,
    /// Of these only the ids are read.
    trusted: Arc<[bool]>,
}

impl Source {
    /// Which files a run over this source examines whole.
    pub fn coverage(&self) -> Coverage {
        let location = &self.location;
        let (files, trusted) = (Arc::clone(&location.files), Arc::clone(&location.trusted));
        Coverage { scope: location.scope.clone(), files, trusted }
    }
}

impl Coverage {
    /// Whether a run over the whole source reads every row of the file at this address, or would if it were there.
    pub fn examines(&self, file: &str) -> bool {
        let belongs = match &self.scope {
            Scope::One => self.files.first().is_some_and(|one| one.uri == file),
            Scope::Below(folder) => file.starts_with(folder.as_str()),
            Scope::Matching(folder, glob) => {
                file.strip_prefix(folder.as_str()).is_some_and(|path| glob.is_match(Path::new(path)))
            }
        };
        let at = self.files.binary_search_by(|listed| listed.uri.as_str().cmp(file));
        let trusted = at.is_ok_and(|at| self.trusted.get(at).copied().unwrap_or_default());
        belongs && !trusted
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
    async fn files_that_have_left_a_folder_or_a_glob_belong_to_it() {
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
