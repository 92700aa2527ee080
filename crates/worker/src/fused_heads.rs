//! Fused heads: heads on the embedding's own encoder, computed in its pass from the same token states.

use std::sync::Arc;

use polylance_backend::{AnnotateInput, Annotated, BackendError, EncodeInput, Result};
use polylance_encoder::{Device as Hardware, LoadOptions, ModelError, ModelFiles, SharedHead, TruncationSide};
use polylance_schema::{Contract, HeadContract, HeadInputs, TaskSpec};

use crate::{
    error::{PoolError, refusal_message},
    finite::check_finite,
    tasks::{InputLimit, LogitInfo, TaskOutput, TaskRunner, fitted_prefix, head_kind},
    tokenize::{Tokenizer, catch_panic},
};

/// A head that is computed in the pass of an embedding, see [`can_fuse`].
#[derive(Debug, Clone)]
pub struct FusedHead {
    /// The head's model.
    pub files: ModelFiles,
    /// The head's task.
    pub spec: TaskSpec,
}

/// Whether a head can be fused with an embedding: it reads the same tokens, one input per chunk, and is on the same
/// encoder in the same dtype.
///
/// # Errors
/// When the weights of one of the two cannot be read.
pub fn can_fuse(
    embedding: &ModelFiles,
    contract: &Contract,
    head: &ModelFiles,
    head_contract: &HeadContract,
) -> std::result::Result<bool, ModelError> {
    let one_input = matches!(head_contract.spec, TaskSpec::Classify { .. } | TaskSpec::Ner { .. });
    let same_tokens = head_contract.tokenizer_hash == contract.tokenizer_hash
        && head_contract.prefix == contract.prompts.passage
        && head_contract.inputs == HeadInputs::default()
        && contract.chunking.max_tokens() <= head.max_tokens();
    // A text truncated on the left may have lost its prefix, which a head reads before every text.
    let same_tokens = same_tokens && embedding.tokenizer_settings().truncation_side == TruncationSide::Right;
    let same_dtype = head_contract.dtype == contract.dtype;
    // Hashing the weights reads all of them, so it comes last.
    Ok(one_input && same_tokens && same_dtype && embedding.backbone_hash()? == head.backbone_hash()?)
}

/// Loads the heads onto a device.
pub(crate) fn load_heads(
    heads: &[FusedHead],
    embedding: &ModelFiles,
    options: &LoadOptions,
    hardware: &Hardware,
) -> std::result::Result<Vec<SharedHead>, ModelError> {
    let load =
        |head: &FusedHead| SharedHead::load(&head.files, embedding.config(), head_kind(&head.spec), options, hardware);
    heads.iter().map(load).collect()
}

/// Decodes the logits of fused heads into annotations.
#[derive(Debug)]
pub(crate) struct HeadDecoders {
    specs: Vec<TaskSpec>,
    runners: Vec<TaskRunner>,
}

impl HeadDecoders {
    /// `loaded` are the heads on any of the devices: their labels are the same on all.
    pub(crate) fn new(
        heads: &[FusedHead],
        loaded: &[SharedHead],
        tokenizer: &Arc<Tokenizer>,
    ) -> std::result::Result<Self, PoolError> {
        let runner = |(head, loaded): (&FusedHead, &SharedHead)| {
            let unusable = |message| PoolError::Tokenizer { model: head.files.name().to_owned(), message };
            let logit_info = LogitInfo {
                labels: loaded.info().labels().to_vec(),
                problem_type: loaded.info().problem_type(),
                ..LogitInfo::default()
            };
            let side = head.files.tokenizer_settings().truncation_side;
            let limit = InputLimit { max_tokens: head.files.max_tokens(), side };
            let prefix = fitted_prefix(&head.files);
            TaskRunner::new(head.spec.clone(), logit_info, prefix, Arc::clone(tokenizer), limit).map_err(unusable)
        };
        let runners = heads.iter().zip(loaded).map(runner).collect::<std::result::Result<_, _>>()?;
        Ok(Self { specs: heads.iter().map(|head| head.spec.clone()).collect(), runners })
    }

    pub(crate) fn specs(&self) -> &[TaskSpec] {
        &self.specs
    }

    /// The annotation of each head for one input.
    pub(crate) fn decode(&self, input: EncodeInput, logits: Vec<Vec<f32>>) -> Vec<Annotated> {
        let Some(first) = self.runners.first() else { return Vec::new() };
        let text = AnnotateInput { text: input.text, ..AnnotateInput::default() };
        // All heads read the same tokens, so one encoding has the offsets for all of them.
        let encodings = catch_panic(|| first.encode(&text).map_err(BackendError::Input)).map_err(refusal_message);
        let encodings = encodings.and_then(|encodings| match encodings.as_slice() {
            [one] if one.get_ids() == input.input_ids => Ok(encodings),
            _ => Err("the text has other tokens than were encoded".to_owned()),
        });
        let annotation = |(runner, logits): (&TaskRunner, Vec<f32>)| {
            check_finite(&logits)?;
            let (encodings, output) = (encodings.as_ref().map_err(Clone::clone)?, [TaskOutput::Logits(logits)]);
            let decoded = || runner.annotation(&text, encodings, &output).map_err(BackendError::Input);
            catch_panic(decoded).map_err(refusal_message)
        };
        self.runners.iter().zip(logits).map(annotation).collect()
    }
}

/// The output of a pass for one sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PassOutput {
    pub(crate) vector: Vec<f32>,
    /// The logits of each head.
    pub(crate) logits: Vec<Vec<f32>>,
}

/// Regroups an encoder's outputs by sequence; its logits are grouped by head.
pub(crate) fn outputs_by_sequence(vectors: &[f32], dim: usize, logits: Vec<Vec<Vec<f32>>>) -> Result<Vec<PassOutput>> {
    let mut outputs: Vec<PassOutput> =
        vectors.chunks(dim).map(|vector| PassOutput { vector: vector.to_vec(), logits: Vec::new() }).collect();
    for head_logits in logits {
        if head_logits.len() != outputs.len() {
            let message = format!("a head returned {} rows for {} sequences", head_logits.len(), outputs.len());
            return Err(BackendError::Input(message));
        }
        for (output, row) in outputs.iter_mut().zip(head_logits) {
            output.logits.push(row);
        }
    }
    Ok(outputs)
}
