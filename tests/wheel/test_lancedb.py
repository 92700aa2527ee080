"""LanceDB with a polylance model as its embedding function, and on a table of polylance."""

import subprocess
import sys
import textwrap

import lancedb
import numpy as np
import pytest
from conftest import TEXTS
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

import polylance
import polylance.lancedb


@pytest.fixture
def database(tmp_path):
    return lancedb.connect(tmp_path / "database")


def create(database, **options):
    function = get_registry().get("polylance").create(**options)

    class Document(LanceModel):
        id: str
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = database.create_table("documents", schema=Document)
    table.add([{"id": id, "text": text} for id, text in TEXTS.items()])
    return table


def test_texts_are_embedded_when_they_are_added_and_searched(database, encoder):
    table = create(database)
    assert table.search("heat pumps in old houses").limit(1).to_list()[0]["id"] == "d"
    assert {row["id"] for row in table.search("the right to education").limit(2).to_list()} == {"a", "e"}
    stored = table.to_arrow().sort_by("id")
    np.testing.assert_array_equal(np.stack(stored["vector"].to_pylist()), encoder.encode_document(stored["text"]))


def test_another_process_finds_the_function_in_the_metadata(database, tmp_path):
    create(database, max_tokens=64, query_prompt="query: ")
    code = """
        import lancedb, polylance.lancedb, sys
        table = lancedb.connect(sys.argv[1]).open_table("documents")
        print(table.search("heat pumps in old houses").limit(1).to_list()[0]["id"])
        (function,) = table.embedding_functions.values()
        print(function.function.max_tokens)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "database")]
    printed = subprocess.run(arguments, capture_output=True, text=True)
    assert printed.stdout.split() == ["d", "64"], printed.stderr


def test_a_table_of_polylance_has_the_same_neighbours_in_lancedb(documents, address, tmp_path):
    table = polylance.embed(documents, text="body", table=address)
    opened = lancedb.connect(tmp_path).open_table("docs")
    for query in ("heat pumps in old houses", "教育", "droit au repos"):
        ours = [hit["doc_id"] for hit in table.search(query, k=5)]
        vector = table.encoder().encode_query(query)
        theirs = opened.search(vector, vector_column_name="embedding").distance_type("cosine").limit(5).to_list()
        assert [hit["doc_id"] for hit in theirs] == ours


def test_a_function_may_have_the_contract_of_a_table(database, documents, address):
    settings = {"model": {"dtype": "f32", "prompts": {"passage": "text: ", "query": "find: "}}}
    table = polylance.embed(documents, text="body", table=address, settings=settings)
    other = create(database, table=address)
    ours = table.sql("SELECT embedding FROM docs ORDER BY doc_id").to_arrow()["embedding"].to_pylist()
    assert other.to_arrow().sort_by("id")["vector"].to_pylist() == ours
    function = get_registry().get("polylance").create(table=address)
    np.testing.assert_array_equal(function.compute_query_embeddings("x")[0], table.encoder().encode("find: x"))
