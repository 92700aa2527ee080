//! A text's continuation.

use polylance_backend::Annotation;
use tokenizers::{Encoding, Tokenizer};

use super::inputs::TaskOutput;

/// The text of the new ids, as it stands behind the prompt. Source: `TextGenerationPipeline.postprocess`: a text is
/// decoded with its prompt, because the same ids alone would lose the white space before them.
pub(super) fn annotation(
    tokenizer: &Tokenizer,
    encodings: &[Encoding],
    output: &TaskOutput,
) -> Result<Annotation, String> {
    let TaskOutput::Ids(new) = output else { return Err("the model made no ids".to_owned()) };
    let prompt = encodings.first().map(Encoding::get_ids).unwrap_or_default();
    let decode = |ids: &[u32]| tokenizer.decode(ids, true).map_err(|error| error.to_string());
    let (before, whole) = (decode(prompt)?, decode(&[prompt, new].concat())?);
    Ok(Annotation::Text(match whole.strip_prefix(&before) {
        Some(text) => text.to_owned(),
        None => decode(new)?,
    }))
}
