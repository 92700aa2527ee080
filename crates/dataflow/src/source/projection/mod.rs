//! From the columns of the files to documents: ids, texts and kept columns as the source's keys describe them.
//!
//! Readers yield columns; this is the only place that knows of expressions, conditions, partitions, and ids that are
//! no column.

mod compile;
mod expression;
mod files;
mod sql;

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
        new_null_array,
    },
    compute::{cast, filter, filter_record_batch, nullif, take},
    datatypes::{DataType, FieldRef, Schema, SchemaRef},
    error::ArrowError,
};

use self::expression::Expression;
pub(crate) use self::{
    compile::{Keys, SourceColumns},
    files::FileFilter,
};
use super::{
    location::listing::Scope,
    partitions::{Partitions, relative_path},
};
use crate::read::{columns::Columns, rows::Rows, types::exact};

/// The hexadecimal digits of a hash of a text: 128 bits.
const CONTENT_ID_DIGITS: usize = 32;

/// How much of each row is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// All columns.
    Whole,
    /// The ids alone, of an unchanged file.
    IdsOnly,
}

/// How documents come from the columns of the files.
#[derive(Debug)]
pub(crate) struct Projection {
    id: IdSource,
    text: TextSource,
    keep: Vec<KeptSource>,
    /// The kept columns as the table has them.
    fields: Vec<FieldRef>,
    condition: Option<Expression>,
    /// The columns over which expressions are computed: those of the files, then partitions.
    schema: SchemaRef,
    partitions: Partitions,
    whole: ReadPlan,
    ids: ReadPlan,
    scope: Scope,
    /// Whether readers yield documents.
    is_plain: bool,
}

#[derive(Debug)]
enum IdSource {
    Column,
    /// The hash of the text.
    Content,
    /// The file and the row in it.
    Row,
    Computed(Expression),
}

#[derive(Debug)]
enum TextSource {
    Column,
    Computed(Expression),
}

#[derive(Debug)]
enum KeptSource {
    /// The column at this position of the ones that are read.
    Column(usize),
    Computed(Expression),
}

/// The columns that are read, and which of them are inputs of expressions.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadPlan {
    pub(crate) columns: Columns,
    /// For each input of expressions, its position among the columns; `None` for one that is not needed.
    inputs: Vec<Option<usize>>,
}

impl Projection {
    /// Readers yield these columns, which are the documents.
    pub(crate) fn plain(columns: Columns) -> Self {
        let fields = columns.keep.clone();
        let ids = Columns { text: None, keep: Vec::new(), ..columns.clone() };
        Self {
            id: IdSource::Column,
            text: TextSource::Column,
            keep: (0..fields.len()).map(KeptSource::Column).collect(),
            fields,
            condition: None,
            schema: Arc::new(Schema::empty()),
            partitions: Partitions::default(),
            whole: ReadPlan { columns, inputs: Vec::new() },
            ids: ReadPlan { columns: ids, inputs: Vec::new() },
            scope: Scope::One,
            is_plain: true,
        }
    }

    /// The kept columns as the table has them.
    pub(crate) fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    /// The columns of the files over which expressions are computed, with the types in which they are read.
    pub(crate) fn inputs(&self) -> &[FieldRef] {
        &self.schema.fields()[..self.whole.inputs.len()]
    }

    /// Whether rows with equal texts are one document.
    pub(crate) fn has_content_ids(&self) -> bool {
        matches!(self.id, IdSource::Content)
    }

    /// Whether ids are positions in the files, which no two rows share.
    pub(crate) fn has_row_ids(&self) -> bool {
        matches!(self.id, IdSource::Row)
    }

    /// The columns that are read.
    pub(crate) fn columns(&self, mode: ReadMode) -> &Columns {
        &self.read_plan(mode).columns
    }

    fn read_plan(&self, mode: ReadMode) -> &ReadPlan {
        match mode {
            ReadMode::Whole => &self.whole,
            ReadMode::IdsOnly => &self.ids,
        }
    }

    /// The documents among the rows of a file. Rows for which the condition is not true are dropped; a row that could
    /// not be read, or for which an expression fails, is refused. The condition drops a refused row only if it is false
    /// for values that were all read.
    pub(crate) fn apply(&self, mode: ReadMode, mut rows: Rows, file: &str) -> Result<Rows, ArrowError> {
        let max_bytes = self.whole.columns.max_bytes;
        if self.is_plain {
            return Ok(match mode {
                ReadMode::Whole => rows.checked(max_bytes),
                ReadMode::IdsOnly => Rows::ids_only(rows.id, rows.row, &self.fields),
            });
        }
        let mut inputs = self.input_batch(mode, &rows, file)?;
        // Inputs of rows that could not be read may be missing: an id or a text from them would be made up.
        let mut unread: BooleanArray = rows.errors.iter().map(|error| Some(error.is_some())).collect();
        if let Some(condition) = &self.condition {
            let holds = condition.evaluate(&inputs, &mut rows.errors)?;
            let holds = holds.as_boolean();
            let needed = condition.columns();
            let is_excluded = |row: usize| {
                let was_read = |at: &usize| inputs.column(*at).is_valid(row);
                holds.is_valid(row) && !holds.value(row) && needed.iter().all(was_read)
            };
            let is_kept = |(row, error): (usize, &Option<String>)| {
                Some(if error.is_some() { !is_excluded(row) } else { holds.is_valid(row) && holds.value(row) })
            };
            let kept: BooleanArray = rows.errors.iter().enumerate().map(is_kept).collect();
            if kept.true_count() < kept.len() {
                inputs = filter_record_batch(&inputs, &kept)?;
                rows = rows.filter(&kept)?;
                unread = filter(&unread, &kept)?.as_boolean().clone();
            }
        }
        let Rows { id, mut text, keep: read, row, mut errors } = rows;
        if let TextSource::Computed(expression) = &self.text
            && (mode == ReadMode::Whole || self.has_content_ids())
        {
            let values = expression.evaluate(&inputs, &mut errors)?;
            text = nullif(&cast(&values, &DataType::Utf8)?, &unread)?.as_string().clone();
        }
        let id = match &self.id {
            IdSource::Column => id,
            IdSource::Content => content_ids(&text, &errors),
            IdSource::Row => {
                let path = relative_path(&self.scope, file);
                StringArray::from_iter_values(row.values().iter().map(|row| format!("{path}#{row}")))
            }
            IdSource::Computed(expression) => {
                let values = expression.evaluate(&inputs, &mut errors)?;
                let ids = exact::ids(&expression.key, &values, &mut errors)?;
                nullif(&ids, &unread)?.as_string().clone()
            }
        };
        if mode == ReadMode::IdsOnly {
            return Ok(Rows::ids_only(id, row, &self.fields));
        }
        let mut keep = Vec::with_capacity(self.keep.len());
        for (field, source) in self.fields.iter().zip(&self.keep) {
            keep.push(match source {
                KeptSource::Column(at) => Arc::clone(&read[*at]),
                KeptSource::Computed(expression) => {
                    let values = expression.evaluate(&inputs, &mut errors)?;
                    exact::column(field.name(), &values, field.data_type(), &mut errors)?
                }
            });
        }
        Ok(Rows { id, text, keep, row, errors }.checked(max_bytes))
    }

    /// The inputs of expressions. Those that this mode does not need are null.
    fn input_batch(&self, mode: ReadMode, rows: &Rows, file: &str) -> Result<RecordBatch, ArrowError> {
        let count = rows.errors.len();
        let positions = &self.read_plan(mode).inputs;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (field, at) in self.schema.fields().iter().zip(positions) {
            columns.push(match at {
                Some(at) => Arc::clone(&rows.keep[*at]),
                None => new_null_array(field.data_type(), count),
            });
        }
        if columns.len() < self.schema.fields().len() {
            let first = UInt32Array::from(vec![0; count]);
            for value in self.partitions.values(file) {
                columns.push(take(&value, &first, None)?);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

/// Hashes of the texts. A missing text hashes like an empty one, which no document has; a text that could not be read
/// may be that of any document, and has no id.
fn content_ids(text: &StringArray, errors: &[Option<String>]) -> StringArray {
    let id = |(text, error): (Option<&str>, &Option<String>)| match (text, error) {
        (None, Some(_)) => None,
        (text, _) => {
            let hash = blake3::hash(text.unwrap_or_default().as_bytes()).to_hex();
            Some(hash[..CONTENT_ID_DIGITS].to_owned())
        }
    };
    text.iter().zip(errors).map(id).collect()
}
