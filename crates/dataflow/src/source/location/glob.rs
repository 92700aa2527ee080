//! Which files below a folder are read: those that a glob matches, without the hidden files of writers.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

use super::listing::Scope;
use crate::error::SourceError;

/// Selects the files below a folder that belong to a source.
#[derive(Debug, Default)]
pub(super) struct FileFilter {
    glob: Option<GlobMatcher>,
    /// Parts of the glob that name hidden files or folders.
    hidden: Vec<GlobMatcher>,
}

impl FileFilter {
    /// Files whose path below the folder matches the pattern.
    pub(super) fn matching(uri: &str, pattern: &str) -> Result<Self, SourceError> {
        let glob = matcher(pattern)
            .map_err(|error| SourceError::Uri { uri: uri.to_owned(), message: error.kind().to_string() })?;
        let names_hidden = |part: &&str| {
            let first = part.trim_start_matches(['{', '[']);
            first.starts_with(['_', '.']) || part.contains(",_") || part.contains(",.")
        };
        let hidden = pattern.split('/').filter(names_hidden).filter_map(|part| matcher(part).ok()).collect();
        Ok(Self { glob: Some(glob), hidden })
    }

    /// The scope of the source below a folder, whose address ends with a slash.
    pub(super) fn scope(&self, folder: String) -> Scope {
        match &self.glob {
            Some(glob) => Scope::Matching(folder, glob.clone()),
            None => Scope::Below(folder),
        }
    }

    /// Whether the name of a file or a folder excludes it: `_SUCCESS`, `.crc`, `_temporary`.
    pub(super) fn hides(&self, name: &str) -> bool {
        name.starts_with(['_', '.'])
            && !matches!(name, "." | "..")
            && !self.hidden.iter().any(|part| part.is_match(Path::new(name)))
    }

    /// Whether a file belongs to the source, by its path below the folder.
    pub(super) fn has(&self, inner: &str) -> bool {
        !inner.split('/').any(|name| self.hides(name))
            && self.glob.as_ref().is_none_or(|glob| glob.is_match(Path::new(inner)))
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_excluded_unless_the_glob_names_them() {
        let all = FileFilter::default();
        for (path, expected) in
            [("a.csv", true), ("x/a.csv", true), ("_SUCCESS", false), (".a.crc", false), ("_temporary/0/a.csv", false)]
        {
            assert_eq!(all.has(path), expected, "{path}");
        }
        for (pattern, path, expected) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "x/a.csv", false),
            ("**/*.csv", "x/a.csv", true),
            ("*.csv", "_a.csv", false),
            ("_batch*.csv", "_batch1.csv", true),
            ("**/_*/*.csv", "x/_y/a.csv", true),
            ("**/_*/*.csv", "x/_y/.a.csv", false),
            ("{a,_b}.csv", "_b.csv", true),
            ("[_.]b.csv", ".b.csv", true),
        ] {
            assert_eq!(FileFilter::matching("uri", pattern).unwrap().has(path), expected, "{pattern} {path}");
        }
        let error = FileFilter::matching("notes [x", "notes [x").unwrap_err();
        assert!(error.to_string().contains("notes [x"), "{error}");
    }
}
