//! One story for all errors: what a front end shows of any error that a job, a search or a model can end with.

use std::{borrow::Cow, error::Error};

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_config::ConfigError;
use polylance_dataflow::SourceError;
use polylance_encoder::ModelError;
use polylance_fit::FitError;
use polylance_schema::{ErrorClass, Explain, without_source_locations};
use polylance_search::SearchError;
use polylance_sink::SinkError;
use polylance_worker::PoolError;

use crate::{EngineError, UsageError};

/// An error for people: what happened, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The error, then what caused it. Nothing is said twice.
    pub messages: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Who can do something about it, where that is known.
    pub class: Option<ErrorClass>,
}

/// Explains any error.
pub fn explain(error: &(dyn Error + 'static)) -> Explanation {
    let causes = causes(error);
    let mut messages: Vec<String> = Vec::new();
    for cause in &causes {
        let text = without_places(&cause.to_string());
        if !messages.iter().any(|above| above.contains(without_store(&text))) {
            messages.push(text);
        }
    }
    let explained = || causes.iter().filter_map(|cause| explains(*cause));
    Explanation {
        messages,
        hint: explained().find_map(Explain::hint).map(Cow::into_owned),
        class: explained().map(Explain::class).next(),
    }
}

/// The error and what it came from, without the envelopes that a plan puts around errors of ours.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(inner) = inner(error) {
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

/// What an error is only the envelope of: it is the inner one whose type matters.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
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

/// The error as one that explains itself.
fn explains<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e dyn Explain> {
    fn of<'e, T: Explain + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e dyn Explain> {
        error.downcast_ref::<T>().map(|error| error as &dyn Explain)
    }
    of::<UsageError>(error)
        .or_else(|| of::<ConfigError>(error))
        .or_else(|| of::<SourceError>(error))
        .or_else(|| of::<SinkError>(error))
        .or_else(|| of::<EngineError>(error))
        .or_else(|| of::<ModelError>(error))
        .or_else(|| of::<SearchError>(error))
        .or_else(|| of::<FitError>(error))
        .or_else(|| of::<PoolError>(error))
}

/// The damage behind an error, if there is any: a table that cannot be opened because its newest version is damaged.
pub async fn damage_behind(error: &(dyn Error + 'static)) -> Option<EngineError> {
    let unopened = causes(error).iter().find_map(|cause| match cause.downcast_ref() {
        Some(SearchError::Storage { uri, .. }) => Some(uri.clone()),
        _ => None,
    })?;
    Box::pin(polylance_sink::damage(&unopened)).await.map(Into::into)
}

/// Without the name of the store that an error came through: `object_store` puts it before words that Lance repeats.
fn without_store(text: &str) -> &str {
    text.strip_prefix("Generic ").and_then(|rest| rest.split_once(" error: ")).map_or(text, |(_, words)| words)
}

/// Without the places in sources, and without how Lance tried to write a local file, with numbers that differ from time
/// to time.
fn without_places(text: &str) -> String {
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
    fn an_error_inside_a_plan_is_found() {
        let inner = SinkError::NoContract { uri: "t.lance".into() };
        let wrapped = EngineError::from(DataFusionError::from(inner).context("while running"));
        let explained = explain(&wrapped);
        assert_eq!(explained.class, Some(ErrorClass::User));
        assert!(explained.hint.is_some() && explained.messages.len() == 1, "{explained:?}");
    }

    #[test]
    fn a_transparent_envelope_is_seen_through() {
        let pool = PoolError::from(ModelError::Option("dims is 9".into()));
        let loading = DataFusionError::External(Box::new(BackendError::Load(Arc::new(pool))));
        let error = EngineError::from(loading);
        assert!(causes(&error)[0].is::<ModelError>());
        assert_eq!(explain(&error).messages, ["dims is 9"]);
    }
}
