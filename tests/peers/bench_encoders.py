"""polylance's encoder against its peers: the same tokens, the same weights, the same cores, taking turns.

    python tests/peers/bench_encoders.py PROGRAM [--rounds N] [--texts N] [--cases e5,short,…] [--cores N] [--out DIR]

PROGRAM is `polylance` (its `bench` command is measured) or the example `encode_ids` of polylance-worker. Every turn is a
process of its own; tokenizing and loading are not counted, and loading is reported separately. Medians are compared.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import peer_env
from ours import ASSETS

HERE = Path(__file__).resolve().parent
FOLDER = peer_env.DEFAULT_VENV.parent / "encoders"
PEERS = [
    "sentence-transformers f32", "sentence-transformers bf16", "ONNX Runtime f32", "ONNX Runtime int8", "OpenVINO f32",
    "OpenVINO bf16",
]  # fmt: skip
OURS = ["polylance f32", "polylance bf16", "polylance int8"]
# The description and the model of each case.
CASES = {
    "e5": ("UDHR articles, built-in model", "e5"),
    "short": ("12 tokens each, built-in model", "e5"),
    "long": ("512 tokens each, built-in model", "e5"),
    "xl": ("UDHR articles, XL geometry with two layers", "xl"),
}
LENGTHS = [8, 16, 32, 64, 128, 256, 512]
PREFIX = "passage: "


def write_ids(folder: Path, count: int) -> None:
    """The tokens of every case: articles by the hash of their id, so that every run measures the same ones."""
    import pyarrow.parquet as pq
    from encoder_models import XL_VOCABULARY
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "e5" / "tokenizer.json"))
    rows = pq.read_table(ASSETS / "udhr.parquet").to_pylist()
    rows.sort(key=lambda row: hashlib.sha256(row["id"].encode("utf-8")).digest())
    articles = [tokenizer.encode(PREFIX + row["text"]).ids for row in rows[: count + count // 10]]
    articles = [ids for ids in articles if len(ids) <= 512][:count]
    words = [id for ids in articles for id in ids[1:-1]]

    def cut(tokens: int, texts: int) -> list:
        body = tokens - 2
        starts = (at * body % (len(words) - body) for at in range(texts))
        return [[0, *words[start : start + body], 2] for start in starts]

    cases = {"e5": articles, "short": cut(12, count), "long": cut(512, max(count // 10, 8))}
    cases["xl"] = [[id % (XL_VOCABULARY - 8) + 3 for id in ids] for ids in articles[: max(count // 4, 8)]]
    cases |= {f"length-{tokens}": cut(tokens, max(count * 20 // tokens, 8)) for tokens in LENGTHS}
    for name, texts in cases.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"input_ids": ids}) + "\n" for ids in texts))


def turn(program: Path, variant: str, folder: Path, model: str, case: str) -> dict:
    """One process: seconds, tokens, load time and peak memory of one variant on one case."""
    library, _, precision = variant.rpartition(" ")
    ids, vectors = folder / f"{case}.jsonl", folder / f"{case}-{variant}.f32"
    if library == "polylance":
        command = [program, *(["bench"] if program.name == "polylance" else []), "--ids", ids, "--model", folder / model]
        command += ["--dtype", precision, "--rounds", "1", "--vectors", vectors]
        command += ["--json"] if program.name == "polylance" else []
    else:
        command = [sys.executable, HERE / "encoder_peer.py", variant, folder / model, ids, vectors]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args, case: str, model: str, variants: list, rounds: int) -> list:
    turns = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in variants:
            turns[variant].append(turn(args.program, variant, args.folder, model, case))
            print(f"{case}: {variant}, turn {number + 1}: {turns[variant][-1]['seconds']:.2f} s", file=sys.stderr)
    rows = []
    for variant, found in turns.items():
        seconds = statistics.median(one["seconds"] for one in found)
        row = {
            "variant": variant,
            "tokens": found[0]["tokens"],
            "tokens_per_second": found[0]["tokens"] / seconds,
            "load_seconds": statistics.median(one["load_seconds"] for one in found),
            "peak_memory": max(one["peak_memory"] for one in found),
        }
        peaks = [one["peak_gflops"] for one in found if one.get("peak_gflops")]
        if peaks:
            row |= {"gflops": statistics.median(one["gflops"] for one in found), "peak_gflops": max(peaks)}
        rows.append(row)
    per_token = next(row["gflops"] / row["tokens_per_second"] for row in rows if "gflops" in row)
    for row in rows:
        row["gflops"] = row["tokens_per_second"] * per_token
    return rows


def add_cosines(rows: list, folder: Path, case: str) -> None:
    """The cosine of each variant's vectors to those of torch in f32."""
    import numpy as np

    count = len((folder / f"{case}.jsonl").read_text().splitlines())

    def vectors(variant: str):
        found = np.fromfile(folder / f"{case}-{variant}.f32", dtype=np.float32).reshape(count, -1)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    reference = vectors("sentence-transformers f32")
    for row in rows:
        cosines = (vectors(row["variant"]) * reference).sum(axis=1)
        row |= {"cosine": float(cosines.mean()), "cosine_min": float(cosines.min())}


def table(rows: list) -> str:
    lines = [
        "| | tokens/s | GFLOP/s | of its peak | cosine to torch f32, mean / min | load | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["tokens_per_second"]):
        share = f"{row['gflops'] / row['peak_gflops']:.0%}" if "peak_gflops" in row else ""
        cosine = f"{row['cosine']:.5f} / {row['cosine_min']:.5f}"
        name = f"**{row['variant']}**" if row["variant"].startswith("polylance") else row["variant"]
        lines.append(
            f"| {name} | {row['tokens_per_second']:,.0f} | {row['gflops']:,.0f} | {share} | {cosine} |"
            f" {row['load_seconds']:.1f} s | {row['peak_memory'] / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


def ratios(rows: list) -> str:
    rate = {row["variant"]: row["tokens_per_second"] for row in rows}
    parts = []
    for ours in (name for name in OURS if name in rate):
        others = [f"{rate[ours] / rate[peer]:.1f} x {peer}" for peer in PEERS if peer in rate]
        parts.append(f"{ours}: {', '.join(others)}.")
    return "\n\n".join(parts)


def plot(path: Path, results: dict, lengths: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), width_ratios=[1, 1.1])
    rows = sorted(results["e5"], key=lambda row: row["tokens_per_second"])
    colours = ["#0b6e4f" if row["variant"].startswith("polylance") else "#b8b8b8" for row in rows]
    bars = left.barh([row["variant"] for row in rows], [row["tokens_per_second"] for row in rows], color=colours)
    left.bar_label(bars, labels=[f"{row['tokens_per_second']:,.0f}" for row in rows], padding=4, fontsize=9)
    left.set_title("Tokens per second, UDHR articles", loc="left", fontsize=11)
    left.set_xticks([])
    left.margins(x=0.2)
    for variant, rates in lengths.items():
        ours = variant.startswith("polylance")
        right.plot(LENGTHS, rates, color="#0b6e4f" if ours else "#8c8c8c", linewidth=2 if ours else 1.2, marker=".")
    # Names are next to the ends of their lines, and at least a line's height above the one below.
    lowest = 0.0
    for variant, rates in sorted(lengths.items(), key=lambda item: item[1][-1]):
        lowest = max(rates[-1], lowest * 1.07)
        right.annotate(variant, (LENGTHS[-1], lowest), xytext=(6, -3), textcoords="offset points", fontsize=8)
    right.set_xscale("log", base=2)
    right.set_xticks(LENGTHS, LENGTHS)
    right.set_yscale("log")
    right.yaxis.set_major_locator(ticker.FixedLocator([5e3, 1e4, 2e4, 4e4]))
    right.yaxis.set_minor_locator(ticker.NullLocator())
    right.yaxis.set_major_formatter("{x:,.0f}")
    right.set_title("Tokens per second by the texts' length in tokens", loc="left", fontsize=11)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.spines["bottom"].set_visible(False)
    right.margins(x=0.02)
    figure.subplots_adjust(wspace=0.2)
    figure.savefig(path, dpi=130, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--cases", default=",".join([*CASES, "lengths"]))
    parser.add_argument("--cores", type=int, default=2, help="cores for each program, the same ones; default 2")
    parser.add_argument("--out", type=Path, default=FOLDER / "report", help=f"default {FOLDER / 'report'}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the models, which are made if absent")
    peer_env.add_arguments(parser)
    args = parser.parse_args()
    peer_env.enter(args.venv)
    from encoder_models import make

    make(args.folder)
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    os.sched_setaffinity(0, cores)  # every turn's process inherits it
    write_ids(args.folder, args.texts)
    args.program = args.program.resolve()
    cases, results, report = args.cases.split(","), {}, []
    for case in (case for case in CASES if case in cases):
        title, model = CASES[case]
        variants = OURS + [peer for peer in PEERS if model == "e5" or not peer.startswith("ONNX")]
        results[case] = measure(args, case, model, variants, args.rounds)
        add_cosines(results[case], args.folder, case)
        report += [f"### {title}", table(results[case]), ratios(results[case])]
    lengths = {}
    if "lengths" in cases:
        shown = ["polylance f32", "polylance bf16", "sentence-transformers bf16", "ONNX Runtime int8", "OpenVINO bf16"]
        for tokens in LENGTHS:
            for row in measure(args, f"length-{tokens}", "e5", shown, 1):
                lengths.setdefault(row["variant"], []).append(row["tokens_per_second"])
        report += ["### Tokens per second by length", "| tokens | " + " | ".join(map(str, LENGTHS)) + " |"]
        report[-1] += "\n|" + "---|" * (len(LENGTHS) + 1)
        for variant, rates in lengths.items():
            report[-1] += f"\n| {variant} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "encoders.json").write_text(json.dumps(results | {"lengths": lengths}, indent=1))
    (args.out / "encoders.md").write_text("\n\n".join(report) + "\n")
    if "e5" in results and lengths:
        plot(args.out / "encoders.png", results, lengths)
    print("\n\n".join(report))


if __name__ == "__main__":
    main()
