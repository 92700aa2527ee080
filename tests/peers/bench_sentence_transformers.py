"""polylance against sentence-transformers: the same texts, the same weights, f32, this machine, one run.

    python tests/peers/bench_sentence_transformers.py [BINARY] [--texts N] [--repeats N] [--venv DIR] [--json]

The two take turns. Loading the model is counted for neither: polylance reports its own rate (`run --json`, which
includes reading, tokenizing and writing the Lance table); for the peer, only `encode` is timed. Exits with 1 if a vector
(cosine below 0.9999) or the number of tokens differs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peer_env
from export_model import export
from ours import MODEL, PREFIX, run, sample

BATCH = 32
MIN_COSINE = 0.9999


def polylance_vectors(binary: Path, texts: list):
    """The vectors of `encode`, and the number of their tokens."""
    import numpy as np

    # `encode` takes one text per line; the tokenizer reads a line break as a space, so this changes no vector.
    lines = "".join(text.replace("\n", " ") + "\n" for text in texts)
    command = [binary, "encode", "--model", MODEL, "--dtype", "f32", "--prefix", PREFIX]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}\n{done.stderr}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(texts), f"{len(texts)} lines in, {len(rows)} out"
    return np.array([row["embedding"] for row in rows], dtype=np.float32), sum(row["n_tokens"] for row in rows)


def measure(args) -> dict:
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(folder / "model")
        model = SentenceTransformer(str(folder / "model"), device="cpu")
        assert next(model.parameters()).dtype == torch.float32, "the peer is not in f32"

        def tokens(text: str) -> int:
            return len(model.tokenizer(PREFIX + text, truncation=False)["input_ids"])

        texts = sample(folder / "sample.parquet", args.texts, tokens)
        count = sum(map(tokens, texts))
        model.encode(texts[:BATCH], prompt=PREFIX, batch_size=BATCH)

        ours, theirs, failures = [], [], []
        for turn in range(args.repeats):
            if args.binary:
                ours.append(run(args.binary, folder, folder / "sample.parquet", turn, "f32"))
                if ours[-1]["tokens"] != count:
                    failures.append(f"polylance counts {ours[-1]['tokens']} tokens, the peer {count}")
            start = time.perf_counter()
            vectors = model.encode(texts, prompt=PREFIX, batch_size=BATCH)
            theirs.append(time.perf_counter() - start)
            print(f"turn {turn + 1} of {args.repeats} done", file=sys.stderr)

        result = {
            "texts": len(texts),
            "tokens": count,
            "threads": torch.get_num_threads(),
            "peer_tokens_per_second": [count / seconds for seconds in theirs],
        }
        result["peer_median"] = statistics.median(result["peer_tokens_per_second"])
        if args.binary:
            own, own_tokens = polylance_vectors(args.binary, texts)
            cosine = (own * vectors).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(vectors, axis=1)
            if own_tokens != count:
                failures.append(f"polylance encode counts {own_tokens} tokens, the peer {count}")
            if not cosine.min() >= MIN_COSINE:
                failures.append(f"cosine {cosine.min():.6f} for {texts[int(cosine.argmin())][:60]!r}")
            result["polylance_tokens_per_second"] = [turn["tokens_per_second"] for turn in ours]
            result["polylance_wall_seconds"] = [turn["wall"] for turn in ours]
            result["polylance_median"] = statistics.median(result["polylance_tokens_per_second"])
            result["ratio"] = result["polylance_median"] / result["peer_median"]
            result["min_cosine"] = float(cosine.min())
        return result | {"failures": failures}


def show(result: dict) -> None:
    print(f"{result['texts']} texts, {result['tokens']} tokens, {result['threads']} threads, f32; tokens a second:")
    for name, key in (("polylance run", "polylance"), ("sentence-transformers", "peer")):
        if f"{key}_median" in result:
            turns = " ".join(f"{rate:7.0f}" for rate in result[f"{key}_tokens_per_second"])
            print(f"  {name:22} {result[f'{key}_median']:7.0f}   turns {turns}")
    if "ratio" in result:
        walls = " ".join(f"{seconds:.1f}" for seconds in result["polylance_wall_seconds"])
        print(f"  ratio {result['ratio']:.2f}, smallest cosine {result['min_cosine']:.7f}")
        print(f"  polylance's whole command, loading included: {walls} s")
    for failure in result["failures"]:
        print(f"error: {failure}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("CARGO_TARGET_DIR", peer_env.ROOT / "target")) / "release" / "polylance"
    parser.add_argument("binary", type=Path, nargs="?", default=default, help=f"default {default}")
    parser.add_argument("--peer-only", action="store_true", help="measure the peer alone")
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    peer_env.add_arguments(parser)
    args = parser.parse_args()
    args.binary = None if args.peer_only else args.binary.resolve()
    if args.binary and not args.binary.exists():
        sys.exit(f"error: no binary at {args.binary}\nhint: cargo build --release, or give its path")
    peer_env.enter(args.venv)
    result = measure(args)
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    sys.exit(1 if result["failures"] else 0)


if __name__ == "__main__":
    main()
