//! The ids of a whole source, or of a split, which are needed after the plan's end.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use datafusion::execution::TaskContext;

use polylance_ids::{SeenIds, hash};

/// An extension of the session that [`DistinctIdExec`](crate::DistinctIdExec) fills with the ids of the source.
#[derive(Debug, Default)]
pub struct SourceIds(Mutex<Option<AllIds>>);

/// Every id of a source that was read to its end, those of refused rows included.
pub struct AllIds {
    seen: SeenIds,
    /// `None` until a row is refused.
    refused: Option<SeenIds>,
    without_id: u64,
    /// The hashes of the ids, if they were requested.
    hashes: Option<SplitIds>,
}

/// The ids of a split that was read to its end, by their hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitIds {
    /// Those of good rows, each once.
    pub good: Vec<u128>,
    /// Those of refused rows.
    pub refused: Vec<u128>,
    /// The number of rows, and of files that could not be read to their end, whose ids are not known.
    pub without_id: u64,
}

/// An extension of the session that [`DistinctIdExec`](crate::DistinctIdExec) fills with the ids of a split.
#[derive(Debug, Default)]
pub struct SplitIdList(Mutex<Option<SplitIds>>);

impl SplitIdList {
    pub(crate) fn of(context: &TaskContext) -> Option<Arc<Self>> {
        context.session_config().get_extension()
    }

    pub(crate) fn set(&self, ids: SplitIds) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ids);
    }

    /// Takes the ids; `None` when the plan has not read the split to its end.
    pub fn take(&self) -> Option<SplitIds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl SourceIds {
    /// The extension of a session, if it has one.
    pub fn of(context: &TaskContext) -> Option<Arc<Self>> {
        context.session_config().get_extension()
    }

    /// Leaves the ids of the source.
    pub fn set(&self, ids: AllIds) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ids);
    }

    /// Takes the ids; `None` when the plan has not read the source to its end.
    pub fn take(&self) -> Option<AllIds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl AllIds {
    /// No ids.
    pub fn new() -> Self {
        Self { seen: SeenIds::new(), refused: None, without_id: 0, hashes: None }
    }

    /// No ids, of which the hashes are kept in a list from now on.
    pub(crate) fn listed(self) -> Self {
        Self { hashes: Some(SplitIds::default()), ..self }
    }

    /// The list of the hashes, if they were kept.
    pub(crate) fn take_hashes(&mut self) -> Option<SplitIds> {
        self.hashes.take()
    }

    /// Inserts the id of a good row; false when an earlier good row has it.
    pub(crate) fn insert(&mut self, id: &str) -> io::Result<bool> {
        let hash = hash(id.as_bytes());
        let is_new = self.seen.insert_hash(hash)?;
        if let Some(hashes) = self.hashes.as_mut().filter(|_| is_new) {
            hashes.good.push(hash);
        }
        Ok(is_new)
    }

    /// Inserts the id of a good row by its hash; false when an earlier good row has it.
    ///
    /// # Errors
    /// When the temporary file with the ids cannot be written or read.
    pub fn insert_hash(&mut self, hash: u128) -> io::Result<bool> {
        self.seen.insert_hash(hash)
    }

    /// Inserts the id of a refused row, if it has one.
    pub(crate) fn insert_refused(&mut self, id: Option<&str>) -> io::Result<()> {
        if let Some(hashes) = &mut self.hashes {
            hashes.refused.extend(id.map(|id| hash(id.as_bytes())));
            hashes.without_id += u64::from(id.is_none());
        }
        match id {
            Some(id) => drop(self.refused.get_or_insert_with(SeenIds::new).insert(id)?),
            None => self.without_id += 1,
        }
        Ok(())
    }

    /// Inserts the refused rows of a split.
    ///
    /// # Errors
    /// When the temporary file with the ids cannot be written or read.
    pub fn insert_refused_of(&mut self, split: &SplitIds) -> io::Result<()> {
        for hash in &split.refused {
            self.refused.get_or_insert_with(SeenIds::new).insert_hash(*hash)?;
        }
        self.without_id += split.without_id;
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

impl Default for AllIds {
    fn default() -> Self {
        Self::new()
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
    fn listed_ids_have_each_good_one_once_and_not_those_from_before() {
        let mut ids = AllIds::new();
        assert!(ids.insert_hash(hash(b"taken")).unwrap());
        let mut ids = ids.listed();
        let new: Vec<bool> = ["a", "taken", "a", "b"].into_iter().map(|id| ids.insert(id).unwrap()).collect();
        assert_eq!(new, [true, false, false, true]);
        ids.insert_refused(Some("c")).unwrap();
        ids.insert_refused(None).unwrap();
        let expected = SplitIds { good: vec![hash(b"a"), hash(b"b")], refused: vec![hash(b"c")], without_id: 1 };
        assert_eq!(ids.take_hashes(), Some(expected.clone()));
        let mut whole = AllIds::new();
        whole.insert_refused_of(&expected).unwrap();
        assert!(whole.contains("c").unwrap() && !whole.contains("a").unwrap() && whole.without_id() == 1);
    }

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
