"""Prints how many texts have the same tokens in NFC and in NFD, with SentencePiece and with the tokenizers library.

    python composed_ids.py          # sentencepiece 0.2.3 with protobuf, tokenizers 0.23.3

SentencePiece's model is made from the built-in `tokenizer.json`, which has its pieces, scores and table.
"""

import base64
import json
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
import sentencepiece
import zstandard
from sentencepiece import sentencepiece_model_pb2 as model_pb2
from tokenizers import Tokenizer

ASSETS = Path(__file__).parents[3] / "builtin" / "assets"
CONTROL, UNKNOWN, NORMAL = 3, 2, 1
KINDS = {"<s>": CONTROL, "</s>": CONTROL, "<pad>": CONTROL, "<mask>": CONTROL, "<unk>": UNKNOWN}


def table(value):
    """The compiled table, anywhere in the normalizer."""
    if isinstance(value, dict) and value.get("type") == "Precompiled":
        return value["precompiled_charsmap"]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for found in map(table, parts) if found), None)


def sentencepiece_of(tokenizer):
    model = model_pb2.ModelProto()
    for piece, score in tokenizer["model"]["vocab"]:
        model.pieces.add(piece=piece, score=score, type=KINDS.get(piece, NORMAL))
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = 1
    trainer.bos_id, trainer.pad_id, trainer.eos_id, trainer.unk_id = 0, 1, 2, 3
    normalizer.name = "nmt_nfkc"
    normalizer.precompiled_charsmap = base64.b64decode(table(tokenizer["normalizer"]))
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = normalizer.escape_whitespaces = True
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor


def main():
    text = zstandard.ZstdDecompressor().stream_reader((ASSETS / "tokenizer.json.zst").open("rb")).read().decode()
    processor, library = sentencepiece_of(json.loads(text)), Tokenizer.from_str(text)
    counts = dict.fromkeys(["articles", "library NFC = sp NFC", "sp NFD = sp NFC", "library NFD = sp NFD", "library composed = sp NFD"], 0)
    for text in pq.read_table(ASSETS / "udhr.parquet")["text"].to_pylist():
        composed, decomposed = (unicodedata.normalize(form, text.replace("\n", " ")) for form in ("NFC", "NFD"))
        ids = [library.encode(text, add_special_tokens=False).ids for text in (composed, decomposed)]
        expected = [processor.encode(text) for text in (composed, decomposed)]
        equal = [True, ids[0] == expected[0], expected[1] == expected[0], ids[1] == expected[1], ids[0] == expected[1]]
        for name, same in zip(counts, equal, strict=True):
            counts[name] += same
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
