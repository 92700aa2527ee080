//! The Hugging Face hub: where it is, and datasets on it as sources and tables.
//!
//! [`HubSettings`] is the one reading of the variables `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE`. With
//! the feature `datasets`, a [`HubStore`] is a dataset at one commit as a read-only object store: sources read its
//! files, and Lance opens tables through it ([`table_stores`]). [`HubClient`] sends the requests.

#[cfg(feature = "datasets")]
mod address;
#[cfg(feature = "datasets")]
mod client;
#[cfg(feature = "datasets")]
mod download;
#[cfg(feature = "datasets")]
mod error;
#[cfg(feature = "datasets")]
mod lance;
#[cfg(feature = "datasets")]
mod push;
mod settings;
#[cfg(feature = "datasets")]
mod store;
#[cfg(feature = "datasets")]
mod tree;

#[cfg(feature = "datasets")]
pub use address::{HubAddress, is_hub};
#[cfg(feature = "datasets")]
pub use client::HubClient;
#[cfg(feature = "datasets")]
pub use error::HubError;
#[cfg(feature = "datasets")]
pub use lance::table_stores;
#[cfg(feature = "datasets")]
pub use push::{Content, DatasetState, Naming, PushFile, Pushed, Visibility};
pub use settings::{HubSettings, Token};
#[cfg(feature = "datasets")]
pub use store::HubStore;
#[cfg(feature = "datasets")]
pub use tree::{HubEntry, HubFile};
