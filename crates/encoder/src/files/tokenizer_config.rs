//! `tokenizer_config.json`: which tokens have a part to play, for transformers' `AutoTokenizer`.
//!
//! polylance needs `tokenizer.json` alone; transformers does not read from it which token is the mask or the padding.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Special tokens whose part their text tells, in the two spellings of the family.
const PARTS: [(&str, [&str; 2]); 5] = [
    ("unk_token", ["<unk>", "[UNK]"]),
    ("pad_token", ["<pad>", "[PAD]"]),
    ("mask_token", ["<mask>", "[MASK]"]),
    ("cls_token", ["<s>", "[CLS]"]),
    ("sep_token", ["</s>", "[SEP]"]),
];

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
}

/// The configuration of a tokenizer for inputs of at most `max_tokens` ids.
///
/// The class is the one that takes `tokenizer.json` as it is: XLM-R's and BERT's own would build theirs anew, and a
/// BERT with XLM-R's vocabulary would get another model's.
///
/// # Errors
/// When `tokenizer_json` is no tokenizer.
pub(super) fn tokenizer_config(tokenizer_json: &[u8], max_tokens: usize) -> serde_json::Result<Value> {
    let tokenizer: TokenizerJson = serde_json::from_slice(tokenizer_json)?;
    let special = |text: &&str| tokenizer.added_tokens.iter().any(|token| token.special && token.content == **text);
    let mut keys = Map::new();
    for (part, spellings) in PARTS {
        if let Some(token) = spellings.into_iter().find(special) {
            keys.insert(part.to_owned(), token.into());
        }
    }
    // Begin and end are the same tokens under RoBERTa's names; BERT has none.
    for (part, token) in [("bos_token", "<s>"), ("eos_token", "</s>")] {
        if special(&token) {
            keys.insert(part.to_owned(), token.into());
        }
    }
    keys.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    keys.insert("model_max_length".to_owned(), json!(max_tokens));
    Ok(Value::Object(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "builtin")]
    #[test]
    fn the_parts_of_special_tokens_are_named() {
        let config = tokenizer_config(&polylance_builtin::tokenizer_json(), 512).unwrap();
        let expected = json!({
            "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>",
            "bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 512,
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn a_token_that_is_not_special_has_no_part() {
        let json = br#"{"added_tokens": [{"content": "[PAD]", "special": true}, {"content": "[MASK]"}]}"#;
        let config = tokenizer_config(json, 8).unwrap();
        assert_eq!((&config["pad_token"], config.get("mask_token")), (&json!("[PAD]"), None));
        assert!(tokenizer_config(b"{", 8).is_err());
    }
}
