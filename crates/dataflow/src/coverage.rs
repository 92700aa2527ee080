//! Which files belong to a source, those that have left it included.

use std::{collections::HashSet, path::Path};

use crate::{Source, location::Scope};

/// The files whose rows a run over a whole source examines: those that are read, and those that a folder or a glob
/// would name if they were there.
#[derive(Debug, Clone)]
pub struct Coverage {
    scope: Scope,
    /// The file, when the source is one.
    one: Option<String>,
    /// Of these only the ids are read.
    trusted: HashSet<String>,
}

impl Source {
    /// Which files a run over this source examines whole.
    pub fn coverage(&self) -> Coverage {
        let files = &self.location.files;
        let trusted = files.iter().filter(|file| file.trusted).map(|file| file.uri.clone()).collect();
        Coverage { scope: self.location.scope.clone(), one: files.first().map(|file| file.uri.clone()), trusted }
    }
}

impl Coverage {
    /// Whether a run over the whole source reads every row of the file at this address, or would if it were there.
    pub fn examines(&self, file: &str) -> bool {
        let belongs = match &self.scope {
            Scope::One => self.one.as_deref() == Some(file),
            Scope::Below(folder) => file.starts_with(folder.as_str()),
            Scope::Matching(folder, glob) => {
                file.strip_prefix(folder.as_str()).is_some_and(|path| glob.is_match(Path::new(path)))
            }
        };
        belongs && !self.trusted.contains(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::SourceSpec;

    async fn coverage(uri: &str) -> Coverage {
        let spec = SourceSpec {
            uri: uri.to_owned(),
            format: None,
            id: "id".into(),
            text: "text".into(),
            keep: Vec::new(),
            max_bytes: 1000,
            csv: crate::CsvSpec::default(),
        };
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
