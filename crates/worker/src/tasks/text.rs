//! The continuation of a text.

use polylance_backend::Annotation;

use super::inputs::TaskOutput;
use crate::tokenize::Tokenizer;

/// The text of the generated tokens. Source: `TextGenerationPipeline.postprocess`.
pub(super) fn annotation(tokenizer: &Tokenizer, output: &TaskOutput) -> Result<Annotation, String> {
    let TaskOutput::Generated(tokens) = output else { return Err("the model generated no tokens".to_owned()) };
    Ok(Annotation::Text(tokenizer.decode(tokens, true).map_err(|error| error.to_string())?))
}
