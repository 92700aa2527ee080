//! Merges consecutive windows, so that small ones do not become a version of the table each.

use arrow::{array::RecordBatch, error::ArrowError};
use polylance_schema::CommitPolicy;
use tokio::time::Instant;

use super::{
    exec::MAX_WINDOW_QUARANTINE_BYTES,
    window::{Window, max_window_duration},
};

/// Merges windows until the commit policy closes one.
#[derive(Debug)]
pub struct WindowMerger {
    commit: CommitPolicy,
    open: Window,
    quarantine_bytes: usize,
    /// When the open window got its first rows.
    opened: Option<Instant>,
}

impl WindowMerger {
    /// No window yet.
    pub fn new(commit: CommitPolicy) -> Self {
        Self { commit, open: Window::default(), quarantine_bytes: 0, opened: None }
    }

    /// Adds the windows of a batch of [`window_schema`](crate::window_schema), which follow those before, and returns
    /// the windows that are full.
    ///
    /// # Errors
    /// When the batch has other columns or damaged values.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut full = Vec::new();
        for window in Window::from_batch(batch)? {
            // The fields of a window are those of all its files.
            if !self.open.fields.is_empty() && !window.fields.is_empty() && self.open.fields != window.fields {
                full.extend(self.close()?);
            }
            self.append(window);
            let is_full = self.commit.rows > 0 && self.open.chunks >= self.commit.rows;
            if is_full || self.quarantine_bytes >= MAX_WINDOW_QUARANTINE_BYTES {
                full.extend(self.close()?);
            }
        }
        Ok(full)
    }

    /// When the open window must be closed; `None` while it is empty.
    pub fn deadline(&self) -> Option<Instant> {
        self.opened?.checked_add(max_window_duration(self.commit))
    }

    /// Closes the open window; `None` if it is empty.
    ///
    /// # Errors
    /// When the window cannot be written as a batch.
    pub fn close(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.opened = None;
        self.quarantine_bytes = 0;
        let window = std::mem::take(&mut self.open);
        let is_empty = window.documents.is_empty() && window.quarantine.is_empty();
        (!is_empty).then(|| window.to_batch()).transpose()
    }

    fn append(&mut self, mut window: Window) {
        self.opened.get_or_insert_with(Instant::now);
        let bytes = |failed: &super::window::FailedDocument| {
            failed.error.len() + failed.source.len() + failed.text.as_ref().map_or(0, String::len)
        };
        self.quarantine_bytes += window.quarantine.iter().map(bytes).sum::<usize>();
        let open = &mut self.open;
        if open.fields.is_empty() {
            open.fields = window.fields;
        }
        open.fragments.append(&mut window.fragments);
        open.documents.append(&mut window.documents);
        open.quarantine.append(&mut window.quarantine);
        open.chunks += window.chunks;
        open.tokens += window.tokens;
    }
}

#[cfg(test)]
mod tests {
    use lance_table::format::Fragment;

    use super::{
        super::{field_ids::WrittenField, window::Document},
        *,
    };

    fn window(first: u64, fields: i32) -> RecordBatch {
        let documents = (first..first + 2).map(|row| Document { doc_id: row.to_string(), source: "a".into(), row });
        let window = Window {
            fragments: vec![Fragment::new(first)],
            fields: vec![WrittenField { id: fields, path: "lang".into(), kind: "string".into() }],
            documents: documents.collect(),
            chunks: 2,
            tokens: 10,
            quarantine: Vec::new(),
        };
        window.to_batch().unwrap()
    }

    fn ids(batch: &RecordBatch) -> Vec<String> {
        let windows = Window::from_batch(batch).unwrap();
        windows.iter().flat_map(|window| &window.documents).map(|document| document.doc_id.clone()).collect()
    }

    #[test]
    fn windows_are_merged_in_order_until_one_is_full() {
        let mut merger = WindowMerger::new(CommitPolicy { rows: 4, seconds: 0 });
        assert!(merger.deadline().is_none() && merger.close().unwrap().is_none());
        assert!(merger.add(&window(0, 3)).unwrap().is_empty());
        assert!(merger.deadline().is_some());
        let full = merger.add(&window(2, 3)).unwrap();
        assert_eq!(full.len(), 1);
        assert_eq!(ids(&full[0]), ["0", "1", "2", "3"]);
        let merged = Window::from_batch(&full[0]).unwrap().remove(0);
        assert_eq!((merged.fragments.len(), merged.chunks, merged.tokens), (2, 4, 20));
        assert!(merger.deadline().is_none() && merger.close().unwrap().is_none());
    }

    #[test]
    fn windows_with_files_of_other_fields_stay_apart() {
        let mut merger = WindowMerger::new(CommitPolicy { rows: 0, seconds: 0 });
        assert!(merger.add(&window(0, 3)).unwrap().is_empty());
        let closed = merger.add(&window(2, 4)).unwrap();
        assert_eq!(
            (ids(&closed[0]), ids(&merger.close().unwrap().unwrap())),
            (vec!["0".to_owned(), "1".to_owned()], vec!["2".to_owned(), "3".to_owned()],)
        );
    }
}
