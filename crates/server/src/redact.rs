//! Removes what other people's messages and plans reveal of this machine: addresses, folders, source locations.

use std::{cmp::Reverse, collections::BTreeMap, env, fs, path};

use polylance_schema::without_source_locations;

/// What replaces an address that has no name.
const REDACTED: &str = "…";

/// A message of Lance or DataFusion on one line, without addresses and without locations in their source code.
pub(crate) fn redact_message(text: &str) -> String {
    let text = redact_addresses(text);
    without_source_locations(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces the addresses behind `uri=`, which plans contain, and the folders of this process.
pub(crate) fn redact_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("uri=") {
        let (before, after) = rest.split_at(at + "uri=".len());
        out.push_str(before);
        out.push_str(REDACTED);
        let end = after.find([',', ' ', '\n', '"', '\\', ']', ')']).unwrap_or(after.len());
        rest = &after[end..];
    }
    out.push_str(rest);
    for folder in process_folders() {
        out = out.replace(&folder, REDACTED);
    }
    out
}

/// Folders that reveal something of this machine. A root reveals nothing.
fn process_folders() -> Vec<String> {
    let folders = [env::current_dir().ok(), env::home_dir(), Some(env::temp_dir())];
    let folders = folders.into_iter().flatten().map(|folder| folder.display().to_string());
    folders.filter(|folder| folder.len() > 1).collect()
}

/// The addresses of the tables, as plans write them, and the names that replace them.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableAddresses {
    /// Longest first: one address may be the beginning of another.
    names: Vec<(String, String)>,
}

impl TableAddresses {
    /// `(name, address)` of each table.
    pub(crate) fn new<'t>(tables: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut names = BTreeMap::new();
        for (name, uri) in tables {
            for spelling in spellings(uri) {
                names.insert(spelling, name.to_owned());
            }
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(spelling, _)| Reverse(spelling.len()));
        Self { names }
    }

    /// Replaces the address of each table by its name, and removes all others.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (address, name) in &self.names {
            text = text.replace(&format!("uri={address}/data"), &format!("table={name}"));
            text = text.replace(address, name);
        }
        redact_addresses(&text)
    }
}

/// An address as it was given, as an absolute path, and as an object store writes it. Spellings without a `/` could be
/// any word and are left out: plans write whole addresses.
fn spellings(uri: &str) -> Vec<String> {
    let uri = uri.trim_end_matches('/');
    let mut spellings = vec![uri.to_owned()];
    let local = uri.strip_prefix("file://").unwrap_or(uri);
    if let Some((_, key)) = uri.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        spellings.push(key.to_owned());
        spellings.extend(key.split_once('/').map(|(_, key)| key.to_owned()));
    } else if let Ok(absolute) = path::absolute(local) {
        let real = fs::canonicalize(&absolute).unwrap_or_else(|_| absolute.clone());
        for path in [absolute, real] {
            let path = path.display().to_string();
            spellings.push(path.trim_start_matches('/').to_owned());
            spellings.push(path);
        }
    }
    spellings.retain(|spelling| spelling.contains('/'));
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_locations_are_removed() {
        let text = "no field named x, y., /registry/lance-14.0.2/src/scanner.rs:839:33";
        assert_eq!(redact_message(text), "no field named x, y.");
        for text in ["a, b", "see job.rs:3", "docs.lance: 12:30:00, later", ""] {
            assert_eq!(redact_message(text), text);
        }
    }

    #[test]
    fn addresses_in_plans_and_folders_of_the_process_are_removed() {
        let plan = "LanceRead: uri=home/me/docs.lance/data, projection=[a]\n  uri=b/data";
        assert_eq!(redact_addresses(plan), "LanceRead: uri=…, projection=[a]\n  uri=…");
        let folder = env::current_dir().unwrap();
        assert_eq!(redact_addresses(&format!("{}/x", folder.display())), "…/x");
    }

    #[test]
    fn a_plan_names_the_table_in_place_of_its_address() {
        let tables = [("a", "/data/a.lance"), ("b", "s3://bucket/deep/b.lance"), ("c", "c.lance")];
        let addresses = TableAddresses::new(tables);
        assert_eq!(addresses.redact("LanceRead: uri=data/a.lance/data, x"), "LanceRead: table=a, x");
        assert_eq!(addresses.redact("LanceRead: uri=deep/b.lance/data"), "LanceRead: table=b");
        assert_eq!(addresses.redact("s3://bucket/deep/b.lance is gone"), "b is gone");
        let here = env::current_dir().unwrap().display().to_string();
        assert_eq!(addresses.redact(&format!("uri={}/c.lance/data", here.trim_start_matches('/'))), "table=c");
        assert_eq!(addresses.redact("uri=elsewhere/d.lance/data"), "uri=…");
    }

    #[test]
    fn a_short_address_within_other_words_is_kept() {
        let addresses = TableAddresses::new([("words", "t")]);
        assert_eq!(addresses.redact("tests of the table"), "tests of the table");
    }
}
