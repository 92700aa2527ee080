//! Builds a piece of the full-text index from folded text.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    error::DataFusionError, execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::StreamExt;
use lance::{Dataset, dataset::index::LanceIndexStoreExt, index::NoopIndexBuildProgress};
use lance_core::ROW_ID;
use lance_index::scalar::{
    InvertedIndexParams, index_files_to_table, inverted::InvertedIndexPlugin, lance_format::LanceIndexStore,
};
use lance_table::format::{Fragment, IndexMetadata};
use polylance_schema::{columns::TEXT, full_text::fold};
use uuid::Uuid;

/// Writes the files of an index named `name` over the text of `fragments`; a commit adds it to the table.
///
/// Lance itself would read the unfolded text, so only this function may build such an index and add to it. Lance may
/// still change it in ways that read no text (new addresses after a compaction).
pub(super) async fn train(dataset: &Dataset, name: &str, fragments: Vec<Fragment>) -> lance::Result<IndexMetadata> {
    let field = dataset.schema().field(TEXT).map(|field| field.id);
    let field = field.ok_or_else(|| lance::Error::invalid_input(format!("there is no column {TEXT}")))?;
    let mut covered = dataset.fragment_bitmap().as_ref().clone();
    for id in dataset.fragment_bitmap().iter() {
        if !fragments.iter().any(|fragment| fragment.id == u64::from(id)) {
            covered.remove(id);
        }
    }
    let mut scanner = dataset.scan();
    scanner.project(&[TEXT])?.with_row_id().with_fragments(fragments);
    let rows = Box::pin(scanner.try_into_stream()).await?;
    let uuid = Uuid::now_v7();
    let store = LanceIndexStore::from_dataset_for_new(dataset, &uuid)?;
    let progress = Arc::new(NoopIndexBuildProgress);
    let trained =
        InvertedIndexPlugin::train_inverted_index(folded(rows.into()), &store, parameters(), None, progress).await?;
    Ok(IndexMetadata {
        uuid,
        fields: vec![field],
        covering_fields: Vec::new(),
        name: name.to_owned(),
        dataset_version: dataset.version_id(),
        fragment_bitmap: Some(covered),
        index_details: Some(Arc::new(trained.index_details)),
        index_version: i32::try_from(trained.index_version).unwrap_or(i32::MAX),
        created_at: Some(chrono::Utc::now()),
        base_id: None,
        files: Some(index_files_to_table(trained.files)),
    })
}

/// ICU cuts the words. In folded text, Lance's own folding only changes rare Latin letters.
fn parameters() -> InvertedIndexParams {
    InvertedIndexParams::default()
        .base_tokenizer("icu".to_owned())
        .max_token_length(None)
        .stem(false)
        .remove_stop_words(false)
        .lower_case(true)
        .ascii_folding(true)
}

fn folded(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let fields = vec![Field::new(TEXT, DataType::Utf8, true), Field::new(ROW_ID, DataType::UInt64, false)];
    let schema = Arc::new(Schema::new(fields));
    let folded_schema = Arc::clone(&schema);
    let folded = rows.map(move |rows| fold_rows(&rows?, &folded_schema));
    Box::pin(RecordBatchStreamAdapter::new(schema, folded))
}

fn fold_rows(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let column = |name: &str| {
        let missing = || ArrowError::SchemaError(format!("there is no column {name}"));
        rows.column_by_name(name).ok_or_else(missing)
    };
    let text = cast(column(TEXT)?, &DataType::Utf8)?;
    let words: StringArray = text.as_string::<i32>().iter().map(|text| text.map(fold)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(words), Arc::clone(column(ROW_ID)?)];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
