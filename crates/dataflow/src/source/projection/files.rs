//! Files whose partitions contradict the condition of the source.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Schema, SchemaRef},
};
use datafusion::physical_expr::PhysicalExpr;

use super::{super::partitions::Partitions, compile::Keys, sql::ParsedSql};

/// The parts of a condition that depend on partitions alone.
#[derive(Debug)]
pub(crate) struct FileFilter {
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    partitions: Partitions,
    schema: SchemaRef,
}

impl FileFilter {
    /// The filter of a source whose files have these columns besides the partitions.
    pub(crate) fn new(keys: &Keys, columns: &[String], partitions: &Partitions) -> Self {
        let schema = Arc::new(Schema::new(partitions.fields.clone()));
        let all: Vec<String> = columns.iter().cloned().chain(partitions.names()).collect();
        let conjuncts = keys.condition().map(ParsedSql::conjuncts).unwrap_or_default();
        let planned = conjuncts.iter().filter_map(|conjunct| {
            let resolved = conjunct.resolve(&all).ok()?;
            let is_partition = |name: &String| partitions.position(name).is_some();
            if resolved.columns.is_empty() || !resolved.columns.iter().all(is_partition) {
                return None;
            }
            // The whole condition is planned later, with an error if it is wrong.
            resolved.plan(&schema).ok().filter(|(_, data_type)| *data_type == DataType::Boolean)
        });
        let conditions = planned.map(|(condition, _)| condition).collect();
        Self { conditions, partitions: partitions.clone(), schema }
    }

    /// Whether a file may have rows for which the condition is true.
    pub(crate) fn keeps(&self, file: &str) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let Ok(values) = RecordBatch::try_new(Arc::clone(&self.schema), self.partitions.values(file)) else {
            return true;
        };
        self.conditions.iter().all(|condition| {
            // A computation that fails, fails for each row of the file: they are refused.
            let value = condition.evaluate(&values).and_then(|value| value.into_array(1));
            value.map_or(true, |value| value.as_boolean_opt().is_none_or(|value| value.is_valid(0) && value.value(0)))
        })
    }
}
