"""Search speed of a large table: the library, lancedb on the same index, and the server.

    python tests/peers/search_speed.py BINARY [--work DIR] [--rows N] [--kind KIND] [--dtype DTYPE] [--json]

The table has N rows whose vectors are those of the declaration's articles with noise. Its index is built and tuned to a
recall@10 of 0.95 by the program; then `polylance index tune` and lancedb search with the same rows of the table and the
same settings, taking turns, warm, one query at a time. Last, clients send texts to `polylance serve`, which embeds them.
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import peer_env
from ours import embed_udhr, serving

PORT = 8392
# Approximate cosine of a vector to the real one that it was made from.
NEARNESS = 0.9
BATCH = 50_000
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="the polylance binary")
    parser.add_argument("--work", type=Path, default=peer_env.DEFAULT_VENV.parent / "search-speed", help="a folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", default="auto", help="kind of the index")
    parser.add_argument("--dtype", default="auto", help="the arithmetic that embeds rows and queries")
    parser.add_argument("--queries", type=int, default=50, help="number of queries, each also searched exactly")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20, help="duration of the server measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--venv", type=Path, default=peer_env.DEFAULT_VENV.with_name("venv-search"))
    args = parser.parse_args()
    peer_env.enter(args.venv, "requirements-search.txt")

    args.work.mkdir(parents=True, exist_ok=True)
    table = args.work / f"rows-{args.rows}-{args.dtype}.lance"
    texts = make_table(args.binary, args.work / f"real-{args.dtype}.lance", table, args.rows, args.dtype)
    figures = {"rows": args.rows}
    figures["index"] = indexed(args.binary, table, args.kind)
    best = tuned(args.binary, table, args.queries, write=True)["best"]
    figures["effort"] = {"nprobes": best["nprobes"], "refine": best["refine"]}
    ours, theirs = [], []
    for _ in range(args.rounds):
        tuning = tuned(args.binary, table, args.queries)
        ours.append(next(one for one in tuning["tried"] if same(one, best)))
        theirs.append(with_lancedb(table, args.queries, best))
        print(f"polylance {ours[-1]}, lancedb {theirs[-1]}", file=sys.stderr)
    for name, rounds in [("polylance", ours), ("lancedb", theirs)]:
        keys = ["median_ms", "p99_ms", *(["recall"] if name == "polylance" else [])]
        figures[name] = {key: statistics.median(one[key] for one in rounds) for key in keys}
    figures["server"] = served(args.binary, table, texts, args.clients, args.seconds)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{args.rows} rows, index in {figures['index']['seconds']:.0f} s with {figures['index']['peak_gib']:.1f} GiB")
    print(f"{figures['effort']}, recall@{K} {figures['polylance']['recall']:.3f}")
    for name in ["polylance", "lancedb"]:
        print(f"{name:10} median {figures[name]['median_ms']:.2f} ms, 99 of 100 within {figures[name]['p99_ms']:.2f} ms")
    server = figures["server"]
    print(f"server     {server['queries_per_s']:.0f} queries/s, median {server['median_ms']:.0f} ms of {args.clients} clients")


def make_table(binary: Path, real: Path, table: Path, rows: int, dtype: str) -> list:
    """Makes the table once; returns short texts for queries."""
    import lance
    import numpy as np
    import pyarrow as pa

    embed_udhr(binary, real, dtype)
    known = lance.dataset(real).to_table()
    texts = [" ".join(text.split()[:6])[:60] for text in known["text"].to_pylist()]
    if table.exists() and lance.dataset(table).count_rows() == rows:
        return texts
    shutil.rmtree(table, ignore_errors=True)
    shutil.copytree(real, table)
    column = known["embedding"].combine_chunks()
    dim = column.type.list_size
    vectors = column.flatten().to_numpy().reshape(-1, dim)
    random = np.random.default_rng(7)
    spread = np.sqrt((1 / NEARNESS**2 - 1) / dim)
    at = known.num_rows
    while at < rows:
        count = min(BATCH, rows - at)
        which = random.integers(0, known.num_rows, count)
        noisy = vectors[which] + random.normal(0, spread, (count, dim)).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        part = known.take(pa.array(which))
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(noisy.reshape(-1)), type=column.type)
        ids = pa.array([f"noisy/{at + i}" for i in range(count)])
        part = part.set_column(part.schema.get_field_index("embedding"), known.schema.field("embedding"), embedding)
        part = part.set_column(part.schema.get_field_index("doc_id"), known.schema.field("doc_id"), ids)
        lance.write_dataset(part, table, mode="append")
        at += count
    return texts


def indexed(binary: Path, table: Path, kind: str) -> dict:
    """Rebuilds the index; returns seconds and peak memory."""
    subprocess.run([binary, "index", "vectors", "--table", table, "--kind", "none"], check=True, stdout=sys.stderr)
    begun = time.perf_counter()
    build = subprocess.Popen([binary, "index", "vectors", "--table", table, "--kind", kind], stdout=sys.stderr)
    _, status, usage = os.wait4(build.pid, 0)
    if status:
        sys.exit("the index could not be built")
    return {"seconds": time.perf_counter() - begun, "peak_gib": usage.ru_maxrss / 2**20}


def tuned(binary: Path, table: Path, queries: int, write: bool = False) -> dict:
    command = [binary, "index", "tune", "--table", table, "--queries", str(queries), "-k", str(K), "--json"]
    return json.loads(subprocess.run([*command, *([] if write else ["--dry-run"])], check=True, capture_output=True).stdout)


def same(one: dict, other: dict) -> bool:
    return all(one[key] == other[key] for key in ["nprobes", "refine"])


def with_lancedb(table: Path, queries: int, effort: dict) -> dict:
    """The same rows as queries, with k + 1 hits, as `index tune` does."""
    import lance
    import lancedb

    dataset = lance.dataset(table)
    rows = dataset.count_rows()
    wanted = [rows * at // queries for at in range(queries)]
    vectors = dataset.take(wanted, columns=["embedding"])["embedding"].to_pylist()
    opened = lancedb.connect(table.parent).open_table(table.stem)

    def search(vector: list) -> float:
        begun = time.perf_counter()
        query = opened.search(vector, vector_column_name="embedding").distance_type("cosine").nprobes(effort["nprobes"])
        found = query.refine_factor(effort["refine"]).limit(K + 1).with_row_id(True).select(["_distance"]).to_arrow()
        assert found.num_rows == K + 1
        return (time.perf_counter() - begun) * 1e3

    for vector in vectors:
        search(vector)
    return percentiles([search(vector) for vector in vectors])


def percentiles(times: list) -> dict:
    times = sorted(times)
    rank = -(-len(times) * 99 // 100)
    return {"median_ms": statistics.median(times), "p99_ms": times[rank - 1]}


def served(binary: Path, table: Path, texts: list, clients: int, seconds: float) -> dict:
    """Concurrent clients, each sending one query after the other."""
    times, lock = [], threading.Lock()

    def ask(connection: http.client.HTTPConnection, text: str) -> float:
        body = json.dumps({"query": text, "mode": "vector", "k": K, "columns": ["doc_id"]})
        begun = time.perf_counter()
        connection.request("POST", "/v1/search", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200 and len(found["hits"]) == K, found
        return (time.perf_counter() - begun) * 1e3

    def client(first: int, end: float) -> None:
        connection, own, at = http.client.HTTPConnection("127.0.0.1", PORT), [], first
        while time.perf_counter() < end:
            own.append(ask(connection, texts[at % len(texts)]))
            at += clients
        with lock:
            times.extend(own)

    with serving(binary, "docs", table, PORT):
        warm = http.client.HTTPConnection("127.0.0.1", PORT)
        for text in texts[:: max(1, len(texts) // 50)]:
            ask(warm, text)
        begun = time.perf_counter()
        threads = [threading.Thread(target=client, args=(at, begun + seconds)) for at in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begun
    return {"queries_per_s": len(times) / took, "clients": clients, **percentiles(times)}


if __name__ == "__main__":
    main()
