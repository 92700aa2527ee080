//! Addresses in object stores, which are opened like tables.

use std::{fmt::Display, sync::Arc};

use object_store::ObjectStore;
use url::Url;

/// The schemes of stores that Lance opens too.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// An address at `s3://`, `gs://` or `az://`.
#[derive(Debug, Clone, Copy)]
pub struct ObjectAddress<'a> {
    /// The scheme and the bucket.
    root: &'a str,
    key: &'a str,
}

impl<'a> ObjectAddress<'a> {
    /// The parts of an address; `None` for one that is not in an object store.
    pub fn parse(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        if !SCHEMES.contains(&scheme) {
            return None;
        }
        let start = uri.len() - rest.len();
        let (root, key) = uri.split_at(rest.find('/').map_or(uri.len(), |at| start + at));
        Some(Self { root, key: key.strip_prefix('/').unwrap_or_default() })
    }

    /// The scheme and the bucket, as Lance opens them.
    pub(super) fn root(&self) -> &'a str {
        self.root
    }

    /// The part after the bucket, without the slash before it.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The store, opened like a table, so that one set of keys, profiles and endpoints serves both.
    ///
    /// # Errors
    /// The reason, without secrets.
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, String> {
        let opened = lance_io::object_store::ObjectStore::from_uri(self.root).await;
        let (store, _) = opened.map_err(|error| without_secrets(&error))?;
        Ok(Arc::clone(&store.inner))
    }

    /// The scheme and the bucket without a password: addresses are written to tables.
    ///
    /// # Errors
    /// The reason why it is no URL, without secrets.
    pub fn public_root(&self) -> Result<String, String> {
        let mut url = Url::parse(self.root).map_err(|error| without_secrets(&error))?;
        // Not every kind of URL can have one. `az://container@account` has the container before the account.
        let _ = url.set_password(None);
        if url.scheme() != "az" {
            let _ = url.set_username("");
        }
        Ok(url[..url::Position::BeforePath].to_owned())
    }

    /// The address as messages and tables may show it.
    ///
    /// # Errors
    /// As [`Self::public_root`].
    pub fn public(&self) -> Result<String, String> {
        let slash = if self.key.is_empty() { "" } else { "/" };
        Ok(format!("{}{slash}{}", self.public_root()?, self.key))
    }
}

/// A store's message without the values of options that it may quote.
fn without_secrets(message: &dyn Display) -> String {
    message.to_string().split(['\n', '=']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_shown_without_passwords() {
        for (uri, key, public) in [
            ("s3://bucket/models/e5", "models/e5", "s3://bucket/models/e5"),
            ("s3://bucket/models/e5/", "models/e5/", "s3://bucket/models/e5/"),
            ("gs://bucket", "", "gs://bucket"),
            ("s3://key:secret@bucket/a b/x", "a b/x", "s3://bucket/a b/x"),
            ("az://container@account/x", "x", "az://container@account/x"),
            ("az://container:secret@account/x", "x", "az://container@account/x"),
        ] {
            let address = ObjectAddress::parse(uri).unwrap();
            assert_eq!((address.key(), address.public().unwrap().as_str()), (key, public), "{uri}");
        }
        for other in ["models/e5", "intfloat/multilingual-e5-small", "https://host/x", "hf://datasets/a/b", "s3:/x"] {
            assert!(ObjectAddress::parse(other).is_none(), "{other}");
        }
        assert!(ObjectAddress::parse("s3://[b/x").unwrap().public().is_err());
    }
}
