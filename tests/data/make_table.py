"""Make table-VERSION.tar: a table that one version of polylance wrote and every later version must read.

    python tests/data/make_table.py POLYLANCE tests/data/table-0.1.0.tar

The archive contains two small models, a corpus, a pipeline file and the output of its run: the table with an annotation
column, a vector index and a full-text index, its quarantine, and the list of its source files. It is made once, with the
last build that writes a format, and never again.
"""

import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HIDDEN, FFN, ROWS = 16, 24, 300
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *"abcdeinorst"]
PIPELINE = """version = 1
[source]
uri = "docs.jsonl"
keep = ["lang", "tags"]
[model]
id = "model"
[chunk]
tokens = 32
overlap = 0
[table]
uri = "docs.lance"
[index]
kind = "ivf_flat"
words = true
[[annotate]]
name = "topic"
task = "classify"
model = "head"
"""


def tensors(prefix, shapes):
    """A fixed sequence of small numbers in each tensor, in the layout of safetensors."""
    header, data = {}, b""
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        values = b"".join(struct.pack("<f", (i * 37 % 101 - 50) / 200) for i in range(count))
        end = len(data) + len(values)
        header[prefix + name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), end]}
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def encoder():
    layer = "encoder.layer.0."
    shapes = {
        "embeddings.word_embeddings.weight": [len(PIECES), HIDDEN],
        "embeddings.position_embeddings.weight": [64, HIDDEN],
        "embeddings.token_type_embeddings.weight": [2, HIDDEN],
    }
    for name, shape in {
        "attention.self.query": [HIDDEN, HIDDEN],
        "attention.self.key": [HIDDEN, HIDDEN],
        "attention.self.value": [HIDDEN, HIDDEN],
        "attention.output.dense": [HIDDEN, HIDDEN],
        "intermediate.dense": [FFN, HIDDEN],
        "output.dense": [HIDDEN, FFN],
    }.items():
        shapes[layer + name + ".weight"] = shape
        shapes[layer + name + ".bias"] = shape[:1]
    for name in ["embeddings.LayerNorm", layer + "attention.output.LayerNorm", layer + "output.LayerNorm"]:
        shapes[name + ".weight"] = shapes[name + ".bias"] = [HIDDEN]
    return shapes


def tokenizer():
    special = [
        {"id": i, "content": PIECES[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i in range(4)
    ]
    around = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "decoder": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing", "single": around,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
        },
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": False, "vocab": [[p, -1.0] for p in PIECES]},
    }


def write_model(folder, weights, more):
    folder.mkdir()
    config = {
        "model_type": "bert", "vocab_size": len(PIECES), "hidden_size": HIDDEN, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": FFN, "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "pad_token_id": 1, "hidden_act": "gelu", **more,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / "model.safetensors").write_bytes(weights)


def main():
    polylance, archive = (Path(argument).resolve() for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_model(Path("model"), tensors("", encoder()), {})
        head = {"pooler.dense.weight": [HIDDEN, HIDDEN], "pooler.dense.bias": [HIDDEN]}
        shapes = {f"bert.{name}": shape for name, shape in (encoder() | head).items()}
        shapes |= {"classifier.weight": [2, HIDDEN], "classifier.bias": [2]}
        labels = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "near", "1": "far"},
                  "label2id": {"near": 0, "far": 1}}
        write_model(Path("head"), tensors("", shapes), labels)
        rows = [
            {"id": f"d{i}", "text": f"a tree is to be near stone {i}", "lang": "eng", "tags": ["a", f"n{i % 7}"]}
            for i in range(ROWS)
        ]
        rows.append({"id": "bad", "text": None, "lang": "eng", "tags": []})
        Path("docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Path("pipeline.toml").write_text(PIPELINE)
        # 3: one row is in the quarantine.
        assert subprocess.run([polylance, "run", "pipeline.toml"]).returncode == 3
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            for name in sorted(os.listdir(".")):
                tar.add(name)


if __name__ == "__main__":
    main()
