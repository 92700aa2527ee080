"""Errors are exceptions with the text and the hint of the command line."""

import pathlib

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import write_arrow

import polylance


def assert_same(error: polylance.PolylanceError, printed) -> None:
    assert printed.returncode == (2 if isinstance(error, polylance.UsageError) else 1)
    first, *causes = error.message.splitlines()
    lines = [f"error: {first}", *causes, *([f"hint: {error.hint}"] if error.hint else [])]
    assert printed.stderr.splitlines()[-len(lines) :] == lines
    assert error.hint is None or error.hint in str(error)


def test_a_missing_source(address, command):
    with pytest.raises(polylance.PolylanceError) as raised:
        polylance.embed("nowhere.parquet", table=address)
    assert_same(raised.value, command("embed", "--source", "nowhere.parquet", "--table", address))


def test_a_missing_column_of_a_file(documents, address, tmp_path, command):
    source = write_arrow(documents, tmp_path / "docs.arrow")
    with pytest.raises(polylance.UsageError) as raised:
        polylance.embed(source, text="content", table=address)
    assert_same(raised.value, command("embed", "--source", source, "--text", "content", "--table", address))


def test_a_missing_column_of_a_frame_names_the_frame_and_not_a_temporary_file(documents, address, temporary):
    with pytest.raises(polylance.UsageError, match="^the DataFrame") as raised:
        polylance.embed(documents.to_pandas(), text="content", table=address)
    assert "body" in str(raised.value) and str(temporary) not in str(raised.value)


def test_a_missing_model(documents, address, command):
    with pytest.raises(polylance.PolylanceError) as raised:
        polylance.embed(documents, text="body", table=address, model="./no-model")
    assert_same(
        raised.value, command("embed", "--source", "builtin:udhr", "--model", "./no-model", "--table", address)
    )


@pytest.mark.parametrize(
    "source, model",
    [("builtin:udhr?codes=eng", "someone/model"), ("hf://datasets/someone/texts", "builtin:multilingual-e5-small")],
)
@pytest.mark.parametrize("offline", ["0", "1"])
def test_no_network(source, model, offline, address, tmp_path, monkeypatch, command):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    # Nothing listens on this port.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    with pytest.raises(polylance.PolylanceError, match="someone/|127.0.0.1:9") as raised:
        polylance.embed(source, table=address, model=model)
    assert_same(raised.value, command("embed", "--source", source, "--model", model, "--table", address))


def test_a_missing_table(tmp_path, command):
    with pytest.raises(polylance.PolylanceError) as raised:
        polylance.Table("nowhere.lance").search("anything")
    assert_same(raised.value, command("search", "--table", "nowhere.lance", "anything"))


def test_an_invalid_condition(documents, address, command):
    table = polylance.embed(documents, text="body", table=address)
    with pytest.raises(polylance.PolylanceError) as raised:
        table.search("anything", where="jear > 2000")
    assert_same(raised.value, command("search", "--table", address, "anything", "--where", "jear > 2000"))


def test_an_invalid_pipeline_file(tmp_path, command):
    file = tmp_path / "docs.toml"
    file.write_text('version = 1\n[source]\nuir = "docs.csv"\n', encoding="utf-8")
    with pytest.raises(polylance.UsageError) as raised:
        polylance.run(file)
    assert_same(raised.value, command("run", file))


def test_unknown_settings_name_the_nearest(documents, address):
    with pytest.raises(polylance.UsageError, match="unknown key `model.dtpye`") as raised:
        polylance.embed(documents, text="body", table=address, settings={"model": {"dtpye": "f32"}})
    assert "dtype" in raised.value.hint
    with pytest.raises(polylance.UsageError, match=r"`chunk.tokens` must be"):
        polylance.embed(documents, text="body", table=address, settings={"chunk.tokens": "many"})


def test_a_table_must_be_named(documents):
    with pytest.raises(polylance.UsageError, match="needs a table"):
        polylance.embed(documents, text="body")


@pytest.mark.parametrize(
    "source, hint",
    [
        ([{"id": 1, "text": "x"}], "pandas.DataFrame"),
        ({"id": [1], "text": ["x"]}, "pandas.DataFrame"),
        (7, "DataFrames of pandas and polars"),
    ],
)
def test_an_object_without_a_stream_is_no_source(source, hint, address):
    with pytest.raises(polylance.UsageError, match=f"found {type(source).__name__}") as raised:
        polylance.embed(source, table=address)
    assert hint in raised.value.hint


def test_a_stream_that_breaks_off_is_an_error_and_leaves_nothing(address, temporary):
    def batches():
        yield pa.record_batch({"id": ["1"], "text": ["one"]})
        raise ValueError("the cable was pulled")

    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    reader = pa.RecordBatchReader.from_batches(schema, batches())
    with pytest.raises(polylance.UsageError, match="the cable was pulled"):
        polylance.embed(reader, table=address)
    assert not pathlib.Path(address).exists() and not list(temporary.iterdir())


def test_refused_rows_are_a_warning(address):
    frame = pl.DataFrame({"id": ["1", None], "text": ["one", "two"]})
    with pytest.warns(UserWarning, match="1 row could not be embedded") as warned:
        table = polylance.embed(frame, table=address)
    assert table.report.rows_quarantined == 1 and warned[0].filename == __file__


def test_a_search_needs_one_query(documents, address):
    table = polylance.embed(documents, text="body", table=address)
    with pytest.raises(polylance.UsageError, match="exactly one of query, vector and like"):
        table.search()
    with pytest.raises(polylance.UsageError, match="best"):
        table.search("x", mode="best")


def test_errors_can_be_pickled():
    import pickle

    error = pickle.loads(pickle.dumps(polylance.UsageError("no", "yes")))
    assert (error.message, error.hint) == ("no", "yes")


def test_a_table_of_another_program_has_no_model(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    lancedb.connect(tmp_path).create_table("other", pd.DataFrame({"n": [1]}))
    with pytest.raises(polylance.PolylanceError, match="other.lance"):
        polylance.Table(tmp_path / "other.lance").encoder()
