"""Write the built-in model as a sentence-transformers folder: f32 weights, for programs that cannot read 4-bit GGUF.

    python tests/peers/export_model.py OUT [--venv DIR]

The weights are the dequantized ones, so every f32 implementation should give the same vectors as polylance.
"""

import argparse
import json
from pathlib import Path

import peer_env
from ours import ASSETS

GGUF = ASSETS / "multilingual-e5-small-q4_0.gguf"
TOKENIZER = ASSETS / "tokenizer.json.zst"

EMBEDDINGS = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}


def bert_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in EMBEDDINGS:
        return f"{EMBEDDINGS[stem]}.{kind}"
    _, layer, part = stem.split(".")
    return f"encoder.layer.{layer}.{LAYER[part]}.{kind}"


def export(out: Path) -> None:
    import zstandard
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file

    reader = GGUFReader(str(GGUF))
    value = {field.name: field.contents() for field in reader.fields.values()}
    (out / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(
        {bert_name(t.name): dequantize(t.data, t.tensor_type) for t in reader.tensors},
        out / "model.safetensors",
        metadata={"format": "pt"},
    )
    (out / "tokenizer.json").write_bytes(zstandard.ZstdDecompressor().decompress(TOKENIZER.read_bytes()))

    hidden, length = value["bert.embedding_length"], value["bert.context_length"]
    assert value["bert.pooling_type"] == 1 and value["polylance.normalize"], "not the pooling that is written below"
    documents = {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": hidden,
            "num_hidden_layers": value["bert.block_count"],
            "num_attention_heads": value["bert.attention.head_count"],
            "intermediate_size": value["bert.feed_forward_length"],
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": length,
            "type_vocab_size": 2,
            "vocab_size": value["bert.vocab_size"],
            "pad_token_id": value["tokenizer.ggml.padding_token_id"],
            "torch_dtype": "float32",
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {name: value[f"polylance.prompt.{name}"] for name in ("query", "passage")},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    }
    for name, document in documents.items():
        (out / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (out / "2_Normalize").mkdir(exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    peer_env.add_arguments(parser)
    args = parser.parse_args()
    peer_env.enter(args.venv)
    export(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
