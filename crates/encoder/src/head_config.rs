//! The head's part of `config.json`: class, labels, special tokens, and whether `fit` made it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use polylance_schema::Pooling;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{ModelConfig, ModelKind},
    error::{ModelError, Result},
    head_kind::HeadKind,
};

/// How a classifier's logits are meant; `problem_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// The logits are the values.
    Regression,
    /// One class is right.
    SingleLabelClassification,
    /// Each class is right or not, independently.
    MultiLabelClassification,
}

/// The function applied to a cross-encoder's logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The sigmoid.
    #[default]
    Sigmoid,
    /// The logit itself.
    Identity,
}

/// The kind of a fitted head that is not a class of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FittedKind {
    /// One linear map of the pooled vector: `classifier.weight` (`[labels, hidden]`) and `classifier.bias`.
    PooledLinear,
}

/// The key `polylance` of `config.json`: how a head was fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FittedHead {
    /// The head's kind; absent where it is the plain class that `architectures` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<FittedKind>,
    /// How token states became the vector.
    #[serde(default = "mean")]
    pub pooling: Pooling,
    /// Whether the vector had length one.
    #[serde(default)]
    pub normalize: bool,
    /// Text before every input.
    #[serde(default)]
    pub prefix: String,
    /// The backbone's hash, as [`crate::ModelFiles::backbone_hash`] gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
}

fn mean() -> Pooling {
    Pooling::Mean
}

/// The head's part of `config.json`. A model without a head has the defaults of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadConfig {
    /// The class the weights were saved from: `architectures[0]`.
    pub architecture: Option<String>,
    /// How a classifier's logits are meant, where it is given.
    pub problem_type: Option<ProblemType>,
    /// Whether a token attends only to those before it.
    pub is_decoder: bool,
    /// Whether the word embeddings are also the last map of a language model.
    pub tie_word_embeddings: bool,
    /// The id a text begins with.
    pub bos_token_id: Option<u32>,
    /// The ids that end a text.
    pub eos_token_ids: Vec<u32>,
    /// The padding id.
    pub pad_token_id: Option<u32>,
    /// The id of a masked word, where it is given; the tokenizer has it too.
    pub mask_token_id: Option<u32>,
    /// Checked when a head with labels is loaded: a model that only embeds may have broken ones.
    labels: std::result::Result<Vec<String>, String>,
    /// Checked when a cross-encoder is loaded: other heads have none.
    activation: std::result::Result<Option<Activation>, String>,
    fitted: Option<FittedHead>,
    kind: ModelKind,
    path: PathBuf,
}

/// The keys of `config.json` that are about heads.
#[derive(Deserialize, Default)]
struct HfHead {
    architectures: Option<Vec<String>>,
    id2label: Option<BTreeMap<String, Value>>,
    label2id: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
    problem_type: Option<ProblemType>,
    is_decoder: Option<bool>,
    add_cross_attention: Option<bool>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<u32>,
    mask_token_id: Option<u32>,
    sentence_transformers: Option<HfCrossEncoder>,
    sbert_ce_default_activation_function: Option<String>,
    polylance: Option<FittedHead>,
}

/// The key `sentence_transformers` of `config.json`, from version 4 on.
#[derive(Deserialize, Default)]
struct HfCrossEncoder {
    activation_fn: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

impl HeadConfig {
    /// Reads Hugging Face's `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a key that cannot be parsed, [`ModelError::Unsupported`] for
    /// cross-attention. Labels are checked by [`HeadConfig::labels`].
    ///
    /// ```
    /// use polylance_encoder::{HeadConfig, ModelConfig};
    ///
    /// let json = br#"{"id2label": {"0": "neutral", "1": "entailment"}, "problem_type": "single_label_classification"}"#;
    /// let head = HeadConfig::from_json(json, &ModelConfig::tiny(), "config.json".as_ref())?;
    /// assert_eq!(head.labels()?, ["neutral", "entailment"]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn from_json(json: &[u8], config: &ModelConfig, path: &Path) -> Result<Self> {
        let hf: HfHead = serde_json::from_slice(json).map_err(|error| ModelError::config(path, error.to_string()))?;
        if hf.add_cross_attention == Some(true) {
            return Err(ModelError::unsupported(
                format!("add_cross_attention \"true\" in {}", path.display()),
                "expected \"false\"",
            ));
        }
        Ok(Self::new(hf, config, path))
    }

    /// With the end tokens of `generation_config.json`, which override those of `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Config`] when it cannot be parsed.
    pub(crate) fn with_generation(mut self, json: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct HfGeneration {
            eos_token_id: Option<OneOrMany>,
        }
        let hf: HfGeneration =
            serde_json::from_slice(json).map_err(|error| ModelError::config(path, error.to_string()))?;
        if let Some(ids) = hf.eos_token_id {
            self.eos_token_ids = ids.into_vec();
        }
        Ok(self)
    }

    /// With the activation of `config_sentence_transformers.json`, which overrides that of `config.json`.
    pub(crate) fn with_activation(mut self, path: Option<&str>) -> Self {
        if let Some(path) = path {
            let key = "activation_fn of config_sentence_transformers.json";
            self.activation = activation_named(key, path).map(Some);
        }
        self
    }

    /// The configuration of a model whose files describe no head.
    pub(crate) fn absent(config: &ModelConfig, path: &Path) -> Self {
        Self::new(HfHead::default(), config, path)
    }

    fn new(hf: HfHead, config: &ModelConfig, path: &Path) -> Self {
        let labels = labels(&hf);
        let activation = activation(&hf);
        // The defaults of the architectures' configurations in transformers 5.23.
        let roberta = config.kind != ModelKind::Bert;
        let eos_token_ids = match hf.eos_token_id {
            Some(ids) => ids.into_vec(),
            None if roberta => vec![2],
            None => Vec::new(),
        };
        Self {
            architecture: hf.architectures.and_then(|names| names.into_iter().next()),
            problem_type: hf.problem_type,
            is_decoder: hf.is_decoder.unwrap_or(false),
            tie_word_embeddings: hf.tie_word_embeddings.unwrap_or(true),
            bos_token_id: hf.bos_token_id.or_else(|| roberta.then_some(0)),
            eos_token_ids,
            pad_token_id: hf.pad_token_id.or_else(|| u32::try_from(config.pad_token_id).ok()),
            mask_token_id: hf.mask_token_id,
            labels,
            activation,
            fitted: hf.polylance,
            kind: config.kind,
            path: path.to_owned(),
        }
    }

    /// The labels, by id.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the ids of `id2label` are not 0, 1, 2 and so on without gaps.
    pub fn labels(&self) -> Result<&[String]> {
        self.labels.as_deref().map_err(|message| ModelError::config(&self.path, message.as_str()))
    }

    /// The function applied to the logit of a cross-encoder.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an activation that is not computed.
    pub fn activation(&self) -> Result<Activation> {
        let activation = self.activation.as_ref();
        activation
            .map(|set| set.unwrap_or_default())
            .map_err(|message| ModelError::config(&self.path, message.as_str()))
    }

    /// How the head was fitted, when `polylance fit` made it.
    pub fn fitted(&self) -> Option<&FittedHead> {
        self.fitted.as_ref()
    }

    /// The kind of head of the class that the weights were saved from; `None` for a bare model.
    pub fn kind(&self) -> Option<HeadKind> {
        HeadKind::of(self.architecture.as_deref()?, self.kind)
    }

    /// Refuses a kind of head that these weights do not have, as far as the configuration shows it.
    pub(crate) fn check(&self, requested: HeadKind) -> Result<()> {
        let architecture = self.architecture.as_deref().unwrap_or_default();
        if self.kind().is_some_and(|found| !found.serves(requested)) {
            let message = format!("architectures names {architecture}, which has no head for {requested}");
            return Err(ModelError::config(&self.path, message));
        }
        if self.is_decoder && requested != HeadKind::CausalLm {
            return Err(self.decoder_refused(&requested.to_string()));
        }
        if !self.is_decoder && requested == HeadKind::CausalLm {
            return Err(ModelError::unsupported(
                format!("{requested} with is_decoder \"false\" in {}", self.path.display()),
                "expected \"true\": its tokens see what comes after them",
            ));
        }
        Ok(())
    }

    /// The error for a decoder: its tokens attend only to earlier ones, and everything but generation was trained
    /// otherwise.
    pub(crate) fn decoder_refused(&self, purpose: &str) -> ModelError {
        ModelError::unsupported(
            format!("is_decoder \"true\" in {} for {purpose}", self.path.display()),
            "expected \"false\": a decoder is for causal language modeling",
        )
    }
}

/// Source: `CrossEncoder.get_default_activation_fn` in sentence-transformers 6.2, which ignores `problem_type` and does
/// not trust a class outside of torch.
fn activation(hf: &HfHead) -> std::result::Result<Option<Activation>, String> {
    let new = hf.sentence_transformers.as_ref().and_then(|keys| keys.activation_fn.as_ref());
    let (key, path) = match (new, &hf.sbert_ce_default_activation_function) {
        (Some(path), _) => ("sentence_transformers.activation_fn", path),
        (None, Some(path)) => ("sbert_ce_default_activation_function", path),
        (None, None) => return Ok(None),
    };
    activation_named(key, path).map(Some)
}

fn activation_named(key: &str, path: &str) -> std::result::Result<Activation, String> {
    match path.strip_prefix("torch.").and_then(|path| path.rsplit('.').next()) {
        Some("Sigmoid") => Ok(Activation::Sigmoid),
        Some("Identity") => Ok(Activation::Identity),
        _ => Err(format!("{key} is {path:?}, expected torch's Sigmoid or Identity")),
    }
}

/// The largest number of labels without names; labels with names are as many as the file has.
const MAX_UNNAMED_LABELS: usize = 1 << 16;

/// The labels by id: `id2label`, else `label2id`, else `num_labels` unnamed ones, else two.
fn labels(hf: &HfHead) -> std::result::Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let numbered = |count: usize| (0..count).map(|id| format!("LABEL_{id}")).collect();
    let (key, pairs): (&str, Vec<(String, String)>) = match (&hf.id2label, &hf.label2id) {
        (Some(map), _) => ("id2label", map.iter().map(|(id, label)| (id.clone(), text(label))).collect()),
        (None, Some(map)) => ("label2id", map.iter().map(|(label, id)| (text(id), label.clone())).collect()),
        (None, None) if hf.num_labels == Some(0) => return Err("num_labels is 0".to_owned()),
        (None, None) if hf.num_labels.is_some_and(|count| count > MAX_UNNAMED_LABELS) => {
            return Err(format!(
                "num_labels is {}, expected at most {MAX_UNNAMED_LABELS}",
                hf.num_labels.unwrap_or_default()
            ));
        }
        (None, None) => return Ok(numbered(hf.num_labels.unwrap_or(2))),
    };
    if pairs.is_empty() {
        return Err(format!("labels missing from {key}: it is empty"));
    }
    let mut labels = BTreeMap::new();
    for (id, label) in pairs {
        let number: usize = id.parse().map_err(|_| format!("{key} has the id {id:?}, expected a number from 0"))?;
        if let Some(other) = labels.insert(number, label.clone()) {
            return Err(format!("{key} gives the id {number} to {other:?} and to {label:?}"));
        }
    }
    if let Some(gap) = (0..labels.len()).find(|id| !labels.contains_key(id)) {
        let last = labels.last_key_value().map_or(0, |(id, _)| *id);
        return Err(format!("labels missing from {key}: id {gap} has none, the ids go up to {last}"));
    }
    if let Some(count) = hf.num_labels.filter(|count| *count != labels.len()) {
        return Err(format!("num_labels is {count}, {key} has {} labels", labels.len()));
    }
    Ok(labels.into_values().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Result<HeadConfig> {
        HeadConfig::from_json(json.to_string().as_bytes(), &ModelConfig::tiny(), Path::new("config.json"))
    }

    #[test]
    fn labels_stand_by_id_wherever_they_are_said() {
        let ids: serde_json::Map<String, Value> = (0..12).map(|id| (id.to_string(), format!("L{id}").into())).collect();
        assert_eq!(read(json!({"id2label": ids})).unwrap().labels().unwrap()[9..], ["L9", "L10", "L11"]);
        let labels = |json| read(json).unwrap().labels().unwrap().to_vec();
        assert_eq!(labels(json!({"label2id": {"no": 1, "yes": 0}})), ["yes", "no"]);
        assert_eq!(labels(json!({"num_labels": 1})), ["LABEL_0"]);
        assert_eq!(labels(json!({"id2label": null})), ["LABEL_0", "LABEL_1"]);
    }

    #[test]
    fn a_broken_list_of_labels_is_named_when_labels_are_needed() {
        for (json, expected) in [
            (json!({"id2label": {"0": "A", "2": "B"}}), "labels missing from id2label: id 1 has none"),
            (json!({"id2label": {"1": "A", "2": "B"}}), "labels missing from id2label: id 0 has none"),
            (json!({"id2label": {}}), "labels missing from id2label: it is empty"),
            (json!({"id2label": {"first": "A"}}), "id2label has the id \"first\""),
            (json!({"label2id": {"A": 0, "B": 0}}), "label2id gives the id 0 to \"A\" and to \"B\""),
            (json!({"id2label": {"0": "A"}, "num_labels": 3}), "num_labels is 3, id2label has 1 labels"),
            (json!({"num_labels": 0}), "num_labels is 0"),
        ] {
            let message = read(json).unwrap().labels().unwrap_err().to_string();
            assert!(message.contains(expected) && message.starts_with("config.json: "), "{message}");
        }
    }

    #[test]
    fn the_activation_of_a_cross_encoder_is_read_from_both_keys() {
        let activation = |json| read(json).unwrap().activation().map_err(|error| error.to_string());
        let new = |path: &str| json!({"sentence_transformers": {"activation_fn": path, "version": "4.1.0"}});
        let old = |path: &str| json!({"sbert_ce_default_activation_function": path});
        assert_eq!(activation(json!({"problem_type": "regression"})), Ok(Activation::Sigmoid));
        for (path, expected) in [
            ("torch.nn.modules.linear.Identity", Activation::Identity),
            ("torch.nn.modules.activation.Sigmoid", Activation::Sigmoid),
        ] {
            assert_eq!(activation(new(path)), Ok(expected));
            assert_eq!(activation(old(path)), Ok(expected));
        }
        for path in ["torch.nn.modules.activation.Tanh", "mine.Sigmoid"] {
            let message = activation(new(path)).unwrap_err();
            assert!(message.contains(&format!("sentence_transformers.activation_fn is {path:?}")), "{message}");
            assert!(activation(old(path)).unwrap_err().contains("sbert_ce_default_activation_function"));
        }
    }

    #[test]
    fn special_ids_have_the_defaults_of_the_architecture() {
        assert_eq!(read(json!({})).unwrap().eos_token_ids, Vec::<u32>::new());
        assert_eq!(read(json!({"eos_token_id": [5, 6]})).unwrap().eos_token_ids, [5, 6]);
        let path = Path::new("generation_config.json");
        let ends = |json: &[u8]| read(json!({"eos_token_id": 5})).unwrap().with_generation(json, path);
        assert_eq!(ends(br#"{"eos_token_id": [7, 8]}"#).unwrap().eos_token_ids, [7, 8]);
        assert_eq!(ends(b"{}").unwrap().eos_token_ids, [5]);
        assert!(ends(b"[").unwrap_err().to_string().starts_with("generation_config.json: "));
        let config = ModelConfig { kind: ModelKind::XlmRoberta, pad_token_id: 1, ..ModelConfig::tiny() };
        let head = HeadConfig::from_json(b"{}", &config, Path::new("config.json")).unwrap();
        assert_eq!((head.bos_token_id, head.pad_token_id, head.eos_token_ids), (Some(0), Some(1), vec![2]));
    }

    #[test]
    fn a_fitted_head_says_how() {
        let head = json!({"head": "pooled-linear", "pooling": "mean", "normalize": true, "prefix": "passage: ",
            "backbone": "7c1e"});
        let read = read(json!({"polylance": head})).unwrap();
        let fitted = read.fitted().unwrap();
        assert_eq!((fitted.head, fitted.normalize), (Some(FittedKind::PooledLinear), true));
        assert_eq!((fitted.prefix.as_str(), fitted.backbone.as_deref()), ("passage: ", Some("7c1e")));
        assert_eq!(serde_json::to_value(fitted).unwrap(), head);
    }

    #[test]
    fn a_head_of_another_class_is_refused() {
        let refused = |json, kind| read(json).unwrap().check(kind).unwrap_err().to_string();
        let tokens = json!({"architectures": ["BertForTokenClassification"]});
        let message = refused(tokens.clone(), HeadKind::SequenceClassification);
        assert!(message.contains("BertForTokenClassification, which has no head for sequence"), "{message}");
        assert!(read(tokens).unwrap().check(HeadKind::TokenClassification).is_ok());
        let message = refused(json!({"is_decoder": true}), HeadKind::MaskedLm);
        assert!(message.contains("is_decoder \"true\" in config.json for masked"), "{message}");
        assert!(refused(json!({}), HeadKind::CausalLm).contains("is_decoder \"false\""));
        assert!(read(json!({"architectures": ["BertModel"]})).unwrap().check(HeadKind::QuestionAnswering).is_ok());
        assert!(
            read(json!({"is_decoder": true, "architectures": ["BertForMaskedLM"]}))
                .unwrap()
                .check(HeadKind::CausalLm)
                .is_ok()
        );
    }
}
