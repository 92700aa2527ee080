//! `tokenizer_config.json`: the roles of the special tokens, for transformers' `AutoTokenizer`.
//!
//! polylance needs only `tokenizer.json`; transformers does not read from it which token is the mask or the padding.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The roles of special tokens, with the two spellings of each in the family.
const TOKEN_ROLES: [(&str, [&str; 2]); 5] = [
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

/// The configuration of a tokenizer for inputs of at most `max_tokens` tokens.
///
/// The class is the one that uses `tokenizer.json` unchanged: those of XLM-R and BERT would rebuild the tokenizer, and
/// a BERT with XLM-R's vocabulary would get the wrong one.
///
/// # Errors
/// When `tokenizer_json` cannot be parsed.
pub(super) fn tokenizer_config(tokenizer_json: &[u8], max_tokens: usize) -> serde_json::Result<Value> {
    let tokenizer: TokenizerJson = serde_json::from_slice(tokenizer_json)?;
    let special = |text: &&str| tokenizer.added_tokens.iter().any(|token| token.special && token.content == **text);
    let mut keys = Map::new();
    for (part, spellings) in TOKEN_ROLES {
        if let Some(token) = spellings.into_iter().find(special) {
            keys.insert(part.to_owned(), token.into());
        }
    }
    // RoBERTa's names for the first and the last token; BERT has none.
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
    fn special_tokens_get_their_roles() {
        let config = tokenizer_config(&polylance_builtin::tokenizer_json(), 512).unwrap();
        let expected = json!({
            "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>",
            "bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 512,
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn ordinary_token_gets_no_role() {
        let json = br#"{"added_tokens": [{"content": "[PAD]", "special": true}, {"content": "[MASK]"}]}"#;
        let config = tokenizer_config(json, 8).unwrap();
        assert_eq!((&config["pad_token"], config.get("mask_token")), (&json!("[PAD]"), None));
        assert!(tokenizer_config(b"{", 8).is_err());
    }
}
