//! Reports of commits, as rows of a plan.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type},
    error::ArrowError,
};

/// The outcome of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitReport {
    /// The version that the commit made; `None` when all rows went to the quarantine.
    pub version: Option<u64>,
    /// Documents written.
    pub documents: u64,
    /// Rows written for them.
    pub chunks: u64,
    /// Rows that went to the quarantine.
    pub quarantined: u64,
    /// Tokens of the documents.
    pub tokens: u64,
}

impl CommitReport {
    const NAMES: [&str; 5] = ["version", "documents", "chunks", "quarantined", "tokens"];

    /// The columns, all `UInt64`; only `version` may be null.
    pub fn schema() -> SchemaRef {
        schema(&Self::NAMES, &["version"])
    }

    /// Reports as rows.
    ///
    /// # Errors
    /// Never: every column has one value per report.
    pub fn to_batch(reports: &[Self]) -> Result<RecordBatch, ArrowError> {
        let column =
            |value: fn(&Self) -> Option<u64>| Arc::new(reports.iter().map(value).collect::<UInt64Array>()) as ArrayRef;
        let columns = vec![
            column(|report| report.version),
            column(|report| Some(report.documents)),
            column(|report| Some(report.chunks)),
            column(|report| Some(report.quarantined)),
            column(|report| Some(report.tokens)),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }

    /// The reports of a batch.
    ///
    /// # Errors
    /// When the batch lacks a column of commit reports.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = columns(batch, &Self::NAMES)?;
        let report = |row: usize| Self {
            version: columns[0].is_valid(row).then(|| columns[0].value(row)),
            documents: columns[1].value(row),
            chunks: columns[2].value(row),
            quarantined: columns[3].value(row),
            tokens: columns[4].value(row),
        };
        Ok((0..batch.num_rows()).map(report).collect())
    }
}

/// The outcome of one commit of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FillReport {
    /// The table's version after the commit.
    pub version: u64,
    /// Rows that received a value.
    pub rows: u64,
    /// Rows that went to the quarantine.
    pub quarantined: u64,
    /// Rows whose fragment was merged into another after they were read: they still lack a value.
    pub moved: u64,
}

impl FillReport {
    const NAMES: [&str; 4] = ["version", "rows", "quarantined", "moved"];

    /// The columns, all `UInt64` and not null.
    pub fn schema() -> SchemaRef {
        schema(&Self::NAMES, &[])
    }

    /// The report as a row.
    ///
    /// # Errors
    /// Never: each column has one value.
    pub fn to_batch(self) -> Result<RecordBatch, ArrowError> {
        let column = |value: u64| Arc::new(UInt64Array::from(vec![value])) as ArrayRef;
        let columns = [self.version, self.rows, self.quarantined, self.moved].map(column).to_vec();
        RecordBatch::try_new(Self::schema(), columns)
    }

    /// The reports of a batch.
    ///
    /// # Errors
    /// When the batch lacks a column of fill reports.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = columns(batch, &Self::NAMES)?;
        let report = |row: usize| Self {
            version: columns[0].value(row),
            rows: columns[1].value(row),
            quarantined: columns[2].value(row),
            moved: columns[3].value(row),
        };
        Ok((0..batch.num_rows()).map(report).collect())
    }
}

fn schema(names: &[&str], nullable: &[&str]) -> SchemaRef {
    let field = |name: &&str| Field::new(*name, DataType::UInt64, nullable.contains(name));
    Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
}

fn columns<'b>(batch: &'b RecordBatch, names: &[&str]) -> Result<Vec<&'b UInt64Array>, ArrowError> {
    let column = |name: &&str| {
        let found = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<UInt64Type>());
        found.ok_or_else(|| ArrowError::SchemaError(format!("a commit report without the column {name}")))
    };
    names.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_round_trip_through_a_batch() {
        let reports = [
            CommitReport { version: Some(3), documents: 2, chunks: 5, quarantined: 1, tokens: 700 },
            CommitReport { quarantined: 4, ..CommitReport::default() },
        ];
        assert_eq!(CommitReport::from_batch(&CommitReport::to_batch(&reports).unwrap()).unwrap(), reports);
        let filled = FillReport { version: 9, rows: 4, quarantined: 1, moved: 2 };
        assert_eq!(FillReport::from_batch(&filled.to_batch().unwrap()).unwrap(), [filled]);
        assert!(CommitReport::from_batch(&filled.to_batch().unwrap()).is_err());
    }
}
