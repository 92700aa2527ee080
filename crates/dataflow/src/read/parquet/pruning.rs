//! Row groups that have no row for which the condition of the source is true, by their statistics.
//!
//! Statistics count only where they bound the values exactly as they are read: not for floating-point numbers, whose
//! statistics leave out NaN, and not for bounds whose order old writers did not define.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, UInt64Array},
    compute::cast,
    datatypes::Schema,
};
use datafusion::{
    common::{Column, pruning::PruningStatistics},
    physical_optimizer::pruning::PruningPredicate,
    scalar::ScalarValue,
};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, statistics::StatisticsConverter},
    basic::Type,
    file::{metadata::RowGroupMetaData, statistics::Statistics},
};

use crate::read::types::widen::{plain_type, widen};

/// Whether each row group is sure to have no row that fulfils the condition.
pub(super) fn without_rows(condition: &PruningPredicate, file: &ArrowReaderMetadata) -> Vec<bool> {
    let statistics = RowGroups { file, groups: file.metadata().row_groups(), read_as: condition.schema() };
    // Without a decision, everything is read.
    let may_have = condition.prune(&statistics).unwrap_or_default();
    may_have.into_iter().map(|may_have| !may_have).collect()
}

/// The statistics of the row groups of a file.
struct RowGroups<'a> {
    file: &'a ArrowReaderMetadata,
    groups: &'a [RowGroupMetaData],
    /// The columns with the types in which they are read.
    read_as: &'a Schema,
}

impl<'a> RowGroups<'a> {
    fn converter(&self, column: &Column) -> Option<StatisticsConverter<'a>> {
        let schema: &'a Schema = self.file.schema();
        let converter = StatisticsConverter::try_new(column.name(), schema, self.file.parquet_schema()).ok()?;
        Some(converter.with_missing_null_counts_as_zero(false))
    }

    /// Bounds in the type in which the column is read.
    fn bounds(
        &self,
        column: &Column,
        bounds: impl Fn(&StatisticsConverter<'a>, &'a [RowGroupMetaData]) -> Option<ArrayRef>,
    ) -> Option<ArrayRef> {
        let to = self.read_as.field_with_name(column.name()).ok()?.data_type();
        let converter = self.converter(column)?;
        let from = plain_type(converter.arrow_field().data_type());
        let exact = from == *to || from.is_integer() && to.is_integer() && widen(&from, to) == *to;
        if !exact || from.is_floating() || from.is_nested() {
            return None;
        }
        let leaf = converter.parquet_column_index()?;
        let is_unordered = |group: &RowGroupMetaData| {
            group.columns().get(leaf).is_none_or(|column| {
                column.column_type() == Type::INT96
                    || column.statistics().is_some_and(Statistics::is_min_max_deprecated)
            })
        };
        if self.groups.iter().any(is_unordered) {
            return None;
        }
        cast(&bounds(&converter, self.groups)?, to).ok()
    }
}

impl PruningStatistics for RowGroups<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |converter, groups| converter.row_group_mins(groups).ok())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |converter, groups| converter.row_group_maxes(groups).ok())
    }

    fn num_containers(&self) -> usize {
        self.groups.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        if self.file.schema().field_with_name(column.name()).is_err() {
            // A file without the column yields nulls for it.
            return self.row_counts();
        }
        Some(Arc::new(self.converter(column)?.row_group_null_counts(self.groups).ok()?))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.groups.iter().map(|group| group.num_rows().unsigned_abs()))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
