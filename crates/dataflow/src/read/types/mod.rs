//! The columns of a file and their types, as far as they are wanted.

pub(crate) mod exact;
pub(super) mod kind;
pub(crate) mod widen;

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};

use self::{kind::Kind, widen::widen};

/// What is to be found out about a file.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) id: String,
    pub(crate) text: String,
    /// Kept columns whose types are not known; `None` for all.
    pub(crate) keep: Option<Arc<[String]>>,
    /// Whether each row of a text format is looked at, and not only the first ones.
    pub(crate) whole: bool,
    pub(crate) max_bytes: u64,
}

impl Wanted {
    /// Whether the type of a column in the table is to be found out.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.iter().any(|column| column == name))
    }
}

/// A column's type.
#[derive(Debug, Clone)]
pub(crate) enum ColumnType {
    /// As the file declares it.
    Declared(DataType),
    /// As the values of a JSON Lines file show.
    Seen(Kind),
    /// As the fields of a CSV file show.
    Fields(Kind),
}

/// The columns of a file in their order; a name may be there twice.
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
            Self::Seen(kind) => kind.data_type(),
            Self::Fields(kind) => kind.field_type(),
        }
    }

    /// The type for the values of both.
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Declared(a), Self::Declared(b)) => Self::Declared(widen(&a, &b)),
            (declared @ Self::Declared(_), _) | (_, declared @ Self::Declared(_)) => declared,
            (Self::Seen(a), Self::Seen(b)) => Self::Seen(a.join(b)),
            (Self::Fields(a), Self::Fields(b) | Self::Seen(b)) | (Self::Seen(a), Self::Fields(b)) => {
                Self::Fields(a.join(b))
            }
        }
    }
}
