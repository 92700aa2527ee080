//! Searching by words in an index of folded text: the query is folded, and so is the text of rows that no index covers.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, LargeStringArray, RecordBatch, StringArray, StringViewArray},
    compute::concat_batches,
    datatypes::DataType,
};
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::TaskContext,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
    physical_expr::{PhysicalExpr, ScalarFunctionExpr, expressions::Column},
    physical_plan::{ExecutionPlan, collect, projection::ProjectionExec},
};
use lance::{Dataset, dataset::scanner::Scanner, index::DatasetIndexExt};
use lance_index::scalar::FullTextSearchQuery;
use polylance_schema::{
    columns::TEXT,
    words::{WORDS_INDEX, fold, fold_query},
};

use crate::SearchTable;

/// Lance's operators that cut the text of rows into words, whose first input these rows are.
const READERS_OF_TEXT: [&str; 2] = ["FlatMatchQueryExec", "HybridCompoundQueryExec"];

/// Whether the words that a search of `dataset` finds are those of folded text.
pub(crate) async fn are_folded(dataset: &Dataset) -> lance::Result<bool> {
    let Some(text) = dataset.schema().field(TEXT) else { return Ok(false) };
    let indices = dataset.load_indices().await?;
    let of_words = |details: &str| details.ends_with("InvertedIndexDetails");
    let mut names = indices
        .iter()
        .filter(|index| index.fields.contains(&text.id))
        .filter(|index| index.index_details.as_ref().is_none_or(|details| of_words(&details.type_url)))
        .map(|index| index.name.as_str())
        .peekable();
    Ok(names.peek().is_some() && names.all(|name| name == WORDS_INDEX))
}

/// The words as the index has them; `None` when there is no word in `words`.
pub(crate) fn of_query(table: &SearchTable, words: &str) -> Option<String> {
    let words = if table.has_older_words() { words.to_owned() } else { fold_query(words) };
    words.contains(char::is_alphanumeric).then_some(words)
}

/// What the index is searched for; `None` when there is no word in `words`.
pub(crate) fn query(table: &SearchTable, words: &str) -> lance::Result<Option<FullTextSearchQuery>> {
    let Some(words) = of_query(table, words) else { return Ok(None) };
    FullTextSearchQuery::new(words).with_column(TEXT.to_owned()).map(Some)
}

/// The rows of a scan. One by words reads folded text where the index is of folded text.
pub(crate) async fn read(table: &SearchTable, scanner: &Scanner) -> lance::Result<RecordBatch> {
    if table.has_older_words() {
        return Box::pin(scanner.try_into_batch()).await;
    }
    let plan = Box::pin(scanner.create_plan()).await?;
    let plan = plan.transform_up(with_folded_text).data()?;
    let schema = plan.schema();
    let rows = collect(plan, Arc::new(TaskContext::default())).await?;
    Ok(concat_batches(&schema, &rows)?)
}

fn with_folded_text(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if !READERS_OF_TEXT.contains(&plan.name()) {
        return Ok(Transformed::no(plan));
    }
    let mut inputs: Vec<_> = plan.children().into_iter().cloned().collect();
    if let Some(rows) = inputs.first_mut() {
        *rows = folded(Arc::clone(rows))?;
    }
    Ok(Transformed::yes(plan.with_new_children(inputs)?))
}

/// The same rows with their text folded.
fn folded(rows: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = rows.schema();
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), at));
        let column = if field.name() == TEXT {
            let function = Arc::new(folding(field.data_type()));
            let (fold, options) = (function.name().to_owned(), Arc::new(ConfigOptions::default()));
            Arc::new(ScalarFunctionExpr::new(&fold, function, vec![column], Arc::clone(field), options))
        } else {
            column
        };
        (column, field.name().clone())
    });
    let columns: Vec<_> = columns.collect();
    Ok(Arc::new(ProjectionExec::try_new(columns, rows)?))
}

fn folding(of: &DataType) -> ScalarUDF {
    let function = |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let folded = arrays.first().map(fold_array);
        folded.unwrap_or_else(|| Err(DataFusionError::Internal("there is no text to fold".to_owned()))).map(Into::into)
    };
    create_udf("fold", vec![of.clone()], of.clone(), Volatility::Immutable, Arc::new(function))
}

fn fold_array(text: &ArrayRef) -> Result<ArrayRef> {
    Ok(match text.data_type() {
        DataType::Utf8 => Arc::new(text.as_string::<i32>().iter().map(|text| text.map(fold)).collect::<StringArray>()),
        DataType::LargeUtf8 => {
            Arc::new(text.as_string::<i64>().iter().map(|text| text.map(fold)).collect::<LargeStringArray>())
        }
        DataType::Utf8View => {
            Arc::new(text.as_string_view().iter().map(|text| text.map(fold)).collect::<StringViewArray>())
        }
        other => return Err(DataFusionError::Internal(format!("{other} is no text"))),
    })
}
