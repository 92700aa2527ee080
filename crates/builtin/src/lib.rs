//! The built-in model and corpus, embedded in the binary, so that a fresh machine works without a hub or a network.
//!
//! Both are made by the scripts in `assets/`, whose `README.md` records sources, licences and hashes.

/// Name of the built-in model: intfloat/multilingual-e5-small, 118 million parameters, 384 dimensions, 4-bit weights.
pub const MODEL: &str = "multilingual-e5-small";

/// Name of the built-in corpus: the Universal Declaration of Human Rights.
pub const CORPUS: &str = "udhr";

/// The model as a GGUF file: architecture `bert`, llama.cpp's tensor names, matrices in `Q4_0`, the rest in `F32`.
///
/// Pooling, `polylance.normalize` and `polylance.prompt.{query,passage}` are in its metadata. The vocabulary is not in
/// it, but in [`tokenizer_json`].
pub fn model_gguf() -> &'static [u8] {
    include_bytes!("../assets/multilingual-e5-small-q4_0.gguf")
}

/// The model's `tokenizer.json` (Hugging Face tokenizers, Unigram, 250,002 pieces), decompressed: about 9 MB of JSON.
///
/// # Panics
/// Never with the asset of this crate, which a test decompresses.
pub fn tokenizer_json() -> Vec<u8> {
    zstd::decode_all(&include_bytes!("../assets/tokenizer.json.zst")[..]).expect("the built-in tokenizer is whole")
}

/// The corpus as a Parquet file: 15,803 articles in 532 translations.
///
/// Columns, none of them null: `id` (`"fra/1"`), `code`, `lang`, `language`, `article` (Int32, 1 to 30), `text`;
/// sorted by `code`, then `article`.
pub fn udhr_parquet() -> &'static [u8] {
    include_bytes!("../assets/udhr.parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_is_gguf_version_3_with_all_tensors() {
        let model = model_gguf();
        assert_eq!(&model[..4], b"GGUF");
        assert_eq!(u32::from_le_bytes(model[4..8].try_into().unwrap()), 3);
        assert_eq!(u64::from_le_bytes(model[8..16].try_into().unwrap()), 197, "five embedding tensors, 16 a layer");
    }

    #[test]
    fn model_is_stored_whole_and_not_as_an_lfs_pointer() {
        assert_eq!(model_gguf().len(), 66_996_608);
    }

    #[test]
    fn tokenizer_decompresses_to_the_whole_vocabulary() {
        let json = String::from_utf8(tokenizer_json()).unwrap();
        assert!(json.starts_with(r#"{"version":"1.0""#));
        assert!(json.ends_with("}}"));
        let (_, vocab) = json.split_once(r#""vocab":["#).expect("a vocabulary");
        assert!(vocab.starts_with(r#"["<s>",0.0],["<pad>",0.0],["</s>",0.0],["<unk>",0.0],"#));
        // Pieces are written compactly as ["piece",score]; every score ends with a bracket no piece can follow so.
        let pieces = vocab.matches("],[").count() + 1;
        assert_eq!(pieces, 250_002);
    }

    #[test]
    fn corpus_is_a_whole_parquet_file() {
        let corpus = udhr_parquet();
        assert_eq!(&corpus[..4], b"PAR1");
        assert_eq!(&corpus[corpus.len() - 4..], b"PAR1");
    }
}
