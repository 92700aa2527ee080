"""Write udhr-lengths.txt: how many tokens each article of the built-in corpus has.

    pip install pyarrow==26.0.1 tokenizers==0.23.3 zstandard==0.25.0
    python make_lengths.py

The corpus is the Universal Declaration of Human Rights, 15,803 articles in 532 translations; the tokenizer is the
built-in model's, whose vocabulary is XLM-RoBERTa's. Special tokens count, there is no prefix, and articles are cut at
512 tokens. Lengths are in the order of the corpus: by language, then article. Two runs write the same file.
"""

import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import tokenizers
import zstandard

HERE = Path(__file__).parent
ASSETS = HERE.parent / "crates" / "builtin" / "assets"
MOST = 512


def main():
    json = zstandard.ZstdDecompressor().stream_reader((ASSETS / "tokenizer.json.zst").read_bytes()).read()
    tokenizer = tokenizers.Tokenizer.from_str(json.decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST)
    texts = pq.read_table(ASSETS / "udhr.parquet", columns=["text"])["text"].to_pylist()
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    head = f"# Tokens of each of the {len(lengths)} articles of the corpus udhr: make_lengths.py wrote this."
    lines = textwrap.wrap(" ".join(map(str, lengths)), 120)
    (HERE / "udhr-lengths.txt").write_text("\n".join([head, *lines]) + "\n")
    lengths.sort()
    print(len(lengths), "articles,", sum(lengths), "tokens, mean", sum(lengths) / len(lengths))
    print(
        "least, median, 90th percentile, most:",
        lengths[0],
        lengths[len(lengths) // 2],
        lengths[len(lengths) * 9 // 10],
        lengths[-1],
    )


if __name__ == "__main__":
    main()
