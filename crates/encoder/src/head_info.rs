//! A loaded head's kind, labels and configuration.

use crate::{
    error::Result,
    head_config::{HeadConfig, ProblemType},
    head_kind::HeadKind,
    loading::LoadReport,
};

/// A loaded head's kind, labels and configuration, and the report of its loading.
#[derive(Debug)]
pub struct HeadInfo {
    kind: HeadKind,
    labels: Vec<String>,
    config: HeadConfig,
    report: LoadReport,
}

impl HeadInfo {
    pub(crate) fn new(kind: HeadKind, labels: Vec<String>, config: HeadConfig, report: LoadReport) -> Self {
        Self { kind, labels, config, report }
    }

    /// The kind that the head was loaded as.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// The labels, by id; empty for a head without labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How a classifier's logits are meant, where `config.json` has it.
    pub fn problem_type(&self) -> Option<ProblemType> {
        self.config.problem_type
    }

    /// The head's part of `config.json`.
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// The report of the loading.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Makes an id the one that ends a text.
    #[cfg(test)]
    pub(crate) fn end_at(&mut self, id: u32) {
        self.config.eos_token_ids = vec![id];
    }
}

/// The labels of a head of a kind that has labels, otherwise none.
///
/// # Errors
/// As for [`HeadConfig::labels`].
pub(crate) fn labels(kind: HeadKind, head: &HeadConfig) -> Result<Vec<String>> {
    Ok(match kind {
        HeadKind::SequenceClassification | HeadKind::TokenClassification => head.labels()?.to_vec(),
        _ => Vec::new(),
    })
}
