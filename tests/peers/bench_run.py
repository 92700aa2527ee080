"""A whole run and its bare encoder: Parquet to a committed Lance table, and the same tokens from memory to vectors.

    python tests/peers/bench_run.py BINARY [--texts N] [--rounds N] [--dtype DTYPE] [--json]

The two take turns over the same articles. Loading the model is counted for neither: `run --json` reports its own rate,
from the first row read to the last commit, and `bench --ids` that of the encoder. Exits with 1 if their token counts
differ.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import peer_env
from ours import ASSETS, MODEL, PREFIX, run, sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="the polylance binary")
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--venv", type=Path, default=peer_env.DEFAULT_VENV.with_name("venv-search"))
    args = parser.parse_args()
    peer_env.enter(args.venv, "requirements-search.txt")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, ids = folder / "sample.parquet", folder / "ids.jsonl"
        tokens = articles(source, ids, args.texts)
        bare, whole = [], []
        for turn in range(args.rounds):
            bare.append(encoder(args.binary, ids, args.dtype))
            whole.append(run(args.binary, folder, source, turn, args.dtype))
            print(f"turn {turn + 1}: bare {bare[-1]['tokens_per_second']:.0f}, run {whole[-1]['tokens_per_second']:.0f}", file=sys.stderr)
    if any(one["tokens"] != tokens for one in bare + whole):
        sys.exit(f"{tokens} tokens were prepared, the encoder counts {bare[0]['tokens']}, the run {whole[0]['tokens']}")
    rates = {name: statistics.median(one["tokens_per_second"] for one in of) for name, of in [("bare", bare), ("run", whole)]}
    figures = {"texts": args.texts, "tokens": tokens, "dtype": bare[0]["dtype"], **rates, "share": rates["run"] / rates["bare"]}
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{args.texts} texts, {tokens} tokens, {figures['dtype']} on {bare[0]['instructions']}")
    print(f"bare encoder {rates['bare']:.0f} tokens/s, whole run {rates['run']:.0f}: {figures['share']:.3f} of it")


def articles(source: Path, ids: Path, count: int) -> int:
    """Writes articles as rows and as tokens. Returns the number of tokens."""
    import zstandard
    from tokenizers import Tokenizer

    packed = (ASSETS / "tokenizer.json.zst").read_bytes()
    tokenizer = Tokenizer.from_str(zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def ids_of(text: str) -> list:
        return tokenizer.encode(PREFIX + text).ids

    rows = [ids_of(text) for text in sample(source, count, lambda text: len(ids_of(text)))]
    ids.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return sum(map(len, rows))


def encoder(binary: Path, ids: Path, dtype: str) -> dict:
    command = [binary, "bench", "--model", MODEL, "--ids", ids, "--rounds", "1", "--json"]
    # The default of `bench` is the dtype that `auto` selects for a new table.
    command += [] if dtype == "auto" else ["--dtype", dtype]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
