//! The pipeline file: TOML, typed, versioned; an unknown key is refused with the nearest known one.
//!
//! ```
//! let pipeline = polylance_config::Pipeline::parse(
//!     "job.toml",
//!     r#"
//!     version = 1
//!     [source]
//!     uri = "s3://corpus/docs/*.parquet"
//!     [table]
//!     uri = "s3://corpus/docs.lance"
//!     "#,
//!     &[],
//! )?;
//! assert_eq!(pipeline.model.id, "builtin:multilingual-e5-small");
//! # Ok::<(), polylance_config::ConfigError>(())
//! ```

mod byte_size;
mod document;
mod error;
mod pipeline;

pub use byte_size::ByteSize;
pub use document::{json_schema, json_schema_text};
pub use error::ConfigError;
pub use pipeline::{Chunk, ChunkMode, Commit, Dtype, Format, Index, IndexKind, Metric, Model, Pipeline, Source, Table};
