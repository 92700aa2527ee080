//! What the end-to-end tests share: the built binary, small models, Python's Lance clients, an S3 server, a server of tables.
#![expect(clippy::missing_panics_doc, reason = "a test helper panics to fail its test")]

mod binary;
mod corpus;
mod disturb;
mod fake;
mod fake_job;
mod faults;
mod head_model;
mod python;
mod s3;
mod served;
mod table;
mod tiny_model;

pub use binary::{Outcome, built, polylance, polylance_with, program, repository};
pub use corpus::{Row, write_parquet};
pub use disturb::disturb;
pub use fake::{fake_head, fake_pipeline};
pub use fake_job::{Found, fake_job, read_fake_job, write_fake_corpus};
pub use faults::FaultProxy;
pub use head_model::write_head_model;
pub use python::python;
pub use s3::{CloudServer, S3Server};
pub use served::{Answer, Served, declaration, read_to_end};
pub use table::{read_table, strings, vectors};
pub use tiny_model::TinyModel;
