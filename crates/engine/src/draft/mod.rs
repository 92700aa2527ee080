//! A first pipeline file for a source: the columns that it has, and which of them are the text and the id.

mod choice;
mod table_name;
mod write;

use polylance_dataflow::{SourceProfile, SourceSpec};

use crate::EngineError;

pub use choice::{IdChoice, TextChoice};

/// A pipeline file for a source that has none yet.
///
/// ```no_run
/// # async fn draft() -> Result<(), polylance_engine::EngineError> {
/// let draft = polylance_engine::PipelineDraft::of_source("docs.jsonl", None).await?;
/// std::fs::write("pipeline.toml", draft.to_toml("pipeline.toml")).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PipelineDraft {
    /// The source's address as it was given.
    pub source: String,
    /// The table's address.
    pub table: String,
    /// The files and columns of the source.
    pub profile: SourceProfile,
    /// The column with the text.
    pub text: TextChoice,
    /// The column with the id, if one was found.
    pub id: IdChoice,
}

impl PipelineDraft {
    /// Reads the profile of a source and chooses the columns. Without `table`, a local table gets the source's name.
    ///
    /// # Errors
    /// [`EngineError::Source`] if the source cannot be read or has no column with text.
    pub async fn of_source(source: &str, table: Option<&str>) -> Result<Self, EngineError> {
        let profile = SourceProfile::read(&SourceSpec::new(source)).await?;
        let text = TextChoice::among(&profile.columns);
        let id = IdChoice::among(&profile.columns, &text.column);
        let table = table.map_or_else(|| table_name::of_source(source), str::to_owned);
        Ok(Self { source: source.to_owned(), table, profile, text, id })
    }

    /// The names of the other columns that a table can have.
    pub fn keep(&self) -> Vec<&str> {
        let id = match &self.id {
            IdChoice::Column(name) => Some(name),
            IdChoice::Content { .. } => None,
        };
        let others = self
            .profile
            .columns
            .iter()
            .filter(|column| column.can_be_kept() && column.name != self.text.column && Some(&column.name) != id);
        others.map(|column| column.name.as_str()).collect()
    }
}
