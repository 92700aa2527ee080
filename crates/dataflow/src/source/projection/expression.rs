//! Planned expressions and their values for the rows of a batch.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, new_empty_array, new_null_array},
    compute::concat,
    datatypes::DataType,
    error::ArrowError,
};
use datafusion::{
    error::DataFusionError,
    physical_expr::{PhysicalExpr, expressions::Column, utils::collect_columns},
};

use super::sql::reason;

/// A planned expression of the source.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    /// The key of the source that has it, for messages.
    pub(super) key: String,
    pub(super) physical: Arc<dyn PhysicalExpr>,
    pub(super) data_type: DataType,
}

impl Expression {
    /// The value for each row. A row for which the computation fails is refused and has null: the batch is computed in
    /// halves until the row is alone.
    pub(super) fn evaluate(&self, batch: &RecordBatch, errors: &mut [Option<String>]) -> Result<ArrayRef, ArrowError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(new_empty_array(&self.data_type));
        }
        match self.compute(batch) {
            Ok(values) => Ok(values),
            Err(error) if rows == 1 => {
                errors[0].get_or_insert_with(|| format!("`{}` of the source: {}", self.key, reason(error)));
                Ok(new_null_array(&self.data_type, 1))
            }
            Err(_) => {
                let half = rows / 2;
                let (first, second) = errors.split_at_mut(half);
                let first = self.evaluate(&batch.slice(0, half), first)?;
                let second = self.evaluate(&batch.slice(half, rows - half), second)?;
                concat(&[&*first, &*second])
            }
        }
    }

    /// Positions of the columns that it uses.
    pub(super) fn columns(&self) -> Vec<usize> {
        collect_columns(&self.physical).iter().map(Column::index).collect()
    }

    fn compute(&self, batch: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let values = self.physical.evaluate(batch)?.into_array(batch.num_rows())?;
        if *values.data_type() == self.data_type {
            return Ok(values);
        }
        Ok(arrow::compute::cast(&values, &self.data_type)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array, AsArray, StringArray},
        datatypes::Int64Type,
    };

    use super::{super::sql::ParsedSql, *};

    #[test]
    fn only_the_row_that_fails_is_refused() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), Some("x"), None, Some("4"), Some("")]));
        let batch = RecordBatch::try_from_iter_with_nullable([("a", texts, true)]).unwrap();
        let sql = ParsedSql::parse("CAST(a AS BIGINT)").unwrap().resolve(&["a".to_owned()]).unwrap();
        let (physical, data_type) = sql.plan(&batch.schema()).unwrap();
        let expression = Expression { key: "where".to_owned(), physical, data_type };
        let mut errors = vec![None; 5];
        let values = expression.evaluate(&batch, &mut errors).unwrap();
        let values = values.as_primitive::<Int64Type>();
        assert_eq!((values.value(0), values.value(3), values.null_count()), (1, 4, 3));
        let refused: Vec<bool> = errors.iter().map(Option::is_some).collect();
        assert_eq!(refused, [false, true, false, false, true]);
        let message = errors[1].as_deref().unwrap();
        assert!(message.starts_with("`where` of the source: ") && message.contains("'x'"), "{message}");
        let none = expression.evaluate(&batch.slice(0, 0), &mut []).unwrap();
        assert!(none.is_empty());
    }
}
