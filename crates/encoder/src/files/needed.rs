//! The files that the encoder reads, of a model that is fetched from elsewhere.

use super::sentence_transformers::TRANSFORMER_FILES;

/// Optional files of a model. An adapter's is fetched so that it is found and refused.
const OPTIONAL_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
];
/// Suffixes of the configuration files of pooling and normalization modules, after the number.
const MODULE_SUFFIXES: [&str; 2] = ["_Pooling/config.json", "_Normalize/config.json"];
/// The suffix of a Transformer module's folder.
const TRANSFORMER_SUFFIX: &str = "_Transformer/";
/// A model's folder has one of these files. In an older sentence-transformers model, `config.json` is in the folder of a
/// module.
pub const ANCHOR_FILES: [&str; 3] = ["config.json", "modules.json", "adapter_config.json"];

/// The files of a model that the encoder reads: settings, tokenizer, and one format of the weights, in the root and in
/// the folder of a Transformer module. The names are not checked yet, and none is skipped for its form.
pub fn needed_files(names: &[String]) -> Vec<&str> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let modules = names.iter().filter_map(|name| name.strip_suffix("config.json"));
    let modules: Vec<&str> = modules.filter(|folder| folder.ends_with(TRANSFORMER_SUFFIX)).collect();
    let mut needed: Vec<&str> = Vec::new();
    for folder in std::iter::once("").chain(modules) {
        let find = |name: &str| names.iter().find(|file| file.strip_prefix(folder) == Some(name)).copied();
        needed.extend(OPTIONAL_FILES.into_iter().chain(TRANSFORMER_FILES).filter_map(find));
        for (single, index, shard) in [
            ("model.safetensors", "model.safetensors.index.json", ("model-", ".safetensors")),
            ("pytorch_model.bin", "pytorch_model.bin.index.json", ("pytorch_model-", ".bin")),
        ] {
            if let Some(single) = find(single) {
                needed.push(single);
            } else if let Some(index) = find(index) {
                needed.push(index);
                let is_shard = |name: &&&str| {
                    let name = name.strip_prefix(folder).unwrap_or_default();
                    name.starts_with(shard.0) && name.ends_with(shard.1)
                };
                needed.extend(names.iter().filter(is_shard));
            } else {
                continue;
            }
            break;
        }
    }
    needed.extend(names.iter().filter(|name| MODULE_SUFFIXES.iter().any(|module| name.ends_with(module))));
    needed
}

/// Whether the name of a file on the hub or in a store is a path that stays inside a folder.
pub fn is_path_inside(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= 256 && !name.contains(|c: char| c.is_control() || c == '\\' || c == ':') && name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_read_are_fetched() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            needed_files(&names).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let whole = of(&[
            "1_Pooling/config.json",
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "sentence_bert_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]);
        assert_eq!(
            whole,
            [
                "config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "sentence_bert_config.json",
                "model.safetensors",
                "1_Pooling/config.json",
            ]
        );
        let old = of(&[
            "0_Transformer/config.json",
            "0_Transformer/pytorch_model.bin.index.json",
            "0_Transformer/pytorch_model-00001-of-00001.bin",
            "0_Transformer/tokenizer.json",
            "modules.json",
        ]);
        assert_eq!(
            old,
            [
                "modules.json",
                "0_Transformer/config.json",
                "0_Transformer/tokenizer.json",
                "0_Transformer/pytorch_model.bin.index.json",
                "0_Transformer/pytorch_model-00001-of-00001.bin",
            ]
        );
        let generating = ["config.json", "generation_config.json", "model.safetensors"];
        assert_eq!(of(&generating), generating);
        assert_eq!(of(&["adapter_config.json", "adapter_model.safetensors"]), ["adapter_config.json"]);
    }

    #[test]
    fn paths_outside_a_folder_are_known() {
        for name in ["config.json", "1_Pooling/config.json", "model-00001-of-00002.safetensors"] {
            assert!(is_path_inside(name), "{name}");
        }
        for name in ["../x_Pooling/config.json", "/etc/x", "a//b", "a/./b", "a/..", "C:\\x", "a\0b", "a\nb", ""] {
            assert!(!is_path_inside(name), "{name:?}");
        }
    }
}
