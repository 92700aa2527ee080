"""The cost of three heads on the embedding's own encoder for a whole run: with and without them, taking turns.

    python3 tests/peers/bench_heads.py [BINARY] [--repeats N] [--json]

The heads are trained here, on the built-in corpus: the language, the article's number, and a tagger. The time is that of
the embedding as `run --json` reports it (reading, tokenizing, the pass, writing the Lance table), which includes the
heads. Needs nothing but Python.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = "builtin:udhr?codes=eng,fra,deu_1996,spa,rus,arb,hin,tha,jpn,swh,vie,tur,ell_monotonic,heb,kor,fin,pol,ita,nld,ind"
PIPELINE = """\
version = 1

[source]
uri = "{source}"

[table]
uri = {table}

[index]
kind = "none"
"""
HEAD = """
[[annotate]]
name = "{name}"
task = "{task}"
model = {model}
"""


def call(binary, *args):
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {binary} {' '.join(map(str, args))} ended with {done.returncode}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def fit(binary, folder: Path) -> dict:
    """Three heads, as (task, folder) by the column they fill."""
    tagged = folder / "tagged.conll"
    names = ["Ada", "Grace", "Zoë", "Čapek"]
    tagged.write_text("".join(f"today\tO\n{names[n % 4]}\tB-PER\nwrote\tO\nn{n}\tO\n\n" for n in range(80)), encoding="utf-8")
    features = folder / "features.lance"
    for label in ["code", "article"]:
        call(binary, "fit", "--source", TRAIN, "--label", label, "--out", folder / label, "--features", features, "--json")
    call(binary, "fit", "--source", tagged, "--conll", "--out", folder / "people", "--json")
    return {"code": ("classify", folder / "code"), "article": ("classify", folder / "article"), "people": ("ner", folder / "people")}


def run(binary, folder: Path, turn: str, heads: dict) -> float:
    """Seconds of one run into a new table; fails if a head had a pass of its own."""
    pipeline = folder / f"{turn}.toml"
    text = PIPELINE.format(source=TRAIN, table=json.dumps(str(folder / f"{turn}.lance")))
    text += "".join(HEAD.format(name=f"{name}_found", task=task, model=json.dumps(str(model))) for name, (task, model) in heads.items())
    pipeline.write_text(text, encoding="utf-8")
    summary, *columns = call(binary, "run", pipeline, "--json", "--progress", "none")
    assert all(column["in_pass"] and column["rows_missing"] == 0 for column in columns), columns
    return summary["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", nargs="?", default="target/release/polylance")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        heads = fit(args.binary, folder)
        alone, together = [], []
        for turn in range(args.repeats):
            alone.append(run(args.binary, folder, f"alone-{turn}", {}))
            together.append(run(args.binary, folder, f"together-{turn}", heads))
    result = {
        "embedding_seconds": statistics.median(alone),
        "with_three_heads_seconds": statistics.median(together),
        "ratio": statistics.median(with_heads / without for with_heads, without in zip(together, alone)),
    }
    if args.json:
        print(json.dumps(result))
    else:
        print("embedding alone {embedding_seconds:.1f} s, with three heads {with_three_heads_seconds:.1f} s: {ratio:.3f} times".format(**result))


if __name__ == "__main__":
    main()
