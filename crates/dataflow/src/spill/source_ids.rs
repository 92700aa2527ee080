//! The ids of a whole source, which are needed after the plan's end.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use datafusion::execution::TaskContext;

use polylance_ids::SeenIds;

/// An extension of the session that [`DistinctIdExec`](crate::DistinctIdExec) fills with the ids of the source.
#[derive(Debug, Default)]
pub struct SourceIds(Mutex<Option<AllIds>>);

/// Every id of a source that was read to its end, those of refused rows included.
pub struct AllIds {
    seen: SeenIds,
    /// `None` until a row is refused.
    refused: Option<SeenIds>,
    without_id: u64,
}

impl SourceIds {
    pub(crate) fn of(context: &TaskContext) -> Option<Arc<Self>> {
        context.session_config().get_extension()
    }

    pub(crate) fn set(&self, ids: AllIds) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ids);
    }

    /// Takes the ids; `None` when the plan has not read the source to its end.
    pub fn take(&self) -> Option<AllIds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl AllIds {
    pub(crate) fn new() -> Self {
        Self { seen: SeenIds::new(), refused: None, without_id: 0 }
    }

    /// Inserts the id of a good row; false when an earlier good row has it.
    pub(crate) fn insert(&mut self, id: &str) -> io::Result<bool> {
        self.seen.insert(id)
    }

    /// Inserts the id of a refused row, if it has one.
    pub(crate) fn insert_refused(&mut self, id: Option<&str>) -> io::Result<()> {
        match id {
            Some(id) => drop(self.refused.get_or_insert_with(SeenIds::new).insert(id)?),
            None => self.without_id += 1,
        }
        Ok(())
    }

    /// The number of rows, and of files that could not be read to their end, whose ids are not known.
    pub fn without_id(&self) -> u64 {
        self.without_id
    }

    /// Whether the source has this id.
    ///
    /// # Errors
    /// When the temporary file with the ids cannot be read.
    pub fn contains(&mut self, id: &str) -> io::Result<bool> {
        let refused = self.refused.as_mut().map_or(Ok(false), |refused| refused.contains(id))?;
        Ok(refused || self.seen.contains(id)?)
    }
}

impl fmt::Debug for AllIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllIds").field("without_id", &self.without_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_ids_belong_to_the_source_and_spill_to_disk() {
        let mut ids = AllIds::new();
        // More than are kept in memory.
        for n in 0..40_000 {
            ids.insert_refused(Some(&format!("refused-{n}"))).unwrap();
        }
        ids.insert_refused(Some("refused-1")).unwrap();
        ids.insert_refused(None).unwrap();
        assert!(ids.insert("good").unwrap() && ids.insert("refused-7").unwrap());
        for id in ["good", "refused-0", "refused-7", "refused-39999"] {
            assert!(ids.contains(id).unwrap(), "{id}");
        }
        assert!(!ids.contains("another").unwrap());
        assert_eq!(ids.without_id(), 1);
    }
}
