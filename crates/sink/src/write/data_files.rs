//! Writes data files that no version of the table refers to yet.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::runtime::SpawnedTask,
    error::{DataFusionError, Result},
    execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::stream;
use lance::dataset::{InsertBuilder, WriteMode, WriteParams, builder::DatasetBuilder, transaction::Operation};
use lance_table::format::Fragment;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::field_ids::{WrittenField, written_fields};
use crate::{error::SinkError, table::synced_store};

/// Maximum rows of a data file: a larger window has several files.
const MAX_FILE_ROWS: usize = 1 << 20;
/// Maximum bytes of a data file.
const MAX_FILE_BYTES: usize = 1 << 30;
/// Lance's writer with a queue of one batch.
#[derive(Debug)]
pub(super) struct DataFiles {
    rows: Sender<RecordBatch>,
    written: SpawnedTask<Result<WrittenFiles, SinkError>>,
}

impl DataFiles {
    pub(super) fn open(uri: String, schema: SchemaRef) -> Self {
        let (rows, receiver) = channel(1);
        Self { rows, written: SpawnedTask::spawn(Box::pin(write_files(uri, schema, receiver))) }
    }

    /// False when the writer has stopped: [`Self::close`] returns why.
    pub(super) async fn write(&self, rows: RecordBatch) -> bool {
        self.rows.send(rows).await.is_ok()
    }

    pub(super) async fn close(self) -> Result<WrittenFiles> {
        drop(self.rows);
        let joined = self.written.join_unwind().await;
        Ok(joined.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??)
    }
}

/// Data files that no version refers to yet.
#[derive(Debug)]
pub(super) struct WrittenFiles {
    pub(super) fragments: Vec<Fragment>,
    pub(super) fields: Vec<WrittenField>,
}

async fn write_files(
    uri: String,
    schema: SchemaRef,
    receiver: Receiver<RecordBatch>,
) -> Result<WrittenFiles, SinkError> {
    let writing = || SinkError::storage(&uri, "writing data files");
    let rows = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await.map(Ok)?, receiver)) });
    let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
    // `Append` to an address without a table writes the files of a new table: the commit decides.
    let params = WriteParams {
        mode: WriteMode::Append,
        max_rows_per_file: MAX_FILE_ROWS,
        max_bytes_per_file: MAX_FILE_BYTES,
        session: Some(synced_store::session()),
        ..WriteParams::default()
    };
    let insert = InsertBuilder::new(uri.as_str()).with_params(&params);
    let transaction = Box::pin(insert.execute_uncommitted_stream(rows)).await.map_err(writing())?;
    match transaction.operation {
        Operation::Append { fragments } => {
            let builder = DatasetBuilder::from_uri(&uri).with_version(transaction.read_version);
            let dataset = Box::pin(builder.load()).await.map_err(writing())?;
            Ok(WrittenFiles { fragments, fields: written_fields(dataset.schema()) })
        }
        Operation::Overwrite { fragments, schema, .. } => {
            Ok(WrittenFiles { fragments, fields: written_fields(&schema) })
        }
        other => Err(SinkError::rows(&uri, format!("lance planned `{other}` for an append"))),
    }
}
