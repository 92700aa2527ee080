//! The pipeline file: typed, versioned, unknown keys refused.
//!
//! The types in [`Pipeline`] are the one description of the format: reading, checking, the error
//! messages and `schemas/pipeline.schema.json` are all made from them.
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
//! Relative paths in a pipeline file are relative to the directory in which polylance is started, as on
//! the command line, and not to the file.

mod annotate;
mod auto;
mod byte_size;
mod check;
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
pub use csv::{Csv, CsvByte};
pub use error::{ConfigError, Place};
pub use pipeline::{Chunk, ChunkMode, Index, Model, Pipeline, PromptOverrides, Quarantine, Run, Source, Table, Upkeep};
pub use schema::json_schema_text;
pub use task::{TaskError, TaskOptions};
