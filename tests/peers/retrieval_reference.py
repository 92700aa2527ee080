"""The reference figure of cross-lingual retrieval: torch, f32, on the built-in model's own weights.

    python tests/peers/retrieval_reference.py [--venv DIR] [--json]

How often article n of the declaration in 19 languages finds article n in English first, of 30, with the prefix
`query: ` on both sides.
"""

import argparse
import json
import tempfile
from pathlib import Path

import peer_env
from export_model import ASSETS, export

LANGUAGES = (
    "fra deu_1996 spa rus arb cmn_hans jpn hin swh tur kor por_PT ita pol vie tha ell_monotonic heb fin".split()
)


def articles(code: str) -> list:
    import pyarrow.parquet as pq

    rows = pq.read_table(ASSETS / "udhr.parquet", filters=[("code", "=", code), ("article", ">=", 1)]).to_pylist()
    assert [row["article"] for row in rows] == list(range(1, 31)), f"{code} has not every article"
    return [row["text"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    peer_env.add_arguments(parser)
    args = parser.parse_args()
    peer_env.enter(args.venv)
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        model = SentenceTransformer(folder, device="cpu")

        def embed(code: str):
            return model.encode(articles(code), prompt="query: ", batch_size=32)

        english = embed("eng")
        found = {code: (embed(code) @ english.T).argmax(axis=1) for code in LANGUAGES}
    right = {code: int((first == range(30)).sum()) for code, first in found.items()}
    share = sum(right.values()) / (30 * len(LANGUAGES))
    if args.json:
        print(json.dumps({"right": right, "of": 30, "share": share}))
        return
    for code, count in right.items():
        wrong = ", ".join(f"{n + 1} → {first + 1}" for n, first in enumerate(found[code]) if n != first)
        print(f"{code:15}{count:3} of 30   {wrong}")
    print(f"{sum(right.values())} of {30 * len(LANGUAGES)} = {share:.4f}")


if __name__ == "__main__":
    main()
