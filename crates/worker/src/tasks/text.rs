//! A text's continuation.

use polylance_backend::Annotation;

use super::inputs::TaskOutput;
use crate::normalizer::Tokenizer;

/// The text of the new ids. Source: `TextGenerationPipeline.postprocess`.
pub(super) fn annotation(tokenizer: &Tokenizer, output: &TaskOutput) -> Result<Annotation, String> {
    let TaskOutput::Ids(new) = output else { return Err("the model made no ids".to_owned()) };
    Ok(Annotation::Text(tokenizer.decode(new, true).map_err(|error| error.to_string())?))
}
