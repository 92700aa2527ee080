//! The columns of a file and their types.

pub(crate) mod exact;
pub(super) mod kind;
pub(crate) mod widen;

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};

use self::{kind::ValueKind, widen::widen};

/// Which types of a file's columns are requested.
#[derive(Debug, Clone)]
pub(crate) struct TypeRequest {
    pub(crate) id: String,
    pub(crate) text: String,
    /// Kept columns whose types are not known yet; `None` for all columns.
    pub(crate) keep: Option<Arc<[String]>>,
    /// Whether all rows of a text format are read, and not only the first ones.
    pub(crate) whole: bool,
    pub(crate) max_bytes: u64,
    /// Names that the header of a CSV file should have.
    pub(crate) header: Arc<[String]>,
}

impl TypeRequest {
    /// Whether the type of a kept column is requested.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.iter().any(|column| column == name))
    }
}

/// A column's type.
#[derive(Debug, Clone)]
pub(crate) enum ColumnType {
    /// Declared by the file.
    Declared(DataType),
    /// Inferred from the values of a JSON Lines file.
    Json(ValueKind),
    /// Inferred from the fields of a CSV file.
    Csv(ValueKind),
}

/// The type of a column of a CSV file with these fields.
pub(crate) fn csv_type<'a>(fields: impl Iterator<Item = &'a str>) -> DataType {
    let kind = fields.fold(ValueKind::Null, |kind, field| kind.join(ValueKind::of_csv_field(field)));
    kind.csv_data_type()
}

/// The columns of a file in their order; two may have one name.
pub(crate) type FileTypes = Vec<(String, ColumnType)>;

/// The columns that a file declares.
pub(super) fn declared(schema: &Schema) -> FileTypes {
    let column =
        |field: &arrow::datatypes::FieldRef| (field.name().clone(), ColumnType::Declared(field.data_type().clone()));
    schema.fields().iter().map(column).collect()
}

impl ColumnType {
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Declared(data_type) => data_type.clone(),
            Self::Json(kind) => kind.data_type(),
            Self::Csv(kind) => kind.csv_data_type(),
        }
    }

    /// The type of a column that has values of both.
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Declared(a), Self::Declared(b)) => Self::Declared(widen(&a, &b)),
            (declared @ Self::Declared(_), _) | (_, declared @ Self::Declared(_)) => declared,
            (Self::Json(a), Self::Json(b)) => Self::Json(a.join(b)),
            (Self::Csv(a), Self::Csv(b) | Self::Json(b)) | (Self::Json(a), Self::Csv(b)) => Self::Csv(a.join(b)),
        }
    }
}
