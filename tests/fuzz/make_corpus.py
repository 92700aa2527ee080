#!/usr/bin/env python3
"""Writes the corpus of each target: small good files, and bad ones that caused a fault or might cause one.

Needs nothing but Python. The geometry is that of `small` in tests/hostile/src/targets.rs.
"""

import io
import json
import pathlib
import struct
import zipfile

HERE = pathlib.Path(__file__).parent / "corpus"
VOCABULARY, HIDDEN, WIDE, POSITIONS = 16, 4, 4, 8
TENSORS = {
    "embeddings.word_embeddings.weight": [VOCABULARY, HIDDEN],
    "embeddings.position_embeddings.weight": [POSITIONS, HIDDEN],
    "embeddings.token_type_embeddings.weight": [2, HIDDEN],
    "embeddings.LayerNorm.weight": [HIDDEN],
    "embeddings.LayerNorm.bias": [HIDDEN],
}
LAYER = {
    "attention.self.query": WIDE, "attention.self.key": WIDE, "attention.self.value": WIDE,
    "attention.output.dense": HIDDEN, "intermediate.dense": WIDE, "output.dense": HIDDEN,
}
for name, rows in LAYER.items():
    TENSORS[f"encoder.layer.0.{name}.weight"] = [rows, HIDDEN]
    TENSORS[f"encoder.layer.0.{name}.bias"] = [rows]
for name in ["attention.output.LayerNorm", "output.LayerNorm"]:
    TENSORS[f"encoder.layer.0.{name}.weight"] = [HIDDEN]
    TENSORS[f"encoder.layer.0.{name}.bias"] = [HIDDEN]
LLAMA = [
    ("embeddings.LayerNorm", "token_embd_norm"), ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"), ("embeddings.token_type_embeddings", "token_types"),
    ("encoder.layer.0.attention.self.query", "blk.0.attn_q"), ("encoder.layer.0.attention.self.key", "blk.0.attn_k"),
    ("encoder.layer.0.attention.self.value", "blk.0.attn_v"),
    ("encoder.layer.0.attention.output.dense", "blk.0.attn_output"),
    ("encoder.layer.0.attention.output.LayerNorm", "blk.0.attn_output_norm"),
    ("encoder.layer.0.intermediate.dense", "blk.0.ffn_up"), ("encoder.layer.0.output.dense", "blk.0.ffn_down"),
    ("encoder.layer.0.output.LayerNorm", "blk.0.layer_output_norm"),
]
CONFIG = {
    "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": WIDE, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "pad_token_id": 0, "hidden_act": "gelu",
}


def save(target, name, content):
    path = HERE / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def count(shape):
    product = 1
    for size in shape:
        product *= size
    return product


def numbers(shape):
    return b"".join(struct.pack("<f", (index % 7 - 3) / 10) for index in range(count(shape)))


def safetensors(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def good_safetensors():
    header, data = {}, b""
    for name, shape in TENSORS.items():
        begin, data = len(data), data + numbers(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    return header, data


def gguf_text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def gguf(metadata, tensors):
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, (kind, value) in metadata.items():
        out += gguf_text(key) + struct.pack("<I", kind) + value
    infos, data = b"", b""
    for name, shape in tensors.items():
        infos += gguf_text(name) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", size) for size in reversed(shape)) + struct.pack("<IQ", 0, len(data))
        data += numbers(shape) if count(shape) < 1000 else b""
        data += bytes(-len(data) % 32)
    out += infos
    return out + bytes(-len(out) % 32) + data


def gguf_metadata():
    size = lambda number: (4, struct.pack("<I", number))
    return {
        "general.architecture": (8, gguf_text("bert")), "bert.embedding_length": size(HIDDEN),
        "bert.block_count": size(1), "bert.attention.head_count": size(2), "bert.feed_forward_length": size(WIDE),
        "bert.context_length": size(POSITIONS), "bert.pooling_type": size(1),
        "bert.attention.layer_norm_epsilon": (6, struct.pack("<f", 1e-12)),
    }


def gguf_names():
    names = {}
    for name, shape in TENSORS.items():
        stem, part = name.rsplit(".", 1)
        names[f"{dict(LLAMA)[stem]}.{part}"] = shape
    return names


def unicode_text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def integer(number):
    if abs(number) < 2**31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + (number % 2**64).to_bytes(8, "little")


def sizes(values):
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def pickled_tensor(shape, offset, stride=None, key="0", storage="FloatStorage"):
    stride = stride or [count(shape[axis + 1:]) for axis in range(len(shape))]
    identity = b"(" + unicode_text("storage") + f"ctorch\n{storage}\n".encode() + unicode_text(key)
    identity += unicode_text("cpu") + integer(512) + b"tQ"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + integer(offset) + sizes(shape) + sizes(stride)
            + b"\x89ccollections\nOrderedDict\n)RtR")


def state_dict(entries):
    body = b"".join(unicode_text(name) + tensor for name, tensor in entries.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + body + b"u."


def archive(members, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return out.getvalue()


def pytorch():
    offset, entries = 0, {}
    for name, shape in TENSORS.items():
        entries[name] = pickled_tensor(shape, offset)
        offset += count(shape)
    good = state_dict(entries)
    save("pytorch", "good.pkl", good)
    save("pytorch", "good.bin", archive({"archive/data.pkl": good, "archive/data/0": numbers([offset])}))
    one = lambda *args, **more: state_dict({"w": pickled_tensor(*args, **more)})
    save("pytorch", "large-shape.pkl", one([2**31 - 1] * 4, 0))
    save("pytorch", "large-offset.pkl", one([2], 2**31 - 1))
    save("pytorch", "negative.pkl", one([-1, 4], -8))
    save("pytorch", "other-storage.pkl", one([2], 0, storage="QInt8Storage"))
    save("pytorch", "no-such-member.pkl", one([2], 0, key="../../etc/passwd"))
    save("pytorch", "few-arguments.pkl", state_dict({"w": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR"}))
    save("pytorch", "long-text.pkl", b"\x80\x02X\xff\xff\xff\xffabc")
    save("pytorch", "long-number.pkl", b"\x80\x02\x8a\xff" + b"\x01" * 255 + b".")
    save("pytorch", "doubling.pkl", b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 64 + b".")
    save("pytorch", "deep.pkl", b"\x80\x02)" + b"\x85" * 20000 + b".")
    save("pytorch", "os-system.pkl", b"\x80\x02cos\nsystem\n" + unicode_text("touch /tmp/run") + b"\x85R.")
    save("pytorch", "posix-system.pkl", b"\x80\x02cposix\nsystem\n(" + unicode_text("touch /tmp/run") + b"tR.")
    save("pytorch", "eval.pkl", b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.")
    save("pytorch", "inst.pkl", b"(S'true'\nios\nsystem\n.")
    save("pytorch", "bomb.bin", archive({"archive/data.pkl": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    save("pytorch", "two-lists.bin", archive({"a/data.pkl": good, "b/data.pkl": good}))


def tensor_files():
    header, data = good_safetensors()
    save("safetensors", "good", safetensors(header, data))
    save("safetensors", "cut-off", safetensors(header, data)[:-5])
    for name, number in [("long-header", 2**62), ("longest-header", 2**64 - 1), ("empty-header", 0)]:
        save("safetensors", name, struct.pack("<Q", number) + b"{}")
    entry = lambda shape, offsets: {"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    save("safetensors", "large-shape", safetensors(entry([2**32, 2**32, 2], [0, 8]), bytes(8)))
    save("safetensors", "backwards", safetensors(entry([2], [8, 0]), bytes(8)))
    save("safetensors", "deep", struct.pack("<Q", 4000) + b"[" * 4000)

    good = gguf(gguf_metadata(), gguf_names())
    save("gguf", "good", good)
    save("gguf", "cut-off", good[:-100])
    zero = {"general.alignment": (4, struct.pack("<I", 0))}
    save("gguf", "alignment-0", gguf(gguf_metadata() | zero, gguf_names()))
    layers = {"bert.block_count": (10, struct.pack("<Q", 2**63))}
    save("gguf", "many-layers", gguf(gguf_metadata() | layers, gguf_names()))
    save("gguf", "many-tensors", b"GGUF" + struct.pack("<IQQ", 3, 2**30, 2**30))
    save("gguf", "large-shape", gguf(gguf_metadata(), gguf_names() | {"token_embd.weight": [2**32, 2**32, 2, 2]}))
    save("gguf", "wide", gguf(gguf_metadata(), gguf_names() | {"token_embd.weight": [2**62, 4]}))
    array = struct.pack("<IQ", 9, 1) * 80
    save("gguf", "deep-array", gguf(gguf_metadata() | {"x": (9, array)}, {}))
    save("gguf", "long-text", b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63))


def configs():
    save("config", "good.json", json.dumps(CONFIG))
    labels = {"id2label": {"0": "a", "1": "b"}, "architectures": ["BertForSequenceClassification"]}
    save("config", "labels.json", json.dumps(CONFIG | labels))
    for name, keys in {
        "many-layers": {"num_hidden_layers": 2**40}, "wide": {"hidden_size": 2**63, "num_attention_heads": 1},
        "many-labels": {"num_labels": 2**40, "architectures": ["BertForSequenceClassification"]},
        "many-types": {"type_vocab_size": 2**40}, "no-epsilon": {"layer_norm_eps": -1},
        "padding": {"model_type": "xlm-roberta", "pad_token_id": 2**64 - 1}, "heads": {"num_attention_heads": 0},
    }.items():
        save("config", f"{name}.json", json.dumps(CONFIG | keys))
    save("config", "deep.json", '{"model_type":' + "[" * 20000)


def tokenizers():
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *"abcdeinorst"]
    special = lambda at: {"id": at, "content": pieces[at], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                           "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    }
    good = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [special(at) for at in range(4)],
        "normalizer": None, "decoder": None, "post_processor": template,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": False, "vocab": [[piece, -1.0] for piece in pieces]},
    }
    write = lambda name, **keys: save("tokenizer", f"{name}.json", json.dumps(good | keys))
    write("unigram")
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    bpe = {"type": "BPE", "vocab": vocabulary | {"ca": 16}, "merges": [["c", "a"]], "unk_token": "<unk>"}
    write("bpe", model=bpe)
    write("merge-of-nothing", model=bpe | {"merges": [["x", "y"]]})
    piece = {"type": "WordPiece", "vocab": vocabulary, "unk_token": "<unk>", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 2**63}
    write("wordpiece", model=piece, normalizer={"type": "BertNormalizer"}, pre_tokenizer={"type": "BertPreTokenizer"})
    write("no-vocabulary", model={"type": "Unigram", "unk_id": 0, "vocab": []})
    write("unknown-outside", model=good["model"] | {"unk_id": 2**40})
    write("charsmap", normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="})
    write("charsmap-empty", normalizer={"type": "Precompiled", "precompiled_charsmap": ""})
    write("padding", padding={"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0,
                              "pad_type_id": 0, "pad_token": "<pad>"})
    write("truncation", truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9})
    write("regex", pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False})
    write("large-regex", pre_tokenizer={"type": "Split", "pattern": {"Regex": "((a{999}){999}){999}"},
                                        "behavior": "Isolated", "invert": False})
    save("tokenizer", "deep.json", '{"normalizer":' + '{"type":"Sequence","normalizers":[' * 500)


def rows():
    save("csv", "good.csv", 'id,text,n\n1,cat,5\n2,"dot, and\n""tin""",-0.5\n')
    save("csv", "more.csv", "\ufeffid,text,flag\r\na,b,true\r\n,,\r\n1,2,3,4\r\n")
    save("csv", "quote.csv", 'id,text\n1,"never closed\n2,x\n')
    save("csv", "not-utf8.csv", b"id,text\n1,\xff\xfe\n\x00,\x00\n")
    save("csv", "wide-header.csv", "id,text," + "," * 300 + "\n" + "1\n" * 20)
    save("csv", "numbers.csv", "id,text,n\n1,a,9223372036854775807\n2,b,9223372036854775808\n3,c,1e999\n")
    save("csv", "empty.csv", "")
    save("csv", "no-text.csv", "a,b\n1,2\n")
    # The header of this file requests a dictionary of 4 GiB.
    save("csv", "large-dictionary.csv.xz", bytes.fromhex("fd377a585a000004e6d6b446") + bytes.fromhex(
        "0200210128000000") + bytes(24))
    save("jsonl", "good.jsonl", '{"id":1,"text":"cat","n":5,"o":{"a":[1,2]}}\n{"id":"b","text":"dot","n":null}\n')
    save("jsonl", "kinds.jsonl", '{"id":1,"text":"a","n":[1]}\n{"id":2,"text":"b","n":{"x":1}}\n{"id":3,"text":"c","n":1}\n')
    save("jsonl", "bad-lines.jsonl", '{"id":1,"text":"a"}\n[1]\nnull\n{"id":\n"\xff"\n\n{"id":2.5,"text":3}\n')
    save("jsonl", "surrogate.jsonl", '{"id":1,"text":"\\ud800"}\n{"id":"\\u0000","text":"\\u0000"}\n')
    save("jsonl", "large-number.jsonl", '{"id":99999999999999999999,"text":"a","n":1e999}\n{"id":1,"text":"a","n":1e308}\n')
    save("jsonl", "deep.jsonl", '{"id":1,"text":"a","o":' + "[" * 100 + "]" * 100 + "}\n" + '{"o":' + "[" * 9000)
    save("jsonl", "many-keys.jsonl", "".join(f'{{"id":{at},"text":"a","k{at}":1}}\n' for at in range(300)))
    save("jsonl", "array.jsonl", '[{"id":1,"text":"a"}]')


def pipelines():
    save("pipeline", "good.toml", "version = 1\n[source]\nuri = 'a'\nkeep = ['b']\n[table]\nuri = 't.lance'\n")
    save("pipeline", "more.toml", "version = 1\n[source]\nuri = 'a'\nmax_bytes = '1 MB'\n[model]\nid = 'm'\n"
         "[chunk]\nmax_tokens = 9\n[table]\nuri = 't.lance'\n[table.commit]\nrows = 10\n[[annotate]]\ntask = 'ner'\n")
    save("pipeline", "sizes.toml", "version = 1\n[source]\nuri = 'a'\nmax_bytes = '99999999999999999999 TB'\n"
         "[table]\nuri = 't'\n[table.commit]\nrows = 9223372036854775807\n")
    save("pipeline", "version.toml", "version = 9223372036854775807\n")
    save("pipeline", "date.toml", "version = 1979-05-27T07:32:00Z\nx = nan\n")
    save("pipeline", "deep-array.toml", "version = 1\na = " + "[" * 9000)
    save("pipeline", "deep-table.toml", "version = 1\na = " + "{a=" * 500)
    save("pipeline", "dotted.toml", "version = 1\n" + "a." * 5000 + "a = 1\n")
    save("pipeline", "header.toml", "version = 1\n[" + "a." * 5000 + "a]\n")
    save("pipeline", "not-utf8.toml", b"version = 1\n\xff\xfe = 2\n")


for make in [pytorch, tensor_files, configs, tokenizers, rows, pipelines]:
    make()
