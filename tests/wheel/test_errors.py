"""Errors are exceptions with the text and the hint of the command line."""

import pathlib
import subprocess
import sys

import pyarrow as pa
import pytest

import polylance


def on_the_command_line(*arguments: str) -> str:
    command = pathlib.Path(sys.executable).parent / "polylance"
    ended = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert ended.returncode != 0
    return ended.stderr


def assert_same(error: polylance.PolylanceError, stderr: str) -> None:
    message, hint = error.args[0], error.hint
    assert message.splitlines()[0] in stderr
    assert hint is None or hint in stderr


def test_a_source_that_is_not_there(address):
    with pytest.raises(polylance.PolylanceError) as raised:
        polylance.embed("nowhere.parquet", table=address)
    assert_same(raised.value, on_the_command_line("embed", "--source", "nowhere.parquet", "--table", address))


def test_a_column_that_is_not_there(documents, address, tmp_path):
    source = str(tmp_path / "docs.arrow")
    with pa.OSFile(source, "wb") as sink, pa.ipc.new_file(sink, documents.schema) as writer:
        writer.write_table(documents)
    with pytest.raises(polylance.UsageError) as raised:
        polylance.embed(source, text="content", table=address)
    stderr = on_the_command_line("embed", "--source", source, "--text", "content", "--table", address)
    assert_same(raised.value, stderr)


def test_a_model_that_is_not_there(documents, address):
    with pytest.raises(polylance.PolylanceError) as raised:
        polylance.embed(documents, text="body", table=address, model="./no-model")
    stderr = on_the_command_line("embed", "--source", "builtin:udhr", "--model", "./no-model", "--table", address)
    assert_same(raised.value, stderr)


def test_a_table_that_is_not_there():
    with pytest.raises(polylance.PolylanceError) as raised:
        polylance.Table("nowhere.lance").search("anything")
    assert_same(raised.value, on_the_command_line("search", "--table", "nowhere.lance", "anything"))


def test_settings_that_are_no_settings(documents, address):
    with pytest.raises(polylance.UsageError, match="modle"):
        polylance.embed(documents, text="body", table=address, settings={"modle": {"id": "x"}})


def test_an_object_without_a_stream_is_no_source(address):
    with pytest.raises(polylance.UsageError, match="found list"):
        polylance.embed([{"id": 1, "text": "x"}], table=address)


def test_a_stream_that_breaks_off_is_an_error(address):
    def batches():
        yield pa.record_batch({"id": ["1"], "text": ["one"]})
        raise ValueError("the cable was pulled")

    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    reader = pa.RecordBatchReader.from_batches(schema, batches())
    with pytest.raises(polylance.UsageError, match="the cable was pulled"):
        polylance.embed(reader, table=address)
    assert not pathlib.Path(address).exists()
