"""Writes goldens.safetensors and goldens.json: hidden states and mean-pooled vectors from Hugging Face transformers.

    python make.py          # torch 2.15, transformers 5.23, CPU, f32

The weights are a pure function of tensor name and index, the one in `src/synthetic.rs`, so only outputs are kept.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

XL, XLMR, BERT = "xlm-roberta-xl", "xlm-roberta", "bert"


def case(name, kind, hidden, layers, heads, ffn, lengths, vocab=1000, positions=None, types=None):
    roberta = kind != BERT
    return {
        "name": name,
        "lengths": lengths,
        "config": {
            "model_type": kind,
            "vocab_size": vocab,
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": ffn,
            "max_position_embeddings": positions or (514 if roberta else 512),
            "type_vocab_size": types or (1 if roberta else 2),
            "layer_norm_eps": 1e-5 if roberta else 1e-12,
            "pad_token_id": 1 if roberta else 0,
            "hidden_act": "gelu",
        },
    }


CASES = [
    case("xl-4-heads", XL, 64, 3, 4, 256, [23]),
    case("xl-odd-ffn", XL, 96, 2, 8, 250, [40, 7]),
    case("xl-one-token", XL, 64, 2, 2, 128, [1]),
    case("xl-512-tokens", XL, 64, 2, 16, 192, [512]),
    case("xl-mixed-lengths", XL, 80, 4, 5, 320, [5, 17, 1, 64, 33, 2]),
    case("xlmr-small", XLMR, 64, 3, 4, 256, [31, 3]),
    case("xlmr-odd-ffn", XLMR, 48, 2, 3, 100, [12, 200, 1]),
    case("bert-small", BERT, 64, 3, 4, 256, [19, 45]),
    case("bert-512-tokens", BERT, 48, 2, 6, 96, [512, 9], positions=512),
    case("xl-true-geometry", XL, 2560, 2, 32, 10240, [9, 3]),
]


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def splitmix64(value):
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def numbers(name, shape):
    if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
        offset, scale = 1.0, np.float32(0.1)
    elif "embeddings." in name and len(shape) == 2:
        offset, scale = 0.0, np.float32(0.1)
    elif len(shape) == 2:
        offset, scale = 0.0, np.sqrt(np.float32(3.0) / np.float32(shape[1]))
    else:
        offset, scale = 0.0, np.float32(0.05)
    index = np.arange(math.prod(shape), dtype=np.uint64)
    bits = splitmix64(np.uint64(fnv1a(name)) + index) >> np.uint64(40)
    uniform = bits.astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    return (np.float32(offset) + scale * uniform).reshape(shape)


def input_ids(sequence, length, vocab):
    """Begins with <s>, ends with </s>; no padding id in between."""
    ids = [5 + (sequence * 7919 + at * 104729) % (vocab - 5) for at in range(length)]
    ids[0] = 0 if length == 1 else ids[0]
    return ids


def save_pytorch(path):
    """A checkpoint of `ModelConfig::tiny()` as PyTorch writes it, under the names of a model with a head."""
    config = transformers.BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, max_position_embeddings=20)
    names = transformers.BertModel(config, add_pooling_layer=False).state_dict()
    tensors = {name: numbers(name, tuple(value.shape)) for name, value in names.items() if value.is_floating_point()}
    torch.save({f"bert.{name}": torch.from_numpy(value) for name, value in tensors.items()}, path)


def main():
    np.seterr(over="ignore")
    torch.set_grad_enabled(False)
    outputs = {}
    for case in CASES:
        settings = dict(case["config"])
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = transformers.AutoModel.from_config(config, attn_implementation="eager")
        state = {name: torch.from_numpy(numbers(name, tuple(value.shape))) for name, value in model.state_dict().items() if value.is_floating_point()}
        model.load_state_dict(state, strict=False)
        model.eval()
        hidden, pooled = [], []
        for sequence, length in enumerate(case["lengths"]):
            ids = torch.tensor([input_ids(sequence, length, settings["vocab_size"])])
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            hidden.append(states)
            pooled.append(states.mean(dim=0))
        outputs[f"{case['name']}.hidden_states"] = torch.cat(hidden).numpy()
        outputs[f"{case['name']}.mean"] = torch.stack(pooled).numpy()
        print(case["name"], outputs[f"{case['name']}.hidden_states"].shape)
    here = Path(__file__).parent
    save_pytorch(here / "pytorch_model.bin")
    save_file(outputs, here / "goldens.safetensors")
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    (here / "goldens.json").write_text(json.dumps({"made_with": made_with, "cases": CASES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
