//! Results as short texts for models: a line that sums up, then one line of JSON per row.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::routes::{
    documents::DocumentResponse,
    search::{SearchHit, SearchResponse},
    sql::SqlResponse,
    tables::TablesResponse,
};

/// Bytes after which no more rows are added, about 60,000 tokens. The structured content has all rows.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// A result as a short text.
pub(super) trait CompactText {
    fn text(&self) -> String;
}

/// A hit without the parts of its score.
#[derive(Debug, Serialize)]
struct ShortHit<'h> {
    rank: usize,
    score: Option<f32>,
    row: &'h RawValue,
}

impl<'h> From<&'h SearchHit> for ShortHit<'h> {
    fn from(hit: &'h SearchHit) -> Self {
        Self { rank: hit.rank, score: hit.score, row: &hit.row }
    }
}

impl CompactText for SearchResponse {
    fn text(&self) -> String {
        let found = counted(self.hits.len(), "hit");
        lines(
            format!("{found} in the table {}, {} search", self.table, self.mode),
            self.hits.iter().map(ShortHit::from),
        )
    }
}

impl CompactText for SqlResponse {
    fn text(&self) -> String {
        let mut summary = counted(self.rows.len(), "row");
        if self.truncated {
            summary.push_str(" (truncated: the result has more)");
        }
        lines(summary, &self.rows)
    }
}

impl CompactText for DocumentResponse {
    fn text(&self) -> String {
        lines(format!("{} of the document {}", counted(self.chunks.len(), "chunk"), self.doc_id), &self.chunks)
    }
}

impl CompactText for TablesResponse {
    fn text(&self) -> String {
        lines(counted(self.tables.len(), "table"), &self.tables)
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The summary and the rows; a text that grows too long ends with the number of rows that it leaves out.
fn lines<R: Serialize>(mut text: String, rows: impl IntoIterator<Item = R>) -> String {
    let mut rows = rows.into_iter();
    while text.len() < MAX_TEXT_BYTES
        && let Some(row) = rows.next()
    {
        text.push('\n');
        // A row that cannot be written fails the structured content, too.
        text.push_str(&serde_json::to_string(&row).unwrap_or_default());
    }
    match rows.count() {
        0 => text,
        left_out => format!("{text}\n{left_out} more are left out of this text: request fewer, or fewer columns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_counts_the_rows_that_it_leaves_out() {
        assert_eq!(lines(counted(1, "row"), ["a"]), "1 row\n\"a\"");
        assert_eq!(lines(counted(0, "row"), [""; 0]), "0 rows");
        let row = "x".repeat(MAX_TEXT_BYTES / 2);
        let text = lines(counted(5, "row"), [row.as_str(); 5]);
        assert!(text.starts_with("5 rows\n\"x") && text.len() < 2 * MAX_TEXT_BYTES, "{}", text.len());
        assert!(text.ends_with("\n3 more are left out of this text: request fewer, or fewer columns"));
    }
}
