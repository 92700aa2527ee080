//! Messages, hint and class of any error of a job, a search or a model, for front ends.

use std::{borrow::Cow, error::Error};

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_cluster::ClusterError;
use polylance_config::ConfigError;
use polylance_dataflow::SourceError;
use polylance_encoder::ModelError;
use polylance_fit::FitError;
use polylance_hub::HubError;
use polylance_schema::{ErrorClass, Explain, without_source_locations};
use polylance_search::SearchError;
use polylance_sink::SinkError;
use polylance_worker::PoolError;

use crate::{EngineError, UsageError, models::BucketModelError};

/// An error for users: what happened, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The error, then its causes, without repetitions.
    pub messages: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Who can fix it, if that is known.
    pub class: Option<ErrorClass>,
}

/// Explains any error.
pub fn explain(error: &(dyn Error + 'static)) -> Explanation {
    let causes = causes(error);
    let mut messages: Vec<String> = Vec::new();
    for cause in &causes {
        let text = without_locations(&cause.to_string());
        if !messages.iter().any(|above| above.contains(without_store(&text))) {
            messages.push(text);
        }
    }
    let explained = || causes.iter().filter_map(|cause| as_explain(*cause));
    Explanation {
        messages,
        hint: explained().find_map(Explain::hint).map(Cow::into_owned),
        class: explained().map(Explain::class).next(),
    }
}

/// The error and its causes, without the wrappers that a plan puts around them.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(inner) = unwrapped(error) {
            next = Some(inner);
            continue;
        }
        if let Some(error) = error.downcast_ref::<DataFusionError>() {
            let root = error.find_root();
            if let DataFusionError::External(inner) = root {
                next = Some(inner.as_ref());
            } else {
                causes.push(root as &(dyn Error + 'static));
                next = None;
            }
            continue;
        }
        causes.push(error);
        next = error.source();
    }
    causes
}

/// The error inside of a wrapper; its type is the one that matters.
fn unwrapped<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<EngineError>() {
        error.inner()
    } else if let Some(PoolError::Model(inner)) = error.downcast_ref() {
        Some(inner)
    } else if let Some(BackendError::Load(inner)) = error.downcast_ref() {
        Some(inner.as_ref())
    } else if let Some(SearchError::Model(inner)) = error.downcast_ref() {
        Some(inner.as_ref())
    } else {
        None
    }
}

/// The error as [`Explain`], if its type implements that.
fn as_explain<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e dyn Explain> {
    fn of<'e, T: Explain + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e dyn Explain> {
        error.downcast_ref::<T>().map(|error| error as &dyn Explain)
    }
    of::<UsageError>(error)
        .or_else(|| of::<ConfigError>(error))
        .or_else(|| of::<SourceError>(error))
        .or_else(|| of::<SinkError>(error))
        .or_else(|| of::<HubError>(error))
        .or_else(|| of::<ClusterError>(error))
        .or_else(|| of::<EngineError>(error))
        .or_else(|| of::<ModelError>(error))
        .or_else(|| of::<BucketModelError>(error))
        .or_else(|| of::<SearchError>(error))
        .or_else(|| of::<FitError>(error))
        .or_else(|| of::<PoolError>(error))
}

/// The damage of the newest version of a table, if that is why the table cannot be opened.
pub async fn damage_behind(error: &(dyn Error + 'static)) -> Option<EngineError> {
    let unopened = causes(error).iter().find_map(|cause| match cause.downcast_ref() {
        Some(SearchError::Storage { uri, .. }) => Some(uri.clone()),
        _ => None,
    })?;
    Box::pin(polylance_sink::find_damage(&unopened)).await.map(Into::into)
}

/// The text without the name of the store, which `object_store` puts before a message that Lance repeats.
fn without_store(text: &str) -> &str {
    text.strip_prefix("Generic ").and_then(|rest| rest.split_once(" error: ")).map_or(text, |(_, message)| message)
}

/// The text without source locations, and without Lance's description of a write to a local file, whose numbers differ
/// each time.
fn without_locations(text: &str) -> String {
    const STORE: &str = "Generic LocalFileSystem error: ";
    let text = match (text.find("single PUT of "), text.find(STORE)) {
        (Some(attempt), Some(store)) if attempt < store => {
            format!("{}{}", &text[..attempt], &text[store + STORE.len()..])
        }
        _ => text.to_owned(),
    };
    without_source_locations(&text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn error_inside_a_plan_is_found() {
        let inner = SinkError::NoContract { uri: "t.lance".into() };
        let wrapped = EngineError::from(DataFusionError::from(inner).context("while running"));
        let explained = explain(&wrapped);
        assert_eq!(explained.class, Some(ErrorClass::User));
        assert!(explained.hint.is_some() && explained.messages.len() == 1, "{explained:?}");
    }

    #[test]
    fn transparent_wrappers_are_removed() {
        let pool = PoolError::from(ModelError::Option("dims is 9".into()));
        let loading = DataFusionError::External(Box::new(BackendError::Load(Arc::new(pool))));
        let error = EngineError::from(loading);
        assert!(causes(&error)[0].is::<ModelError>());
        assert_eq!(explain(&error).messages, ["dims is 9"]);
    }
}
