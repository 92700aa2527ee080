//! The pipeline file: typed, versioned, unknown keys refused.
//!
//! The types in [`Pipeline`] are the only description of the format: reading, checks, error messages and
//! `schemas/pipeline.schema.json` all derive from them.
//!
//! ```
//! use polylance_config::Pipeline;
//!
//! let text = r#"
//! version = 1
//! [source]
//! uri = "builtin:udhr"
//! [table]
//! uri = "udhr.lance"
//! "#;
//! let file = Pipeline::parse("quickstart.toml", text, &["model.devices=['cpu']"])?;
//! assert_eq!(file.model.id, "builtin:multilingual-e5-small");
//! assert_eq!(file.model.devices, ["cpu"]);
//! # Ok::<(), polylance_config::ConfigError>(())
//! ```
//!
//! As on the command line, relative paths in a pipeline file are relative to the directory in which polylance is started,
//! not to the file.

mod annotate;
mod auto;
mod byte_size;
mod check;
mod cluster;
mod csv;
mod document;
mod error;
mod pipeline;
mod read;
mod schema;
mod task;
mod validate;

pub use annotate::Annotate;
pub use byte_size::{ByteSize, ByteSizeError};
pub use cluster::Cluster;
pub use csv::{Csv, CsvByte};
pub use error::{ConfigError, Location};
pub use pipeline::{Chunk, Index, Model, Pipeline, PromptOverrides, Quarantine, Run, Source, Table};
pub use schema::json_schema_text;
pub use task::{TaskError, TaskOptions};
