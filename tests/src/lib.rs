//! Helpers of the end-to-end tests: the built binary, processes of a cluster, small models, Python's Lance clients, an S3
//! server, a server of tables.
#![expect(clippy::missing_panics_doc, reason = "a test helper panics to fail its test")]

mod binary;
mod corpus;
mod disturb;
mod draw;
mod fake;
mod fake_job;
mod fault_proxy;
mod head_model;
mod hub;
mod processes;
mod python;
mod s3;
mod slurm;
mod table;
mod test_server;
mod tiny_model;

pub use binary::{Outcome, binary_path, polylance, polylance_command, polylance_with, repository};
pub use corpus::{Row, write_parquet, write_row_groups};
pub use disturb::build_disturb_library;
pub use draw::draw;
pub use fake::{FakeModels, fake_ner_contract, fake_pipeline, paced_model};
pub use fake_job::{TableContents, fake_job, read_contents, read_contents_of, write_fake_corpus};
pub use fault_proxy::FaultProxy;
pub use head_model::write_head_model;
pub use hub::{HUB_TOKEN, TestHub};
pub use processes::{Process, free_port, start_scheduler, wait_for_executors, wait_until};
pub use python::{python, python_with_ray, read_yaml};
pub use s3::{CloudServer, S3Server};
pub use slurm::Slurm;
pub use table::{read_table, strings, vectors};
pub use test_server::{Response, TestServer, embed_declaration, read_response};
pub use tiny_model::TinyModel;
