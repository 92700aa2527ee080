//! The tokenizer's type, and the normalization that runs before the tokenizer's own.

use serde::{Deserialize, Deserializer};
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
};
use unicode_normalization::is_nfc;

/// A tokenizer whose normalizer is [`TextNormalizer`].
pub(crate) type Tokenizer =
    TokenizerImpl<ModelWrapper, TextNormalizer, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Composes and lowercases a text if the model's settings ask for it, then applies the normalizer of `tokenizer.json`.
/// Offsets refer to the original text.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextNormalizer {
    compose: bool,
    lowercase: bool,
    inner: Option<NormalizerWrapper>,
}

impl TextNormalizer {
    /// Adds the settings of a model's folder.
    ///
    /// `compose`: before a `Precompiled` normalizer that composes letters, the text is composed (NFC). The table is
    /// `SentencePiece`'s, which reads a decomposed text like the composed one; the library's own reading of the table
    /// loses the second mark of a letter (`docs/decisions/composed-text.md`).
    ///
    /// `lowercase`: unless `tokenizer.json` does it already, as in sentence-transformers 6.2.
    pub(crate) fn with(mut self, compose: bool, lowercase: bool) -> Self {
        self.compose =
            compose && self.inner.as_ref().is_some_and(|inner| has(inner, &is_precompiled) && composes(inner));
        self.lowercase = lowercase && !self.inner.as_ref().is_some_and(lowercases);
        self
    }
}

impl<'de> Deserialize<'de> for TextNormalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { inner: Some(NormalizerWrapper::deserialize(deserializer)?), ..Self::default() })
    }
}

impl Normalizer for TextNormalizer {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        if self.compose && !is_nfc(text.get()) {
            text.nfc();
        }
        if self.lowercase {
            text.lowercase();
        }
        self.inner.as_ref().map_or(Ok(()), |inner| inner.normalize(text))
    }
}

fn is_precompiled(normalizer: &NormalizerWrapper) -> bool {
    matches!(normalizer, NormalizerWrapper::Precompiled(_))
}

/// Whether a normalizer is, or contains, one of a kind.
fn has(normalizer: &NormalizerWrapper, kind: &dyn Fn(&NormalizerWrapper) -> bool) -> bool {
    match normalizer {
        NormalizerWrapper::Sequence(parts) => parts.as_ref().iter().any(|part| has(part, kind)),
        one => kind(one),
    }
}

/// Source: `_has_lowercase` in sentence-transformers 6.2, which does not search nested sequences; lowercasing twice
/// changes nothing.
fn lowercases(normalizer: &NormalizerWrapper) -> bool {
    has(normalizer, &|one| matches!(one, NormalizerWrapper::Lowercase(_)))
}

/// Whether the normalizer composes a letter and its mark. A table that keeps them apart belongs to a model that was
/// trained on both forms.
fn composes(normalizer: &NormalizerWrapper) -> bool {
    let mut letter = NormalizedString::from("e\u{301}");
    normalizer.normalize(&mut letter).is_ok() && letter.get() == "\u{e9}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::read_tokenizer;
    use polylance_encoder::TokenizerSettings;

    fn builtin(settings: TokenizerSettings) -> Tokenizer {
        read_tokenizer("builtin", &polylance_builtin::tokenizer_json(), settings).unwrap()
    }

    /// The same text composed and decomposed.
    const TEXTS: [(&str, &str); 4] = [
        ("Ti\u{1ebf}ng Vi\u{1ec7}t", "Tie\u{302}\u{301}ng Vie\u{323}\u{302}t"),
        ("\u{baa8}\u{b4e0} \u{c0ac}", "\u{1106}\u{1169}\u{1103}\u{1173}\u{11ab} \u{1109}\u{1161}"),
        ("L'\u{e9}t\u{e9} \u{e0} la for\u{ea}t", "L'e\u{301}te\u{301} a\u{300} la fore\u{302}t"),
        ("\u{304c}\u{30d7}", "\u{304b}\u{3099}\u{30d5}\u{309a}"),
    ];

    #[test]
    fn decomposed_text_has_the_tokens_of_the_composed_one_and_its_own_offsets() {
        let composing = builtin(TokenizerSettings::default());
        let as_written = builtin(TokenizerSettings { compose: false, ..TokenizerSettings::default() });
        for (composed, decomposed) in TEXTS {
            let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
            assert_eq!(ids(&composing, decomposed), ids(&composing, composed));
            assert_eq!(ids(&as_written, composed), ids(&composing, composed));
        }
        let (_, vietnamese) = TEXTS[0];
        assert_ne!(
            as_written.encode(vietnamese, true).unwrap().get_ids(),
            composing.encode(vietnamese, true).unwrap().get_ids()
        );
        let encoding = composing.encode_char_offsets(vietnamese, false).unwrap();
        assert_eq!(encoding.get_offsets().first().unwrap().0, 0);
        assert_eq!(encoding.get_offsets().last().unwrap().1, vietnamese.chars().count());
    }

    #[test]
    fn lowercasing_runs_first_and_keeps_offsets() {
        let lower = builtin(TokenizerSettings { lowercase: true, ..TokenizerSettings::default() });
        let plain = builtin(TokenizerSettings::default());
        for text in ["What Is The Capital Of FRANCE?", "ИСТАНБУЛ и Москва"] {
            let ids = lower.encode(text, true).unwrap().get_ids().to_vec();
            assert_eq!(ids, plain.encode(text.to_lowercase(), true).unwrap().get_ids());
        }
        // The lowercase of this letter is two characters.
        let text = "A \u{130}Z";
        let encoding = lower.encode_char_offsets(text, false).unwrap();
        assert_eq!(encoding.get_offsets().last().unwrap().1, text.chars().count());
    }

    #[test]
    fn normalizer_without_a_sentencepiece_table_is_unchanged() {
        let json = |normalizer: &str| {
            format!(
                r#"{{"version": "1.0", "added_tokens": [], "normalizer": {normalizer}, "pre_tokenizer": null,
                "post_processor": null, "decoder": null, "truncation": null, "padding": null,
                "model": {{"type": "WordLevel", "vocab": {{"e\u0301": 0, "\u00e9": 1, "?": 2}}, "unk_token": "?"}}}}"#
            )
        };
        let id = |normalizer: &str| {
            let tokenizer = read_tokenizer("made", json(normalizer).as_bytes(), TokenizerSettings::default()).unwrap();
            tokenizer.encode("e\u{301}", false).unwrap().get_ids().to_vec()
        };
        assert_eq!(id("null"), [0]);
        assert_eq!(id(r#"{"type": "NFD"}"#), [0]);
        assert_eq!(id(r#"{"type": "NFC"}"#), [1]);
    }
}
