"""Arrow in: data frames and what else has an Arrow stream become tables."""

import datetime
import pathlib

import adbc_driver_sqlite.dbapi
import deltalake
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyiceberg.catalog.sql
import pytest
from conftest import LANGUAGES, TEXTS, write_arrow
from datasets import Dataset, IterableDataset

import polylance


def from_adbc(table: pa.Table, _: pathlib.Path):
    connection = adbc_driver_sqlite.dbapi.connect()
    with connection.cursor() as cursor:
        cursor.adbc_ingest("documents", table, mode="create")
    cursor = connection.cursor()
    cursor.execute("SELECT * FROM documents")
    return cursor


def from_iceberg(table: pa.Table, folder: pathlib.Path):
    catalog = pyiceberg.catalog.sql.SqlCatalog("c", uri="sqlite:///:memory:", warehouse=folder.as_uri())
    catalog.create_namespace("n")
    created = catalog.create_table("n.documents", schema=table.schema)
    created.append(table)
    return created.scan()


def from_delta(table: pa.Table, folder: pathlib.Path):
    deltalake.write_deltalake(folder / "delta", table)
    return deltalake.QueryBuilder().register("d", deltalake.DeltaTable(folder / "delta")).execute("SELECT * FROM d")


SOURCES = {
    "pyarrow": lambda table, _: table,
    "a reader of pyarrow": lambda table, _: table.to_reader(),
    "pandas": lambda table, _: table.to_pandas(),
    "pandas with the id as its index": lambda table, _: table.to_pandas().set_index("id"),
    "polars": lambda table, _: pl.DataFrame(table),
    "polars in chunks": lambda table, _: pl.concat([pl.DataFrame(table[:2]), pl.DataFrame(table[2:])], rechunk=False),
    "duckdb": lambda table, _: duckdb.from_arrow(table),
    "datasets": lambda table, _: Dataset(table),
    "datasets, shuffled": lambda table, _: Dataset(table).shuffle(seed=1),
    "datasets, streaming": lambda table, _: Dataset(table).to_iterable_dataset(),
    "adbc": from_adbc,
    "deltalake": from_delta,
    "pyiceberg": from_iceberg,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_an_object_with_rows_is_a_source_and_its_second_run_embeds_nothing(kind, documents, address, tmp_path):
    def report(run: str) -> polylance.Report:
        folder = tmp_path / run
        folder.mkdir()
        return polylance.embed(SOURCES[kind](documents, folder), text="body", table=address).report

    assert report("first").rows_written == documents.num_rows
    rows = polylance.Table(address).sql("SELECT doc_id, text, year, lang FROM docs ORDER BY doc_id").to_pylist()
    expected = zip(TEXTS, TEXTS.values(), range(2018, 2023), LANGUAGES, strict=True)
    assert [tuple(row.values()) for row in rows] == list(expected)
    second = report("second")
    assert (second.tokens, second.rows_written, second.rows_skipped) == (0, 0, documents.num_rows)


def test_a_selection_of_a_dataset_is_embedded_and_no_other_row(documents, address):
    chosen = Dataset(documents).filter(lambda row: row["lang"] == "fr")
    polylance.embed(chosen, text="body", table=address)
    assert {row["doc_id"] for row in polylance.Table(address).sql("SELECT doc_id FROM docs")} == {"b", "c"}
    empty = IterableDataset.from_generator(lambda: iter(()), features=Dataset(documents).features)
    assert polylance.embed(empty, text="body", table=address).report.rows_read == 0


def test_a_changed_row_of_a_frame_is_embedded_again(documents, address):
    frame = documents.to_pandas()
    polylance.embed(frame, text="body", table=address)
    frame.loc[0, "body"] = "Nobody shall be held in slavery."
    report = polylance.embed(frame, text="body", table=address).report
    assert (report.rows_written, report.rows_skipped) == (1, len(frame) - 1)
    versions = polylance.Table(address).describe()["version"]
    for _ in range(3):
        polylance.embed(frame, text="body", table=address)
    assert polylance.Table(address).describe()["version"] == versions, "an unchanged frame commits nothing"


def test_columns_are_kept_as_the_caller_says(documents, address, tmp_path):
    def columns(source, name, **options):
        described = polylance.embed(source, text="body", table=tmp_path / name, **options).describe()
        return {column["name"] for column in described["schema"]} & {"year", "lang"}

    file = write_arrow(documents, tmp_path / "docs.arrow")
    assert columns(documents, "a.lance") == {"year", "lang"}
    assert columns(documents, "b.lance", keep=[]) == set()
    assert columns(documents, "c.lance", keep="year") == {"year"}
    assert columns(file, "d.lance") == set()
    assert columns(file, "e.lance", keep="*") == {"year", "lang"}


def test_only_rows_that_meet_the_condition_are_embedded(documents, address, tmp_path):
    def ids(source, name):
        table = polylance.embed(source, text="body", where="year >= 2020", table=tmp_path / name)
        return {row["doc_id"] for row in table.sql(f"SELECT doc_id FROM {name.split('.')[0]}")}

    assert ids(documents, "a.lance") == {"c", "d", "e"}
    assert ids(write_arrow(documents, tmp_path / "docs.arrow"), "b.lance") == {"c", "d", "e"}


def test_no_temporary_file_is_left(documents, address, temporary):
    polylance.embed(documents, text="body", table=address)
    with pytest.raises(polylance.UsageError):
        polylance.embed(documents, text="nothing", table=address)
    assert not list(temporary.iterdir())


def test_types_that_libraries_write_arrive_as_they_were(address):
    when = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    values = {
        "id": pa.array(["1", "2", "3"], pa.large_string()),
        "text": pa.array(["one", "two", "three"], pa.string_view()),
        "weight": pa.array([0.5, None, np.pi]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "when": pa.array([when, None, when], pa.timestamp("us", "Asia/Tokyo")),
        "day": pa.array([when.date(), None, None]),
        "view": pa.array(["v", None, "w" * 40], pa.string_view()),
        "big": pa.array([2**63 + 1, 0, 1], pa.uint64()),
        "tags": pa.array([["a", "b"], [], None], pa.large_list(pa.string())),
        "nothing": pa.nulls(3),
    }
    table = polylance.embed(pa.table(values), table=address)
    rows = table.sql("SELECT * FROM docs ORDER BY doc_id").to_pylist()
    for name in ("weight", "kind", "when", "day", "view", "big", "tags"):
        assert [row[name] for row in rows] == values[name].to_pylist(), name


def test_a_categorical_column_may_have_another_dictionary_in_each_batch(address):
    parts = [pa.table({"id": [str(i)], "text": ["one"], "kind": pa.array([k]).dictionary_encode()})
             for i, k in enumerate("xyz")]  # fmt: skip
    batches = [batch for part in parts for batch in part.to_batches()]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    rows = polylance.embed(reader, table=address).sql("SELECT kind FROM docs ORDER BY doc_id")
    assert [row["kind"] for row in rows] == ["x", "y", "z"]


def test_frames_of_pandas_with_its_own_types(address):
    frame = pd.DataFrame({
        "id": [1, 2, 3], "text": ["one", "two", "three"],
        "kind": pd.Categorical(["a", "b", "a"]), "maybe": pd.array([1, None, 3], dtype="Int64"),
        "when": pd.date_range("2024-01-01", periods=3, tz="Europe/Paris"), "flag": [True, False, True],
    })  # fmt: skip
    got = polylance.embed(frame, table=address).sql("SELECT * FROM docs ORDER BY doc_id").to_pandas()
    assert got["doc_id"].tolist() == ["1", "2", "3"]
    assert got["kind"].tolist() == ["a", "b", "a"] and got["flag"].tolist() == [True, False, True]
    assert got["maybe"].isna().tolist() == [False, True, False]
    assert (got["when"].dt.tz_convert("UTC") == frame["when"].dt.tz_convert("UTC")).all()
    empty = polylance.embed(frame.head(0), table=address)
    assert empty.report.rows_read == 0 and len(empty) == 3


def test_a_pipeline_file_is_a_source(documents, address, tmp_path):
    source, file = write_arrow(documents, tmp_path / "docs.arrow"), tmp_path / "docs.toml"
    file.write_text(
        f"version = 1\n[source]\nuri = '{source}'\ntext = 'body'\n[table]\nuri = '{address}'\n", encoding="utf-8"
    )
    table = polylance.embed(file, keep=["year"], settings={"chunk": {"tokens": 64}})
    assert table.uri == address and table.report.rows_written == 5
    assert table.describe()["contract"]["chunking"]["max_tokens"] == 64
    assert table.sql("SELECT min(year) AS y FROM docs").to_pylist() == [{"y": 2018}]
    report = polylance.run(file, {"source.keep": ["year"], "chunk": {"tokens": 64}})
    assert report.rows_skipped == 5 and report["rows_read"] == 5
    report = polylance.run(file, ["source.keep=['year']", "chunk.tokens=64"], reread=True)
    assert report.rows_skipped == 5 and not report.source_unchanged
    column = {"name": "kind", "task": "classify", "model": str(tmp_path / "a \"model\" \x7f"), "question": None}
    with pytest.raises(polylance.PolylanceError, match='a \\W+model'):
        polylance.run(file, {"annotate": [column]}, reread=True)
