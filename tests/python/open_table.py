"""Open a polylance table with pylance, lancedb and Polars, read its vectors and search them.

    python tests/python/open_table.py URI [--ordinal N]

Searches with the vector of row N and expects that row first in pylance and in lancedb; Polars finds the row by its key
and reads the same vector. Prints one JSON object,
`{"rows", "dim", "row", "pylance_first", "lancedb_first", "polars_rows"}`, or one line that
names the fault, and exits with 1.
"""

import argparse
import json
import sys
from pathlib import PurePosixPath

import lance
import lancedb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

COLUMN = "embedding"
KEY = ["doc_id", "chunk"]


class TableError(Exception):
    """A fault of the table, for the error message."""


def key(row: dict) -> list:
    return [row[name] for name in KEY]


def check_schema(schema: pa.Schema) -> int:
    """The dimension of the vectors."""
    for name in [COLUMN, *KEY]:
        if name not in schema.names:
            raise TableError(f"no column {name!r}, found {schema.names}")
    kind = schema.field(COLUMN).type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise TableError(f"column {COLUMN!r} is {kind}, expected fixed_size_list<float>")
    return kind.list_size


def check_vectors(table: pa.Table, dim: int) -> None:
    column = table[COLUMN].combine_chunks()
    if column.null_count:
        raise TableError(f"{column.null_count} of {len(column)} vectors are null")
    values = column.flatten()
    if len(values) != dim * len(column) or values.null_count:
        raise TableError(f"{len(values) - values.null_count} numbers in {len(column)} vectors of {dim}")
    if not pc.all(pc.is_finite(values)).as_py():
        raise TableError("a vector holds a number that is not finite")


def check_first(library: str, hits: list, row: dict) -> list:
    """The key of the first hit. Rows with the same text have the same distance, so a tie is accepted."""
    if not hits:
        raise TableError(f"{library} finds no row near {key(row)}")
    first = hits[0]
    if key(first) != key(row) and first[COLUMN] != row[COLUMN]:
        raise TableError(f"{library} finds {key(first)} first at distance {first['_distance']}, expected {key(row)}")
    return key(first)


def with_pylance(uri: str, ordinal: int) -> dict:
    dataset = lance.dataset(uri)
    dim = check_schema(dataset.schema)
    rows = dataset.count_rows()
    if not 0 <= ordinal < rows:
        raise TableError(f"row {ordinal} is requested, the table has {rows}")
    vectors = dataset.to_table(columns=[COLUMN])
    if vectors.num_rows != rows:
        raise TableError(f"{vectors.num_rows} rows read, {rows} counted")
    check_vectors(vectors, dim)
    (row,) = dataset.take([ordinal], columns=[*KEY, COLUMN]).to_pylist()
    nearest = {"column": COLUMN, "q": pa.array(row[COLUMN], pa.float32()), "k": 5, "nprobes": 64, "refine_factor": 10}
    hits = dataset.to_table(columns=[*KEY, COLUMN, "_distance"], nearest=nearest).to_pylist()
    return {"rows": rows, "dim": dim, "row": row, "pylance_first": check_first("pylance", hits, row)}


def with_lancedb(uri: str, row: dict, rows: int) -> list:
    path = PurePosixPath(uri)
    if path.suffix != ".lance":
        raise TableError(f"lancedb opens folders named *.lance, this is {path.name!r}")
    parent = uri[: -len(path.name)].rstrip("/") or "."
    table = lancedb.connect(parent).open_table(path.stem)
    if table.count_rows() != rows:
        raise TableError(f"lancedb counts {table.count_rows()} rows, pylance {rows}")
    query = table.search(row[COLUMN], vector_column_name=COLUMN).nprobes(64).refine_factor(10).limit(5)
    return check_first("lancedb", query.to_list(), row)


def with_polars(uri: str, row: dict) -> int:
    """The number of rows."""
    table = pl.scan_lance(uri)
    wanted = pl.all_horizontal([pl.col(name) == row[name] for name in KEY])
    found = table.filter(wanted).select(*KEY, COLUMN).collect().to_dicts()
    if [{**hit, COLUMN: list(hit[COLUMN])} for hit in found] != [row]:
        raise TableError(f"Polars finds {[key(hit) for hit in found]}, expected {key(row)} with its vector")
    return table.select(pl.len()).collect().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri", help="the table, a path or URI ending in .lance")
    parser.add_argument("--ordinal", type=int, default=0, help="the row to search with, counted from 0")
    args = parser.parse_args()
    try:
        found = with_pylance(args.uri, args.ordinal)
        row = found.pop("row")
        first = with_lancedb(args.uri, row, found["rows"])
        counted = with_polars(args.uri, row)
    except (TableError, ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {args.uri}: {error}")
    print(json.dumps(found | {"row": key(row), "lancedb_first": first, "polars_rows": counted}))


if __name__ == "__main__":
    main()
