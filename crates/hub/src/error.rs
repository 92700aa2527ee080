//! Errors of the hub, by what the user can do about them.

use std::borrow::Cow;

use object_store::client::HttpError;
use polylance_schema::{ErrorClass, Explain};

/// A request to the hub that failed. No text contains the user's token or a signed address.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The address is not that of a dataset on the hub.
    #[error("`{uri}`: {message}")]
    Address {
        /// The address as it was given.
        uri: String,
        /// What is wrong with it.
        message: &'static str,
    },
    /// No request may be sent.
    #[error("the dataset `{dataset}` is on the hub, and HF_HUB_OFFLINE is set")]
    Offline {
        /// The dataset.
        dataset: String,
    },
    /// `HF_ENDPOINT` cannot be used.
    #[error("HF_ENDPOINT is no address of a server: {message}")]
    Endpoint {
        /// Why.
        message: String,
    },
    /// The hub refuses access, or shows a private dataset to nobody without a token.
    #[error("the hub refuses access to the dataset `{dataset}` (status {status}){reason}")]
    Refused {
        /// The dataset.
        dataset: String,
        /// The status of the response.
        status: u16,
        /// The hub's reason after a colon, or nothing.
        reason: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub has no such dataset, or does not show it to this user.
    #[error("the hub has no dataset `{dataset}`")]
    NoDataset {
        /// The dataset.
        dataset: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// Only a token may write.
    #[error("a push to the dataset `{dataset}` needs a token")]
    NoToken {
        /// The dataset.
        dataset: String,
    },
    /// A private dataset is wanted, and this one is public.
    #[error("the dataset `{dataset}` is public: nothing was sent")]
    Public {
        /// The dataset.
        dataset: String,
    },
    /// The folder for a table has files of something else.
    #[error("the folder `{folder}` of the dataset `{dataset}` has files and is not a table: nothing was sent")]
    Occupied {
        /// The dataset.
        dataset: String,
        /// The folder.
        folder: String,
    },
    /// Another push was faster.
    #[error("the dataset `{dataset}` has a newer commit than the one that this push began with")]
    Moved {
        /// The dataset.
        dataset: String,
    },
    /// The hub may have processed a request that changes the dataset, and its response was lost.
    #[error("the dataset `{dataset}` may have a new commit: the hub did not confirm it")]
    Unconfirmed {
        /// The dataset.
        dataset: String,
        /// How the request ended.
        #[source]
        source: Box<HubError>,
    },
    /// A file was not sent. Nothing was committed.
    #[error("{path} cannot be sent to the dataset `{dataset}`: {message}")]
    Upload {
        /// The dataset.
        dataset: String,
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
    /// The dataset has no such branch, tag or commit.
    #[error("the dataset `{dataset}` has no revision `{revision}`")]
    NoRevision {
        /// The dataset.
        dataset: String,
        /// The revision.
        revision: String,
    },
    /// The dataset has no such file at its commit.
    #[error("the dataset `{dataset}` has no file `{path}`")]
    NoFile {
        /// The dataset.
        dataset: String,
        /// The path.
        path: String,
    },
    /// The hub responds with another status, retries included.
    #[error("the hub responded to a request for the dataset `{dataset}` with status {status}{reason}")]
    Status {
        /// The dataset.
        dataset: String,
        /// The status.
        status: u16,
        /// The hub's reason after a colon, or nothing.
        reason: String,
    },
    /// The hub does not respond, retries included.
    #[error("the hub at {endpoint} does not respond")]
    Unreachable {
        /// The hub's address.
        endpoint: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The response is not that of a hub.
    #[error("{endpoint} does not respond as a hub: {message}")]
    Response {
        /// The address.
        endpoint: String,
        /// What is wrong with the response.
        message: String,
    },
}

impl HubError {
    /// Whether the hub refuses the user, or does not show the dataset.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NoDataset { .. })
    }
}

impl Explain for HubError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Address { .. } => "for example hf://datasets/OWNER/NAME/data/*.parquet, or NAME@REVISION",
            Self::Offline { .. } => "unset HF_HUB_OFFLINE, or name a copy on this machine: datasets are not cached",
            Self::Endpoint { .. } => "unset HF_ENDPOINT, or set it to an address such as https://huggingface.co",
            Self::Refused { has_token: false, .. } | Self::NoDataset { has_token: false, .. } => {
                "check the name; a private or gated dataset needs a token: set HF_TOKEN, or run `hf auth login`"
            }
            Self::Refused { has_token: true, .. } | Self::NoDataset { has_token: true, .. } => {
                "check the name, whether HF_TOKEN is a token with access to the dataset, and whether the dataset's page \
                 has conditions to accept"
            }
            Self::NoToken { .. } => {
                "set HF_TOKEN to a token that may write (https://huggingface.co/settings/tokens), or \
                                     run `hf auth login`"
            }
            Self::Public { .. } => "make it private on its page, or push without --private",
            Self::Occupied { .. } => {
                "name another folder after the dataset's name, such as hf://datasets/OWNER/NAME/docs.lance"
            }
            Self::Moved { .. } | Self::Upload { .. } => {
                "nothing was committed: run the same command again, and files that were sent are not sent again"
            }
            Self::Unconfirmed { .. } => {
                "run the same command again: it is safe, and a commit that exists is not repeated"
            }
            Self::NoRevision { .. } => "the dataset's page lists its branches, tags and commits",
            Self::NoFile { .. } => "the dataset's page lists its files",
            Self::Status { status: 429, .. } => {
                "the hub limits the number of requests: wait a few minutes, or set \
                                                 HF_TOKEN for a higher limit"
            }
            Self::Status { .. } => "run again later; https://status.huggingface.co shows the state of the hub",
            Self::Unreachable { .. } | Self::Response { .. } => {
                "check the network, the proxy and HF_ENDPOINT, and run again"
            }
        };
        Some(Cow::Borrowed(hint))
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Moved { .. }
            | Self::Upload { .. }
            | Self::Unconfirmed { .. }
            | Self::Status { .. }
            | Self::Unreachable { .. }
            | Self::Response { .. } => ErrorClass::Environment,
            _ => ErrorClass::User,
        }
    }
}

impl From<HubError> for object_store::Error {
    fn from(error: HubError) -> Self {
        match error {
            HubError::NoFile { path, dataset } => {
                Self::NotFound { path: path.clone(), source: HubError::NoFile { path, dataset }.into() }
            }
            error if error.is_refusal() => Self::PermissionDenied { path: String::new(), source: error.into() },
            error => Self::Generic { store: "hub", source: error.into() },
        }
    }
}
