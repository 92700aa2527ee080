"""Arrow in, Arrow out: data frames become tables, and hits become data frames."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset

import polylance

SOURCES = {
    "pyarrow": lambda table: table,
    "reader": lambda table: table.to_reader(),
    "pandas": lambda table: table.to_pandas(),
    "polars": lambda table: pl.DataFrame(table),
    "duckdb": lambda documents: duckdb.sql("SELECT * FROM documents"),
    "datasets": lambda table: Dataset(table),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_what_people_have_is_a_source(kind, documents, address):
    table = polylance.embed(SOURCES[kind](documents), text="body", table=address, keep=["year"], progress=False)
    assert table.report.rows_written == documents.num_rows
    assert len(table) == documents.num_rows
    hits = table.search("heat pumps in old houses", k=2, where="year >= 2020")
    assert hits.to_pylist()[0]["doc_id"] == "d"


def test_a_second_run_over_the_same_frame_embeds_nothing(documents, address):
    frame = documents.to_pandas()
    first = polylance.embed(frame, text="body", table=address, progress=False)
    again = polylance.embed(frame, text="body", table=address, progress=False)
    assert first.report.tokens > 0 and again.report.tokens == 0
    assert again.report.rows_skipped == len(frame)
    frame.loc[0, "body"] = "Nobody shall be held in slavery."
    changed = polylance.embed(frame, text="body", table=address, progress=False)
    assert changed.report.rows_written == 1


def test_hits_and_rows_are_frames(documents, address):
    table = polylance.embed(documents, text="body", table=address, keep=["*"], progress=False)
    hits = table.search("right to education", k=3)
    assert len(hits) == 3 and "score" in hits.columns
    assert isinstance(hits.to_pandas(), pd.DataFrame)
    assert {hit["doc_id"] for hit in hits.to_pylist()[:2]} == {"a", "e"}
    counted = table.sql("SELECT year, count(*) AS n FROM docs GROUP BY year ORDER BY year").to_polars()
    assert counted["year"].to_list() == [2018, 2019, 2020, 2021, 2022] and counted["n"].sum() == 5
    assert duckdb.sql("SELECT max(year) FROM counted").fetchall() == [(2022,)]


def test_a_vector_and_a_document_are_queries_too(documents, address):
    table = polylance.embed(documents, text="body", table=address, progress=False)
    vector = polylance.Encoder().encode_query("the right to education")
    assert table.search(vector=vector, k=1).to_pylist()[0]["doc_id"] in {"a", "e"}
    assert {hit["doc_id"] for hit in table.search(like="a", k=4).to_pylist()} == {"b", "c", "d", "e"}


def test_progress_reaches_a_function(documents, address):
    seen = []
    polylance.embed(documents, text="body", table=address, progress=lambda *step: seen.append(step))
    assert all(len(step) == 4 and isinstance(step[0], str) for step in seen)


def test_a_pipeline_file_runs(documents, address, tmp_path):
    source, file = tmp_path / "docs.arrow", tmp_path / "docs.toml"
    with pa.OSFile(str(source), "wb") as sink, pa.ipc.new_file(sink, documents.schema) as writer:
        writer.write_table(documents)
    file.write_text(
        f'version = 1\n[source]\nuri = "{source}"\ntext = "body"\n[table]\nuri = "{address}"\n', encoding="utf-8"
    )
    report = polylance.run(file, {"source.keep": ["year"]}, progress=False)
    assert report.rows_written == 5 and report["rows_read"] == 5
    assert "rows_written" in repr(report) and "<table>" in report._repr_html_()
    assert polylance.Table(address).sql("SELECT min(year) AS y FROM docs").to_pylist() == [{"y": 2018}]


def test_values_arrive_as_they_were(address):
    body = pa.array(["one", "two", "three"])
    frame = pa.table({"id": pa.array([3, 1, 2]), "text": body, "weight": pa.array([0.5, None, np.pi])})
    table = polylance.embed(frame, table=address, keep=["weight"], progress=False)
    rows = table.sql("SELECT doc_id, weight FROM docs ORDER BY doc_id").to_pylist()
    assert rows == [{"doc_id": "1", "weight": None}, {"doc_id": "2", "weight": np.pi}, {"doc_id": "3", "weight": 0.5}]
