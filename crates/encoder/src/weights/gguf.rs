//! GGUF with llama.cpp's tensor names for BERT.

use std::{io::Cursor, panic::catch_unwind, path::Path};

use candle_core::quantized::{GgmlDType, gguf_file::Content};

use super::{Entry, Stored};
use crate::error::{ModelError, Result};

/// Reads the header: metadata and the list of tensors.
///
/// candle checks every length against the file, but divides by an alignment that may be 0. The alignment is known only
/// after the metadata were parsed, so that panic is caught.
pub(crate) fn read_header(bytes: &[u8], path: &Path) -> Result<Content> {
    let read = catch_unwind(|| Content::read(&mut Cursor::new(bytes)));
    let gave_up =
        |_| ModelError::damaged(path, "the library that reads GGUF gave up: a value in the header is impossible");
    read.map_err(gave_up)?.map_err(|error| ModelError::damaged(path, error))
}

/// Lists the tensors under Hugging Face's names.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Vec<(String, Entry)>> {
    let content = read_header(bytes, path)?;
    let mut entries = Vec::with_capacity(content.tensor_infos.len());
    for (name, info) in &content.tensor_infos {
        let stored = match info.ggml_dtype {
            GgmlDType::F32 => Stored::F32,
            GgmlDType::F16 => Stored::F16,
            GgmlDType::BF16 => Stored::Bf16,
            GgmlDType::Q8_0 => Stored::Q8_0,
            GgmlDType::Q4_0 => Stored::Q4_0,
            other => Stored::Other(format!("{other:?}").to_lowercase()),
        };
        let shape = info.shape.dims().to_vec();
        let outside = || ModelError::damaged(path, format!("the file is truncated: tensor {name:?} lies outside"));
        let start = content.tensor_data_offset.checked_add(info.offset).ok_or_else(outside)?;
        let start = usize::try_from(start).map_err(|_| outside())?;
        // candle multiplies the sizes unchecked.
        let elements =
            shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).ok_or_else(outside)?;
        let length = stored.bytes(elements).unwrap_or(0);
        let range = start..start.checked_add(length).ok_or_else(outside)?;
        entries.push((hugging_face_name(name), Entry { stored, shape, range }));
    }
    Ok(entries)
}

/// llama.cpp's and Hugging Face's names of tensors outside the layers.
const MODEL_TENSORS: [(&str, &str); 4] = [
    ("token_embd_norm", "embeddings.LayerNorm"),
    ("token_embd", "embeddings.word_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
];
/// The same, inside a layer.
const LAYER_TENSORS: [(&str, &str); 8] = [
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

/// Hugging Face's name for one of llama.cpp's; an unknown name is returned unchanged.
fn hugging_face_name(name: &str) -> String {
    let translate = || {
        let (stem, part) = name.rsplit_once('.')?;
        if let Some(rest) = stem.strip_prefix("blk.") {
            let (layer, stem) = rest.split_once('.')?;
            let (_, to) = LAYER_TENSORS.iter().find(|(from, _)| *from == stem)?;
            return Some(format!("encoder.layer.{layer}.{to}.{part}"));
        }
        let (_, to) = MODEL_TENSORS.iter().find(|(from, _)| *from == stem)?;
        Some(format!("{to}.{part}"))
    };
    translate().unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated() {
        for (from, to) in [
            ("token_embd.weight", "embeddings.word_embeddings.weight"),
            ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
            ("blk.11.attn_output_norm.weight", "encoder.layer.11.attention.output.LayerNorm.weight"),
            ("blk.0.ffn_down.bias", "encoder.layer.0.output.dense.bias"),
            ("blk.0.attn_norm_2.bias", "blk.0.attn_norm_2.bias"),
        ] {
            assert_eq!(hugging_face_name(from), to);
        }
    }
}
