//! Conversion to and from DataFusion errors: plans return sink errors inside of them.

use datafusion::error::DataFusionError;

use crate::SinkError;

impl From<SinkError> for DataFusionError {
    fn from(error: SinkError) -> Self {
        Self::External(Box::new(error))
    }
}

impl SinkError {
    /// The sink error inside an error of a plan, however deeply it is wrapped.
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
    fn wrapped_sink_error_is_found() {
        let error: DataFusionError = SinkError::NoContract { uri: "t.lance".into() }.into();
        let wrapped = DataFusionError::Shared(Arc::new(error.context("while committing")));
        assert!(matches!(SinkError::find(&wrapped), Some(SinkError::NoContract { uri }) if uri == "t.lance"));
    }

    #[test]
    fn other_errors_are_not_sink_errors() {
        assert!(SinkError::find(&DataFusionError::Plan("no".into())).is_none());
    }
}
