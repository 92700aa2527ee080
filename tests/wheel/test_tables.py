"""Searches, queries and annotations, and their rows in other libraries."""

import concurrent.futures
import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import polylance


@pytest.fixture
def table(documents, address) -> polylance.Table:
    return polylance.embed(documents, text="body", table=address)


def test_rows_are_frames_of_every_library(table):
    hits = table.search("right to education", k=3)
    assert len(hits) == 3 and "score" in hits.columns and "3 rows" in repr(hits)
    assert isinstance(hits.to_arrow(), pa.Table) and isinstance(hits.to_pandas(), pd.DataFrame)
    assert isinstance(hits.to_polars(), pl.DataFrame) and [dict(hit) for hit in hits] == hits.to_pylist()
    assert {hit["doc_id"] for hit in hits.to_pylist()[:2]} == {"a", "e"}
    counts = table.sql("SELECT year, count(*) AS n FROM docs GROUP BY year ORDER BY year")
    assert pl.DataFrame(counts)["n"].sum() == 5 and pa.table(counts).num_rows == 5
    assert duckdb.sql("SELECT max(year) FROM counts").fetchall() == [(2022,)]
    assert len(table.search("anything", where="year > 3000")) == 0
    assert table.sql("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_rows_go_in_again(table, tmp_path):
    rows = table.sql("SELECT doc_id AS id, text, lang FROM docs")
    again = polylance.embed(rows, table=tmp_path / "again.lance")
    assert len(again) == 5


def test_notebooks_show_rows_and_reports_as_tables(table):
    shown = table.sql("SELECT doc_id, embedding, '<b>' AS markup, NULL AS nothing FROM docs")._repr_html_()
    assert "<th>doc_id</th>" in shown and "&lt;b&gt;" in shown and "…]" in shown and "<b>" not in shown
    many = table.sql("SELECT * FROM generate_series(1, 50)")._repr_html_()
    assert many.count("<tr>") == 21 and "30 more" in many
    report = table.report
    assert "<th" in report._repr_html_() and "rows_written" in repr(report) and "rows_written" in dir(report)
    assert report["rows_written"] == report.rows_written == 5 and dict(report)["table"] == table.uri
    with pytest.raises(AttributeError, match="no 'rows_eaten'"):
        report.rows_eaten


def test_vectors_and_documents_are_queries_too(table):
    encoder = table.encoder()
    vector = encoder.encode_query("the right to education")
    assert table.search(vector=vector, k=1).to_pylist() == table.search("the right to education", k=1).to_pylist()
    assert {hit["doc_id"] for hit in table.search(like="a", k=4)} == {"b", "c", "d", "e"}
    assert {hit["doc_id"] for hit in table.search(like=("a", 0), k=4)} == {"b", "c", "d", "e"}


def test_a_search_has_the_options_of_the_command(documents, address, command):
    table = polylance.embed(documents, text="body", table=address, settings={"index": {"words": True}})
    hits = table.search("education", k=2, mode="hybrid", fusion="weighted", weight=0.3, columns=["doc_id", "year"])
    assert {"doc_id", "year"} < set(hits.columns) and "text" not in hits.columns
    assert table.search("maisons", mode="text").to_pylist()[0]["doc_id"] == "c"
    assert len(table.search("education", by_document=True)) == 5
    printed = json.loads(command("search", "--table", address, "education", "--json").stdout)
    assert [hit["doc_id"] for hit in table.search("education")] == [hit["doc_id"] for hit in printed]


def test_the_encoder_of_a_table_makes_the_vectors_of_the_table(documents, address):
    settings = {"model": {"dtype": "f32", "prompts": {"passage": "text: ", "query": "find: "}}, "chunk.tokens": 32}
    table = polylance.embed(documents, text="body", table=address, settings=settings)
    encoder = table.encoder()
    assert encoder.prompts["query"] == "find: " and encoder.max_seq_length == 32
    rows = table.sql("SELECT text, embedding FROM docs").to_arrow()
    np.testing.assert_array_equal(np.stack(rows["embedding"].to_pylist()), encoder.encode_document(rows["text"]))


def test_sql_joins_other_tables(table, documents, tmp_path):
    polylance.embed(documents.slice(0, 2), text="body", table=tmp_path / "other.lance")
    joined = table.sql("SELECT count(*) AS n FROM docs JOIN o ON docs.doc_id = o.doc_id", o=tmp_path / "other.lance")
    assert joined.to_pylist() == [{"n": 2}]
    found = table.sql("SELECT doc_id FROM vector_search('docs', 'heat pumps', 1)").to_pylist()
    assert found == [{"doc_id": "d"}]


def test_annotations_fill_only_what_is_missing(table, documents, address, tmp_path, command):
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("id,text,label\n" + "\n".join(f"r{n},right {n},law\nh{n},house {n},home" for n in range(10)))
    fitted = command("fit", "--source", labelled, "--label", "label", "--out", tmp_path / "topics")
    assert fitted.returncode == 0, fitted.stderr
    seen = []
    report = table.annotate("topic", task="classify", model=tmp_path / "topics", progress=seen.append)
    assert report.rows_annotated == 5 and seen[-1][:3] == ("topic", 5, 5)
    assert table.annotate("topic", task="classify", model=tmp_path / "topics").rows_annotated == 0
    with pytest.raises(polylance.UsageError, match="sort"):
        table.annotate("other", task="sort", model=tmp_path / "topics")
    with pytest.raises(polylance.UsageError, match="words"):
        table.annotate("other", task="classify", model=tmp_path / "topics", words="first")


def test_a_table_may_be_searched_from_many_threads(table):
    expected = table.search("heat pumps", k=5).to_pylist()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda _: table.search("heat pumps", k=5).to_pylist(), range(32))
        assert all(hits == expected for hits in found)
