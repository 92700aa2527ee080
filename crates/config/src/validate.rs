//! Rules that involve several values.

use polylance_schema::{ChunkMode, columns::RESERVED};

use crate::{ConfigError, Location, Pipeline};

pub(crate) fn validate(file: &Pipeline, location: impl Fn(&str) -> Location) -> Result<(), ConfigError> {
    let invalid = |key: &str, message: String| Err(ConfigError::Invalid { location: Box::new(location(key)), message });
    for (index, column) in file.source.keep.iter().enumerate() {
        let key = format!("source.keep[{index}]");
        // SQL may begin with an underscore; its name in the table is checked with the source's columns.
        let is_word = column.chars().all(|c| c.is_alphanumeric() || c == '_');
        if RESERVED.contains(&column.as_str()) || is_word && column.starts_with('_') || column.is_empty() {
            return invalid(&key, format!("`{key}` cannot be {column:?}: the table uses that name itself"));
        }
        if file.source.keep[..index].contains(column) {
            return invalid(&key, format!("`{key}` names {column:?} a second time"));
        }
    }
    let scheme = file.table.uri.split_once("://").map(|(scheme, _)| scheme);
    if matches!(scheme, Some("http" | "https")) || file.table.uri.starts_with("builtin:") {
        let uri = &file.table.uri;
        return invalid("table.uri", format!("`table.uri` must be a local path, s3://, gs:// or az://, found {uri:?}"));
    }
    if scheme == Some("hf") {
        let message = "`table.uri` is on the hub, where a table is only read: write it elsewhere, then send it with \
                       `polylance push TABLE hf://datasets/OWNER/NAME`";
        return invalid("table.uri", message.to_owned());
    }
    if file.table.uri == file.source.uri {
        return invalid("table.uri", "`table.uri` and `source.uri` are the same".to_owned());
    }
    let of_kind = |kind: &str| {
        let name = file.model.devices.iter().find(|name| name.split(':').next() == Some(kind));
        name.map(String::as_str)
    };
    if let (Some(cpu), Some(gpu)) = (of_kind("cpu"), of_kind("cuda")) {
        let message = format!(
            "`model.devices` names {cpu:?} and {gpu:?}: CPU and GPU vectors differ in the last bits, and which of the \
             two computes a text would depend on timing"
        );
        return invalid("model.devices", message);
    }
    let chunk = &file.chunk;
    if chunk.mode == ChunkMode::Truncate {
        for (key, set) in [("chunk.overlap", chunk.overlap.is_some()), ("chunk.cut", chunk.cut.is_some())] {
            if set {
                return invalid(key, format!("`{key}` has no meaning with `chunk.mode = \"truncate\"`"));
            }
        }
    }
    let limit = chunk.tokens.or(file.model.max_tokens);
    if let (Some(overlap), Some(tokens)) = (chunk.overlap, limit)
        && overlap > tokens / 2
    {
        let message = format!("`chunk.overlap` must be at most half of {tokens} tokens, found {overlap}");
        return invalid("chunk.overlap", message);
    }
    if let (Some(tokens), Some(max_tokens)) = (chunk.tokens, file.model.max_tokens)
        && tokens > max_tokens
    {
        let message = format!("`chunk.tokens` is {tokens}, above `model.max_tokens`, which is {max_tokens}");
        return invalid("chunk.tokens", message);
    }
    for (index, annotate) in file.annotate.iter().enumerate() {
        let key = format!("annotate[{index}].name");
        let name = &annotate.name;
        if RESERVED.contains(&name.as_str()) || name.starts_with('_') || file.source.keep.contains(name) {
            return invalid(&key, format!("`{key}` cannot be {name:?}: the table has a column of that name"));
        }
        if file.annotate[..index].iter().any(|other| other.name == *name) {
            return invalid(&key, format!("`{key}` is {name:?} a second time"));
        }
        if let Err(error) = annotate.task() {
            return invalid(&format!("annotate[{index}]"), format!("`annotate[{index}]`: {error}"));
        }
    }
    if !file.annotate.is_empty() && !file.table.text {
        let message = "`table.text` must be true: heads read the texts in the table";
        return invalid("table.text", message.to_owned());
    }
    Ok(())
}
