//! Heads that are asked in the pass of the embedding: they stand on the same token states.

use std::sync::Arc;

use polylance_backend::{AnnotateInput, Annotated, BackendError, EncodeInput, Result};
use polylance_encoder::{Device as Hardware, LoadOptions, ModelError, ModelFiles, SharedHead, TruncationSide};
use polylance_schema::{Contract, HeadContract, HeadInputs, TaskSpec};

use crate::{
    PoolError,
    normalizer::Tokenizer,
    pool::finite,
    task_pool::{message, prefix},
    tasks::{self, Limit, Meaning, TaskOutput, TaskRunner},
    tokenizers::guarded,
};

/// A head that shares the pass of an embedding, see [`shares_pass`].
#[derive(Debug, Clone)]
pub struct PassHead {
    /// The model it comes from.
    pub files: ModelFiles,
    /// What it is asked.
    pub spec: TaskSpec,
}

/// Whether a head can be asked in the pass of an embedding: it reads the same ids, one input a chunk, and stands on
/// the same encoder in the same arithmetic.
///
/// # Errors
/// When the weights of one of the two cannot be read.
pub fn shares_pass(
    embedding: &ModelFiles,
    contract: &Contract,
    head: &ModelFiles,
    asked: &HeadContract,
) -> std::result::Result<bool, ModelError> {
    let one_input = matches!(asked.spec, TaskSpec::Classify { .. } | TaskSpec::Ner { .. });
    let same_ids = asked.tokenizer_hash == contract.tokenizer_hash
        && asked.prefix == contract.prompts.passage
        && asked.inputs == HeadInputs::default()
        && contract.chunking.max_tokens() <= head.max_tokens();
    // Cut on the left, an input may have lost its prefix, which a head reads before every text.
    let same_ids = same_ids && embedding.tokenizer_settings().truncation_side == TruncationSide::Right;
    let same_arithmetic = asked.dtype == contract.dtype;
    // What costs reading all weights comes last.
    Ok(one_input && same_ids && same_arithmetic && embedding.backbone_hash()? == head.backbone_hash()?)
}

/// The heads on one kind of device.
pub(crate) fn load(
    heads: &[PassHead],
    embedding: &ModelFiles,
    options: &LoadOptions,
    hardware: &Hardware,
) -> std::result::Result<Vec<SharedHead>, ModelError> {
    let load =
        |head: &PassHead| SharedHead::load(&head.files, embedding.config(), tasks::head(&head.spec), options, hardware);
    heads.iter().map(load).collect()
}

/// How each head's logits are read.
#[derive(Debug)]
pub(crate) struct Readers {
    specs: Vec<TaskSpec>,
    runners: Vec<TaskRunner>,
}

impl Readers {
    /// `loaded` are the heads of any device: their labels are the same on all.
    pub(crate) fn new(
        heads: &[PassHead],
        loaded: &[SharedHead],
        tokenizer: &Arc<Tokenizer>,
    ) -> std::result::Result<Self, PoolError> {
        let reader = |(head, loaded): (&PassHead, &SharedHead)| {
            let unusable = |message| PoolError::Tokenizer { model: head.files.name().to_owned(), message };
            let runner = TaskRunner::new(
                head.spec.clone(),
                Meaning { labels: loaded.labels().to_vec(), problem_type: loaded.problem_type(), ..Meaning::default() },
                prefix(&head.files),
                Arc::clone(tokenizer),
                Limit { max_tokens: head.files.max_tokens(), side: head.files.tokenizer_settings().truncation_side },
            );
            runner.map_err(unusable)
        };
        let runners = heads.iter().zip(loaded).map(reader).collect::<std::result::Result<_, _>>()?;
        Ok(Self { specs: heads.iter().map(|head| head.spec.clone()).collect(), runners })
    }

    pub(crate) fn specs(&self) -> &[TaskSpec] {
        &self.specs
    }

    /// What the heads' logits say of one input.
    pub(crate) fn read(&self, input: EncodeInput, logits: Vec<Vec<f32>>) -> Vec<Annotated> {
        let Some(first) = self.runners.first() else { return Vec::new() };
        let asked = AnnotateInput { text: input.text, ..AnnotateInput::default() };
        // All heads read the same ids, so one encoding tells all of them where the tokens are.
        let encodings = guarded(|| first.encode(&asked).map_err(BackendError::Input)).map_err(message);
        let encodings = encodings.and_then(|encodings| match encodings.as_slice() {
            [one] if one.get_ids() == input.input_ids => Ok(encodings),
            _ => Err("the text has other ids than were encoded".to_owned()),
        });
        let annotation = |(runner, logits): (&TaskRunner, Vec<f32>)| {
            finite(&logits)?;
            let (encodings, output) = (encodings.as_ref().map_err(Clone::clone)?, [TaskOutput::Logits(logits)]);
            guarded(|| runner.annotation(&asked, encodings, &output).map_err(BackendError::Input)).map_err(message)
        };
        self.runners.iter().zip(logits).map(annotation).collect()
    }
}

/// What a pass gave for one sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Passed {
    pub(crate) vector: Vec<f32>,
    /// A row a head.
    pub(crate) logits: Vec<Vec<f32>>,
}

/// Heads' logits by sequence, from the encoder's by head.
pub(crate) fn by_sequence(vectors: &[f32], dim: usize, logits: Vec<Vec<Vec<f32>>>) -> Result<Vec<Passed>> {
    let mut passed: Vec<Passed> =
        vectors.chunks(dim).map(|vector| Passed { vector: vector.to_vec(), logits: Vec::new() }).collect();
    for of_head in logits {
        if of_head.len() != passed.len() {
            let message = format!("a head gave {} rows for {} sequences", of_head.len(), passed.len());
            return Err(BackendError::Input(message));
        }
        for (one, row) in passed.iter_mut().zip(of_head) {
            one.logits.push(row);
        }
    }
    Ok(passed)
}
