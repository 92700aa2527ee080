//! Arguments that name a table or a head.

use polylance_config::TaskOptions;
use polylance_engine::models::NamedHead;
use serde_json::{Map, Value};

use super::{read_word, usage};

/// Parses `name=URI`, or a URI alone, with an empty name. A `=` inside a URI belongs to the URI.
pub(crate) fn table(text: &str) -> Result<(String, String), String> {
    let (name, uri) = match text.split_once('=') {
        Some((name, uri)) if !name.contains(['/', '\\', ':', '.']) => (name, uri),
        _ => ("", text),
    };
    if uri.is_empty() || (name.is_empty() && text.starts_with('=')) {
        return Err("expected NAME=URI or a URI".to_owned());
    }
    Ok((name.to_owned(), uri.to_owned()))
}

/// Parses `name=task:model?option=value&…`.
pub(crate) fn head(text: &str) -> Result<NamedHead, String> {
    let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(':')?)));
    let Some((name, (task, model))) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err("expected NAME=TASK:MODEL".to_owned());
    };
    let (model, options) = model.split_once('?').unwrap_or((model, ""));
    let task = read_word(task)?;
    let spec = task_options(options)?.spec(task).map_err(|error| usage(error).to_string())?;
    Ok(NamedHead { name: name.to_owned(), spec, model: model.to_owned() })
}

fn task_options(text: &str) -> Result<TaskOptions, String> {
    let known = serde_json::to_value(TaskOptions::default()).map_err(|error| error.to_string())?;
    let mut options = Map::new();
    for option in text.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or("expected OPTION=VALUE after the `?`")?;
        if known.get(key).is_none() {
            return Err(format!("unknown option `{key}`"));
        }
        let value = match key {
            "labels" => value.split(',').map(Value::from).collect(),
            _ => serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)),
        };
        options.insert(key.to_owned(), value);
    }
    serde_json::from_value(Value::Object(options)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use polylance_schema::{Aggregation, TaskSpec};

    use super::*;

    #[test]
    fn table_name_ends_at_the_first_equals_sign() {
        let parsed = |name: &str, uri: &str| Ok((name.to_owned(), uri.to_owned()));
        assert_eq!(table("docs.lance"), parsed("", "docs.lance"));
        assert_eq!(table("t=s3://b/docs.lance"), parsed("t", "s3://b/docs.lance"));
        assert_eq!(table("/data/day=1/docs.lance"), parsed("", "/data/day=1/docs.lance"));
        assert!(table("=docs.lance").is_err());
        assert!(table("t=").is_err());
    }

    #[test]
    fn head_has_name_task_model_and_options() {
        let parsed = head("people=ner:./a:b").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.model.as_str()), ("people", "./a:b"));
        let parsed = head("people=ner:m?aggregation=first").unwrap();
        assert_eq!(parsed.spec, TaskSpec::Ner { aggregation: Aggregation::First });
        let parsed = head("topic=zero-shot:m?labels=a,b&multi_label=true").unwrap();
        assert!(matches!(parsed.spec, TaskSpec::ZeroShot { labels, multi_label: true, .. } if labels == ["a", "b"]));
        for wrong in ["ner:m", "a=ner", "=ner:m", "a=magic:m", "a=ner:m?labels=a", "a=zero-shot:m", "a=ner:m?x=1"] {
            assert!(head(wrong).is_err(), "{wrong}");
        }
    }
}
