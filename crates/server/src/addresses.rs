//! Where the tables are, to be left out of what is told of them.

use std::{collections::BTreeMap, path};

use crate::{error::ApiError, public_text::without_addresses};

/// The addresses of the tables, as plans write them, and the names that stand for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    /// Longest first: one address may be the beginning of another.
    names: Vec<(String, String)>,
}

impl Addresses {
    /// `addresses` by name.
    pub(crate) fn new<'t>(addresses: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut names = BTreeMap::new();
        for (name, uri) in addresses {
            for form in forms(uri) {
                names.insert(form, name.to_owned());
            }
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        Self { names }
    }

    /// The error with a message in which no address is.
    pub(crate) fn hide_in(&self, error: ApiError) -> ApiError {
        ApiError { message: self.hide(&error.message), ..error }
    }

    /// The text with a table's name for its address, and nothing for any other address.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (address, name) in &self.names {
            text = text.replace(&format!("uri={address}/data"), &format!("table={name}"));
            text = text.replace(address, name);
        }
        without_addresses(&text)
    }
}

/// An address as it was given, as a whole one, and as an object store writes it. What is too short to be told from
/// other words is left out: plans write the whole one.
fn forms(uri: &str) -> Vec<String> {
    let uri = uri.trim_end_matches('/');
    let mut forms = vec![uri.to_owned()];
    let local = uri.strip_prefix("file://").unwrap_or(uri);
    if let Some((_, key)) = uri.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        forms.push(key.to_owned());
        forms.extend(key.split_once('/').map(|(_, key)| key.to_owned()));
    } else if let Ok(whole) = path::absolute(local) {
        let real = std::fs::canonicalize(&whole).unwrap_or_else(|_| whole.clone());
        for path in [whole, real] {
            let path = path.display().to_string();
            forms.push(path.trim_start_matches('/').to_owned());
            forms.push(path);
        }
    }
    forms.retain(|form| form.contains('/'));
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_the_table_in_place_of_its_address() {
        let addresses = Addresses::new([("a", "/data/a.lance"), ("b", "s3://bucket/deep/b.lance"), ("c", "c.lance")]);
        assert_eq!(addresses.hide("LanceRead: uri=data/a.lance/data, x"), "LanceRead: table=a, x");
        assert_eq!(addresses.hide("LanceRead: uri=deep/b.lance/data"), "LanceRead: table=b");
        assert_eq!(addresses.hide("s3://bucket/deep/b.lance is gone"), "b is gone");
        let here = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(addresses.hide(&format!("uri={}/c.lance/data", here.trim_start_matches('/'))), "table=c");
        assert_eq!(addresses.hide("uri=elsewhere/d.lance/data"), "uri=…");
    }

    #[test]
    fn a_short_name_in_a_text_stays() {
        let addresses = Addresses::new([("words", "t")]);
        assert_eq!(addresses.hide("tests of the table"), "tests of the table");
    }
}
