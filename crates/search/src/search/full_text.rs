//! Full-text search with an index of folded text: folds the query, and the text of rows that no index covers.

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
use lance::dataset::scanner::Scanner;
use lance_index::scalar::FullTextSearchQuery;
use polylance_schema::{
    columns::TEXT,
    full_text::{fold, fold_query},
};

use crate::SearchTable;

/// Lance's operators that tokenize the text of their first input.
const TEXT_READING_OPERATORS: [&str; 2] = ["FlatMatchQueryExec", "HybridCompoundQueryExec"];

/// The words of a query as the index has them; `None` for a query without words.
pub(super) fn query_words(table: &SearchTable, query: &str) -> Option<String> {
    let words = if table.has_unfolded_text_index() { query.to_owned() } else { fold_query(query) };
    words.contains(char::is_alphanumeric).then_some(words)
}

/// The query of the index; `None` for a query without words.
pub(super) fn index_query(table: &SearchTable, query: &str) -> lance::Result<Option<FullTextSearchQuery>> {
    let Some(words) = query_words(table, query) else { return Ok(None) };
    FullTextSearchQuery::new(words).with_column(TEXT.to_owned()).map(Some)
}

/// The rows of a full-text scan. Where the index holds folded text, unindexed rows are folded as they are read.
pub(super) async fn read(table: &SearchTable, scanner: &Scanner) -> lance::Result<RecordBatch> {
    if table.has_unfolded_text_index() {
        return Box::pin(scanner.try_into_batch()).await;
    }
    let plan = Box::pin(scanner.create_plan()).await?;
    let plan = plan.transform_up(with_folded_text).data()?;
    let schema = plan.schema();
    let rows = collect(plan, Arc::new(TaskContext::default())).await?;
    Ok(concat_batches(&schema, &rows)?)
}

fn with_folded_text(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if !TEXT_READING_OPERATORS.contains(&plan.name()) {
        return Ok(Transformed::no(plan));
    }
    let mut inputs: Vec<_> = plan.children().into_iter().cloned().collect();
    if let Some(rows) = inputs.first_mut() {
        *rows = fold_text_column(Arc::clone(rows))?;
    }
    Ok(Transformed::yes(plan.with_new_children(inputs)?))
}

/// The same rows with their text folded.
fn fold_text_column(rows: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = rows.schema();
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), at));
        let column = if field.name() == TEXT {
            let function = Arc::new(fold_function(field.data_type()));
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

fn fold_function(data_type: &DataType) -> ScalarUDF {
    let function = |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let folded = arrays.first().map(fold_array);
        folded.unwrap_or_else(|| Err(DataFusionError::Internal("fold takes one argument".to_owned()))).map(Into::into)
    };
    create_udf("fold", vec![data_type.clone()], data_type.clone(), Volatility::Immutable, Arc::new(function))
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
        other => return Err(DataFusionError::Internal(format!("{other} is not a text type"))),
    })
}
