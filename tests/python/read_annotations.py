"""Read the annotation columns of a table with pylance, and print its rows as JSON.

    python tests/python/read_annotations.py URI COLUMN…

Prints `{"rows": […], "contracts": {column: …}}`; the rows include `text`, `char_start` and `char_end`, so that the
test can compare spans and answers with slices of the document.
"""

import json
import sys

import lance


def main():
    uri, *columns = sys.argv[1:]
    dataset = lance.dataset(uri)
    rows = dataset.to_table(columns=["doc_id", "chunk", "char_start", "char_end", "text", *columns]).to_pylist()
    field = dataset.schema.field
    contracts = {name: json.loads(field(name).metadata[b"polylance.head"]) for name in columns}
    print(json.dumps({"rows": rows, "contracts": contracts}))


main()
