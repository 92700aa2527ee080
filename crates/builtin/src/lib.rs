//! The built-in model and corpus, embedded in the binary, so that a fresh machine works without a hub or a network.
//!
//! A build with the environment variable `POLYLANCE_EXTERNAL_MODEL` leaves the weights of the model out: they are then
//! in a Python wheel of their own, because package indices limit the size of a wheel.
//!
//! Both are made by the scripts in `assets/`, whose `README.md` records sources, licences and hashes.

use std::{fs, io, path::PathBuf, sync::OnceLock};

/// The model in the binary; empty in a build without it.
const EMBEDDED_MODEL: &[u8] = if option_env!("POLYLANCE_EXTERNAL_MODEL").is_some() {
    &[]
} else {
    include_bytes!("../assets/multilingual-e5-small-q4_0.gguf")
};

/// The folder that has the model instead of the binary.
static MODEL_FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Name of the model's file in such a folder.
pub const MODEL_FILE: &str = "multilingual-e5-small-q4_0.gguf";

/// Name of the built-in model: intfloat/multilingual-e5-small, 118 million parameters, 384 dimensions, 4-bit weights.
pub const MODEL: &str = "multilingual-e5-small";

/// Name of the built-in corpus: the Universal Declaration of Human Rights.
pub const CORPUS: &str = "udhr";

/// The model as a GGUF file: architecture `bert`, llama.cpp's tensor names, matrices in `Q4_0`, the rest in `F32`.
///
/// Pooling, `polylance.normalize` and `polylance.prompt.{query,passage}` are in its metadata. The vocabulary is not in
/// it, but in [`tokenizer_json`].
///
/// # Errors
/// The binary carries no model and no folder was set, or the folder's file cannot be read.
pub fn model_gguf() -> io::Result<&'static [u8]> {
    static FROM_FOLDER: OnceLock<Vec<u8>> = OnceLock::new();
    let Some(folder) = MODEL_FOLDER.get() else {
        return if EMBEDDED_MODEL.is_empty() { Err(no_model()) } else { Ok(EMBEDDED_MODEL) };
    };
    if let Some(model) = FROM_FOLDER.get() {
        return Ok(model);
    }
    let file = folder.join(MODEL_FILE);
    let model =
        fs::read(&file).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
    Ok(FROM_FOLDER.get_or_init(|| model))
}

/// Reads the model from [`MODEL_FILE`] in this folder from now on. Only the first call has an effect.
pub fn set_model_folder(folder: PathBuf) {
    let _first = MODEL_FOLDER.set(folder);
}

fn no_model() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "this build carries no model: pip install polylance-e5-small")
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
        let model = model_gguf().unwrap();
        assert_eq!(&model[..4], b"GGUF");
        assert_eq!(u32::from_le_bytes(model[4..8].try_into().unwrap()), 3);
        assert_eq!(u64::from_le_bytes(model[8..16].try_into().unwrap()), 197, "five embedding tensors, 16 a layer");
    }

    #[test]
    fn model_is_stored_whole_and_not_as_an_lfs_pointer() {
        assert_eq!(model_gguf().unwrap().len(), 66_996_608);
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
