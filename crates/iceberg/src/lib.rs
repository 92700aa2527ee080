//! Iceberg tables as sources: the data files of the newest snapshot, and their rows.
//!
//! [`IcebergTable::open`] reads the metadata that a table keeps in its folder, so that no catalog is asked. Data files
//! never change under their name; what changes is which of them, and which deletions, the newest snapshot has.

mod error;
mod metadata_file;
mod storage;
mod table;

pub use error::IcebergError;
pub use metadata_file::{AmbiguousMetadata, is_metadata_file, newest_metadata_file};
pub use table::{DataFile, IcebergTable};
