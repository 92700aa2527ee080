//! The pipeline file: typed, versioned, unknown keys refused.
//!
//! The types in [`PipelineFile`] are the one description of the format: reading, checking, the error
//! messages and `schemas/pipeline.schema.json` are all made from them.
//!
//! ```
//! use polylance_config::PipelineFile;
//!
//! let text = r#"
//! version = 1
//! [source]
//! uri = "builtin:udhr"
//! [table]
//! uri = "udhr.lance"
//! "#;
//! let file = PipelineFile::parse(text, "quickstart.toml", &["model.devices=['cpu']"])?;
//! assert_eq!(file.model.id, "builtin:multilingual-e5-small");
//! assert_eq!(file.model.devices, ["cpu"]);
//! # Ok::<(), polylance_config::ConfigError>(())
//! ```
//!
//! Relative paths in a pipeline file are relative to the directory in which polylance is started, as on
//! the command line, and not to the file.

mod byte_size;
mod check;
mod document;
mod error;
mod file;
mod read;
mod schema;
mod validate;

pub use byte_size::{ByteSize, ByteSizeError};
pub use error::{ConfigError, Place};
pub use file::{
    ChunkMode, ChunkSection, CommitSection, Dtype, Format, IndexKind, IndexSection, Metric, ModelSection, PipelineFile,
    PromptsSection, SourceSection, TableSection,
};
pub use schema::json_schema;
