"""Read every version of a table with pylance and check that no chunk is there twice and no document is incomplete.

    python tests/python/check_versions.py URI

Prints one JSON object, `{"versions", "rows"}`, or one line that names the fault, and exits with 1.
"""

import argparse
import json
import sys

import lance


def fault_of(rows: dict) -> str | None:
    chunks = {}
    for doc_id, chunk in zip(rows["doc_id"], rows["chunk"], strict=True):
        if chunk in chunks.setdefault(doc_id, set()):
            return f"chunk {chunk} of document {doc_id!r} is there twice"
        chunks[doc_id].add(chunk)
    for doc_id, numbers in chunks.items():
        if numbers != set(range(len(numbers))):
            return f"document {doc_id!r} has the chunks {sorted(numbers)}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri", help="the table")
    uri = parser.parse_args().uri
    versions = [version["version"] for version in lance.dataset(uri).versions()]
    rows = {}
    for version in versions:
        rows = lance.dataset(uri, version=version).to_table(columns=["doc_id", "chunk"]).to_pydict()
        if fault := fault_of(rows):
            sys.exit(f"error: {uri}: version {version}: {fault}")
    print(json.dumps({"versions": len(versions), "rows": len(rows["doc_id"])}))


if __name__ == "__main__":
    main()
