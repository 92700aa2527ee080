"""The quality of vector, full-text and hybrid search.

    python tests/peers/search_quality.py BINARY [--work DIR] [--articles N] [--dtype DTYPE] [--packages LISTS] [--json]

Two tasks with the declaration's articles, over 19 languages and over all that have every article, and with Debian's
descriptions of packages in 13 languages (package_descriptions.py) if LISTS names apt's folder of them:

across  the query is an article in its language, and only English rows may be hits: search across languages;
        for packages, the line that names the purpose, in a language other than English
within  the query is the first third of an article, over the whole table: search for remembered words;
        for packages, the line that names the purpose, in the description's language

For each mode recall@1, the mean reciprocal rank of the first ten and nDCG@10 (one row is right), by `polylance serve`
on a table that `polylance run` made. `full-text, pieces` is BM25 over the model's own SentencePiece pieces instead of ICU's
words, by pylance on a copy of the table.
"""

import argparse
import json
import math
import shutil
import sys
import urllib.request
from pathlib import Path

import package_descriptions
import peer_env
from ours import ASSETS, embed_rows, embed_udhr, serving
from retrieval_reference import LANGUAGES

PORT = 8391
MODES = {"vector": "vector", "text": "full-text", "hybrid": "hybrid"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="the polylance binary")
    parser.add_argument("--work", type=Path, default=peer_env.DEFAULT_VENV.parent / "search-quality", help="a folder")
    parser.add_argument("--articles", type=int, default=2, help="articles of each language that are used as queries")
    parser.add_argument("--dtype", default="auto", help="the model's arithmetic")
    parser.add_argument("--only-19", action="store_true", help="leave the other languages out")
    parser.add_argument("--packages", type=Path, help="apt's lists with the translated descriptions")
    parser.add_argument("--fusion", default="score", help="the fusion of hybrid search")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--venv", type=Path, default=peer_env.DEFAULT_VENV.with_name("venv-search"))
    args = parser.parse_args()
    peer_env.enter(args.venv, "requirements-search.txt")

    args.work.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, codes in [("19 languages", [*LANGUAGES, "eng"]), ("all languages", None)]:
        if codes is None and args.only_19:
            continue
        table = args.work / f"{name.replace(' ', '-')}-{args.dtype}.lance"
        embed_udhr(args.binary, table, args.dtype, codes)
        rows = read(table)
        step = 1 if codes else max(1, 30 // args.articles)
        asked = [row for row in rows if row["article"] % step == 0 and row["code"] != "eng"]
        english = {row["article"]: row["doc_id"] for row in rows if row["code"] == "eng"}
        across = [({"query": row["text"], "where": "code = 'eng'"}, english[row["article"]]) for row in asked]
        within = [({"query": third(row["text"])}, row["doc_id"]) for row in asked]
        measure(args, table, name, across, within, results)
        search = pieces_search(table, args.work / "pieces.lance")
        within = [position(search(third(row["text"])), row["doc_id"]) for row in asked]
        across = [position(search(row["text"], "code = 'eng'"), english[row["article"]]) for row in asked]
        results[name, "full-text, pieces"] = {"across": figures(across), "within": figures(within)}
    if args.packages:
        name = "packages in 13 languages"
        source, table = args.work / "packages.jsonl", args.work / f"packages-{args.dtype}.lance"
        rows = package_descriptions.write(args.packages, source)
        embed_rows(args.binary, source, table, args.dtype, ["package", "language"])
        asked = [row for row in rows if row["language"] != "en"]
        across = [({"query": row["title"], "where": "language = 'en'"}, f"en/{row['package']}") for row in asked]
        chosen = {row["package"] for row in asked}
        within = [({"query": row["title"]}, row["id"]) for row in rows if row["package"] in chosen]
        measure(args, table, name, across, within, results)
    if args.json:
        print(json.dumps({" | ".join(key): value for key, value in results.items()}))
        return
    print("| rows of | search | across: recall@1 | MRR@10 | nDCG@10 | within: recall@1 | MRR@10 | nDCG@10 |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, label), tasks in results.items():
        cells = [f"{tasks[task][figure]:.3f}" for task in ("across", "within") for figure in ("recall@1", "mrr@10", "ndcg@10")]
        print(f"| {name} | {label} | {' | '.join(cells)} |")


def measure(args, table: Path, name: str, across: list, within: list, results: dict) -> None:
    """The figures of each mode, into `results`."""
    with serving(args.binary, "table", table, PORT):
        for mode, label in MODES.items():
            asked = {"mode": mode} | ({"fusion": args.fusion} if mode == "hybrid" else {})
            ranks = [[rank(request | asked, right) for request, right in task] for task in (across, within)]
            results[name, label] = {"across": figures(ranks[0]), "within": figures(ranks[1])}
            print(f"{name}, {label}: {results[name, label]}", file=sys.stderr)


def read(table: Path) -> list:
    import lance

    rows = lance.dataset(table).to_table(columns=["doc_id", "chunk", "code", "article", "text"]).to_pylist()
    rows = [row for row in rows if row["chunk"] == 0 and row["article"] and row["article"] >= 1]
    counts = {}
    for row in rows:
        counts.setdefault(row["code"], set()).add(row["article"])
    whole = {code for code, articles in counts.items() if articles >= set(range(1, 31))}
    return sorted((row for row in rows if row["code"] in whole), key=lambda row: (row["code"], row["article"]))


def third(text: str) -> str:
    return text[: max(12, len(text) // 3)]


def rank(request: dict, right: str) -> int | None:
    """The rank of the document among the first ten, from 1."""
    body = json.dumps({"k": 10, "columns": ["doc_id"], **request}).encode()
    call = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/search", data=body, headers={"content-type": "application/json"}
    )
    hits = json.loads(urllib.request.urlopen(call).read())["hits"]
    return position([hit["row"]["doc_id"] for hit in hits], right)


def position(found: list, right: str) -> int | None:
    return found.index(right) + 1 if right in found else None


def figures(ranks: list) -> dict:
    def mean(of) -> float:
        return sum(of(rank) for rank in ranks if rank) / len(ranks)

    return {
        "recall@1": mean(lambda rank: rank == 1),
        "mrr@10": mean(lambda rank: 1 / rank),
        "ndcg@10": mean(lambda rank: 1 / math.log2(1 + rank)),
        "queries": len(ranks),
    }


def pieces_search(table: Path, copy: Path):
    """A search of the table by BM25 over the model's own pieces."""
    import lance
    import pyarrow as pa
    import zstandard
    from tokenizers import Tokenizer

    packed = (ASSETS / "tokenizer.json.zst").read_bytes()
    tokenizer = Tokenizer.from_str(zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode())

    def pieces(texts: list) -> list:
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [" ".join(one.tokens) for one in encoded]

    rows = lance.dataset(table).to_table(columns=["doc_id", "code", "text"])
    shutil.rmtree(copy, ignore_errors=True)
    rows = rows.append_column("pieces", pa.array(pieces(rows["text"].to_pylist())))
    dataset = lance.write_dataset(rows, copy)
    dataset.create_scalar_index(
        "pieces", "INVERTED", base_tokenizer="whitespace", stem=False, remove_stop_words=False,
        lower_case=False, ascii_folding=False, max_token_length=None,
    )
    dataset = lance.dataset(copy)

    def search(query: str, condition: str | None = None) -> list:
        query = {"columns": ["pieces"], "query": pieces([query])[0]}
        hits = dataset.to_table(
            full_text_query=query, columns=["doc_id"], limit=10, filter=condition, prefilter=condition is not None
        )
        return hits["doc_id"].to_pylist()

    return search


if __name__ == "__main__":
    main()
