"""Helpers around the polylance binary: articles to read, a whole run over them, a server."""

import contextlib
import hashlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Callable

import peer_env

ASSETS = peer_env.ROOT / "crates/builtin/assets"
MODEL = "builtin:multilingual-e5-small"
PREFIX = "passage: "
LONGEST = 512

PIPELINE = """\
version = 1

[source]
uri = {source}
id = "id"
text = "text"

[model]
id = "{model}"
dtype = "{dtype}"

[table]
uri = {table}

[index]
kind = "none"
"""


def sample(path: Path, count: int, tokens: Callable[[str], int]) -> list:
    """Writes `count` articles, chosen by the hash of their id among those that fit into one chunk. Returns their texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(ASSETS / "udhr.parquet").to_pylist()
    rows.sort(key=lambda row: hashlib.sha256(row["id"].encode("utf-8")).digest())
    # A run splits a long text into several chunks.
    rows = [row for row in rows[: count + count // 10] if tokens(row["text"]) <= LONGEST][:count]
    assert len(rows) == count, f"{len(rows)} texts within the limit, asked for {count}"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return [row["text"] for row in rows]


def run(binary: Path, folder: Path, source: Path, turn: int, dtype: str) -> dict:
    """One `run` into a new table: the summary it prints, with the time of the whole command."""
    pipeline = folder / f"turn-{turn}.toml"
    table = folder / f"turn-{turn}.lance"
    text = PIPELINE.format(source=json.dumps(str(source)), model=MODEL, dtype=dtype, table=json.dumps(str(table)))
    pipeline.write_text(text, encoding="utf-8")
    start = time.perf_counter()
    command = [binary, "run", pipeline, "--json", "--progress", "none"]
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"wall": wall}


def embed_udhr(binary: Path, table: Path, dtype: str, codes: list | None = None) -> None:
    """The declaration's articles, of all languages or some, as a table with a full-text index, made once."""
    if not table.exists():
        pipeline = table.with_suffix(".toml")
        source = "builtin:udhr" + (f"?codes={','.join(codes)}" if codes else "")
        pipeline.write_text(
            f'version = 1\n[source]\nuri = "{source}"\nkeep = ["code", "article"]\n'
            f'[model]\ndtype = "{dtype}"\n[index]\nwords = true\n[table]\nuri = "{table}"\n'
        )
        subprocess.run([binary, "run", pipeline], check=True, stdout=sys.stderr)


def embed_rows(binary: Path, source: Path, table: Path, dtype: str, keep: list) -> None:
    """Rows with `id` and `text` as a table with a full-text index, made once."""
    if not table.exists():
        pipeline = table.with_suffix(".toml")
        pipeline.write_text(
            f'version = 1\n[source]\nuri = "{source}"\nid = "id"\ntext = "text"\nkeep = {json.dumps(keep)}\n'
            f'[model]\ndtype = "{dtype}"\n[index]\nwords = true\n[table]\nuri = "{table}"\n'
        )
        subprocess.run([binary, "run", pipeline], check=True, stdout=sys.stderr)


@contextlib.contextmanager
def serving(binary: Path, name: str, table: Path, port: int):
    """A server of one table, ready when the block starts and stopped at its end."""
    server = subprocess.Popen([binary, "serve", "--table", f"{name}={table}", "--listen", f"127.0.0.1:{port}"])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").read()
                break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()
