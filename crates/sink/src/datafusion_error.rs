//! The boundary to DataFusion: sink errors travel inside plans and are found again at the other end.

use datafusion::error::DataFusionError;

use crate::SinkError;

impl From<SinkError> for DataFusionError {
    fn from(error: SinkError) -> Self {
        Self::External(Box::new(error))
    }
}

impl SinkError {
    /// The sink error inside what a plan returned, however deep it was wrapped.
    pub fn find(error: &DataFusionError) -> Option<&Self> {
        match error.find_root() {
            DataFusionError::External(inner) => inner.downcast_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_sink_error_survives_wrapping() {
        let error: DataFusionError = SinkError::NoContract { uri: "t.lance".into() }.into();
        let wrapped = DataFusionError::Shared(Arc::new(error.context("while committing")));
        assert!(matches!(SinkError::find(&wrapped), Some(SinkError::NoContract { uri }) if uri == "t.lance"));
    }

    #[test]
    fn another_error_is_not_mistaken_for_one() {
        assert!(SinkError::find(&DataFusionError::Plan("no".into())).is_none());
    }
}
