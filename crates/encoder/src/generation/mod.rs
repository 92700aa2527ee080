//! Generation: a text is continued token by token, and the keys and values of each token are computed once.

mod sampling;

use polylance_schema::Generation;

use self::sampling::Sampler;
use crate::{
    cuda::Cache,
    error::{ModelError, Result},
    head_kind::HeadKind,
    head_model::{HeadModel, Placed},
    key_values::KeyValues,
};

/// The keys and values of the tokens so far.
enum Cached {
    /// One for each layer.
    Cpu(Vec<KeyValues>),
    Cuda(Cache),
}

impl HeadModel {
    /// Continues a prompt, special tokens included, and returns the new ids. The id that ends the text is not among
    /// them. The text also ends when prompt and new ids reach [`HeadModel::max_tokens`].
    ///
    /// The same model, prompt and options give the same ids, even when they are sampled.
    ///
    /// Source: `GenerationMixin.generate` in transformers 5.23. As there, positions count from 0 for every kind, though
    /// the `RoBERTa` kinds count from `pad_token_id + 1` in all other passes: `docs/decisions/generation-positions.md`.
    ///
    /// # Errors
    /// [`ModelError::Option`] for another kind of head or an option out of range, [`ModelError::Input`] for a
    /// prompt that is empty, too long, or not of this vocabulary; when the device fails.
    ///
    /// ```
    /// use polylance_encoder::{
    ///     Device, Generation, HeadKind, HeadModel, LoadOptions, ModelConfig, ModelFiles, synthetic,
    /// };
    ///
    /// let folder = tempfile::tempdir()?;
    /// synthetic::Checkpoint::new(ModelConfig::tiny()).head(HeadKind::CausalLm).write(folder.path())?;
    /// std::fs::write(folder.path().join("tokenizer.json"), "{}")?;
    ///
    /// let files = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path"))?;
    /// let model = HeadModel::load(&files, HeadKind::CausalLm, &LoadOptions::default(), &Device::Cpu)?;
    /// let ids = model.generate(&[0, 5, 6], &Generation { max_new_tokens: 4, ..Generation::default() })?;
    /// assert_eq!(ids.len(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate(&self, prompt: &[u32], generation: &Generation) -> Result<Vec<u32>> {
        if self.head().kind() != HeadKind::CausalLm {
            return Err(ModelError::Option(format!(
                "the model was loaded for {}, not to generate",
                self.head().kind()
            )));
        }
        let refuse = |message| Err(ModelError::Input { sequence: 0, message });
        if prompt.is_empty() {
            return refuse("it has no tokens".to_owned());
        }
        if prompt.len() > self.max_tokens() {
            return refuse(format!("{} tokens, the model takes at most {}", prompt.len(), self.max_tokens()));
        }
        let mut sampler = Sampler::new(generation)?;
        let max_new_tokens = generation.max_new_tokens.min(self.max_tokens() - prompt.len());
        let mut cached = self.empty_cache()?;
        let mut ids = Vec::with_capacity(max_new_tokens);
        let mut next = prompt.to_vec();
        let mut before = 0;
        while ids.len() < max_new_tokens {
            let id = sampler.next(&self.last_logits(&next, before, &mut cached)?);
            if self.head().config().eos_token_ids.contains(&id) {
                break;
            }
            before += next.len();
            ids.push(id);
            next = vec![id];
        }
        Ok(ids)
    }

    fn empty_cache(&self) -> Result<Cached> {
        Ok(match &self.model {
            Placed::Cpu { .. } => Cached::Cpu(vec![KeyValues::default(); self.config().num_hidden_layers]),
            Placed::Cuda { encoder, .. } => Cached::Cuda(encoder.cache()?),
        })
    }

    /// The logits after the last of these ids, `[vocab]`; the keys and values of `before` earlier ids are cached.
    fn last_logits(&self, ids: &[u32], before: usize, cached: &mut Cached) -> Result<Vec<f32>> {
        match (&self.model, cached) {
            (Placed::Cpu { encoder, head }, Cached::Cpu(cached)) => {
                let hidden_states = encoder.forward_cached(ids, before, cached)?;
                let last = hidden_states.narrow(0, ids.len() - 1, 1)?.contiguous()?;
                Ok(head.language()?.forward(&last)?.flatten_all()?.to_vec1()?)
            }
            (Placed::Cuda { encoder, head }, Cached::Cuda(cache)) => encoder.next_logits(ids, before, cache, head),
            _ => Err(ModelError::Option("the keys and values are cached on another device".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::PackedBatch,
        config::{ModelConfig, ModelKind},
        device::Device,
        files::ModelFiles,
        loading::LoadOptions,
        synthetic::Checkpoint,
    };

    fn model(kind: ModelKind) -> HeadModel {
        let folder = tempfile::tempdir().unwrap();
        let pad_token_id = usize::from(kind != ModelKind::Bert);
        let config = ModelConfig { kind, pad_token_id, max_position_embeddings: 40, ..ModelConfig::tiny() };
        let checkpoint = Checkpoint::new(config).head(HeadKind::CausalLm).key("eos_token_id", vec![31]);
        checkpoint.write(folder.path()).unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let files = ModelFiles::find(folder.path().to_str().unwrap()).unwrap();
        HeadModel::load(&files, HeadKind::CausalLm, &LoadOptions::default(), &Device::Cpu).unwrap()
    }

    fn options(max_new_tokens: usize) -> Generation {
        Generation { max_new_tokens, ..Generation::default() }
    }

    /// The reference: every step computes the whole text again.
    fn without_cache(model: &HeadModel, prompt: &[u32], generation: &Generation) -> Vec<u32> {
        let mut sampler = Sampler::new(generation).unwrap();
        let mut text = prompt.to_vec();
        while text.len() < prompt.len() + generation.max_new_tokens {
            let id = sampler.next(&model.last_logits(&text, 0, &mut model.empty_cache().unwrap()).unwrap());
            if model.head().config().eos_token_ids.contains(&id) {
                break;
            }
            text.push(id);
        }
        text[prompt.len()..].to_vec()
    }

    #[test]
    fn cached_generation_matches_uncached() {
        for kind in [ModelKind::XlmRobertaXl, ModelKind::XlmRoberta, ModelKind::Bert] {
            let model = model(kind);
            for seed in 0..4 {
                let drawn = Generation { temperature: 0.9, top_k: 12, top_p: 0.9, seed, ..options(20) };
                for generation in [options(20), drawn] {
                    let ids = model.generate(&[0, 7, 9, 4], &generation).unwrap();
                    assert_eq!(ids, without_cache(&model, &[0, 7, 9, 4], &generation), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn step_matches_the_packed_causal_pass_where_positions_begin_alike() {
        let model = model(ModelKind::Bert);
        let ids = [3, 8, 1, 30, 12];
        let batch = PackedBatch::new(&[vec![2, 2], ids.to_vec()]).unwrap();
        let packed = model.mask_logits(&batch, &[vec![], vec![4]]).unwrap().remove(0);
        let mut cached = model.empty_cache().unwrap();
        model.last_logits(&ids[..3], 0, &mut cached).unwrap();
        let stepped = model.last_logits(&ids[3..], 3, &mut cached).unwrap();
        let apart = packed.iter().zip(&stepped).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{apart}");
    }

    #[test]
    fn generation_stops_at_the_last_position_and_at_the_end_token() {
        let model = model(ModelKind::Bert);
        let free = model.generate(&[1, 2, 3], &options(1000)).unwrap();
        assert_eq!(free.len(), 37);
        assert!(model.generate(&[5; 40], &options(3)).unwrap().is_empty());
        let error = model.generate(&[5; 41], &options(3)).unwrap_err().to_string();
        assert!(error.contains("41 tokens, the model takes at most 40"), "{error}");

        let mut ended = model;
        let last = free[4];
        ended.end_at(last);
        let first = free.iter().position(|&id| id == last).unwrap();
        assert_eq!(ended.generate(&[1, 2, 3], &options(1000)).unwrap(), free[..first]);
    }

    #[test]
    fn invalid_prompts_are_refused() {
        let model = model(ModelKind::XlmRoberta);
        assert!(model.generate(&[], &options(3)).unwrap_err().to_string().contains("no tokens"));
        let error = model.generate(&[1, 32], &options(3)).unwrap_err().to_string();
        assert!(error.contains("id 32 is not below the vocabulary of 32"), "{error}");
    }
}
