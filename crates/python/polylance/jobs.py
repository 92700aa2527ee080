"""Jobs: embed a source into a table, run a pipeline file."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _polylance, sources
from .errors import PolylanceError, UsageError
from .progress import NativeFunction, ProgressFunction, shown
from .report import Report
from .table import Table

#: The id of rows that have no column with one.
CONTENT_ID = "@content"


def embed(
    source: Any,
    *,
    table: str | os.PathLike[str] | None = None,
    text: str | None = None,
    id: str | None = None,
    keep: str | Sequence[str] | None = None,
    where: str | None = None,
    model: str | os.PathLike[str] | None = None,
    devices: str | Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    reread: bool = False,
    progress: bool | ProgressFunction | None = None,
) -> Table:
    """Embeds a source into a table, and returns the table. Its `report` has the counts of the job.

    A second run embeds only new and changed documents. Ctrl-C commits the rows of the batches in progress, then raises
    `KeyboardInterrupt`; the next run continues from there.

    Args:
        source: A path, a glob or an address (`s3://`, `gs://`, `az://`, `https://`, `builtin:udhr`), a pipeline file
            (`.toml`), or any object with an Arrow stream: a DataFrame of pandas or polars, a relation of DuckDB, a
            table or a reader of PyArrow, a dataset of Hugging Face. The rows of such an object are first written to a
            temporary file.
        table: The Lance table; created if it does not exist. Only a pipeline file may name it instead.
        text: The column with the text; `text` by default.
        id: The column with the document's id. By default the column `id`; an object with an Arrow stream may lack it,
            and then the id of a row is made of its text (`@content`): equal texts are one document.
        keep: Columns to copy to the table. By default all columns of an object with an Arrow stream, and none of a
            path; `"*"` copies all, `[]` none.
        where: A SQL condition over the columns of the source, such as `year >= 2020`: other rows are not embedded.
        model: `builtin:multilingual-e5-small` by default, or a folder or a GGUF file, local or at s3://, gs:// or
            az://, or a hub id.
        devices: As in `model.devices` of a pipeline file: "cpu", "cuda:0"; all GPUs by default, or all cores.
        settings: Other keys of a pipeline file, nested or dotted: `{"chunk": {"tokens": 256}}` or
            `{"chunk.tokens": 256}`.
        reread: Read the source even if none of its files has changed.
        progress: True, False, or a function that receives a `polylance.Progress`; an exception that it raises stops the
            job. By default bars on a terminal and in a notebook.

    Raises:
        UsageError: An argument, the source or the table is invalid.
        PolylanceError: The job failed; committed rows stay in the table.
    """
    arguments: dict[str, Any] = {
        "source.text": text,
        "source.id": id,
        "source.keep": [keep] if isinstance(keep, str) else None if keep is None else list(keep),
        "source.where": where,
        "model.id": None if model is None else os.fspath(model),
        "model.devices": ([devices] if isinstance(devices, str) else list(devices)) or None,
        "table.uri": None if table is None else os.fspath(table),
    }
    values = {**dict(_flat(settings or {})), **{key: value for key, value in arguments.items() if value is not None}}
    if sources.is_pipeline_file(source):
        report = _run(source, values, reread, progress)
    elif table is None:
        raise UsageError("embed() needs a table", 'name one: table="docs.lance"')
    elif isinstance(source, (str, os.PathLike)):
        with shown(progress) as function:
            report = _embed({"source.uri": os.fspath(source), **values}, reread, function)
    else:
        report = _embed_in_memory(source, values, progress)
    _warn_of_quarantine(report)
    embedded = Table(report["table"], model=model, devices=devices)
    embedded.report = report
    return embedded


def run(
    pipeline: str | os.PathLike[str],
    settings: Sequence[str] | Mapping[str, Any] = (),
    *,
    reread: bool = False,
    progress: bool | ProgressFunction | None = None,
) -> Report:
    """Runs a pipeline file, as `polylance run` does, and returns the report.

    Args:
        pipeline: The file. Relative paths in it are relative to the current folder.
        settings: Override keys of the file: `{"model.dtype": "int8"}` or `["model.dtype=int8"]`.
        reread: Read the source even if none of its files has changed.
        progress: As for `embed`.
    """
    report = _run(pipeline, settings, reread, progress)
    _warn_of_quarantine(report)
    return report


def _run(
    pipeline: str | os.PathLike[str],
    settings: Sequence[str] | Mapping[str, Any],
    reread: bool,
    progress: bool | ProgressFunction | None,
) -> Report:
    if isinstance(settings, Mapping):
        settings = [f"{key}={_toml(value)}" for key, value in _flat(settings)]
    with shown(progress) as function:
        return Report._parse(_polylance.run(os.fspath(pipeline), list(settings), reread, function))


def _embed_in_memory(source: Any, values: Mapping[str, Any], progress: bool | ProgressFunction | None) -> Report:
    stream = sources.stream_of(source)
    with tempfile.TemporaryDirectory(prefix="polylance-", ignore_cleanup_errors=True) as folder:
        file = os.path.join(folder, f"{type(source).__name__}.arrows")
        rows, columns = _polylance.spool(stream, file)
        # A file of the future may still change, so the table does not record it as unchanged: its name is used once.
        tomorrow = time.time() + 86_400
        os.utime(file, (tomorrow, tomorrow))
        defaults = {"source.id": "id" if "id" in columns else CONTENT_ID, "source.keep": ["*"]}
        fixed = {"source.uri": file, "source.format": "arrow"}
        try:
            with shown(progress, rows) as function:
                return _embed({**defaults, **values, **fixed}, function=function)
        except PolylanceError as error:
            # The name of the temporary file says nothing.
            message = error.message.replace(file, f"the {type(source).__name__}")
            raise type(error)(message, error.hint) from None


def _embed(values: Mapping[str, Any], reread: bool = False, function: NativeFunction | None = None) -> Report:
    pipeline: dict[str, Any] = {"version": 1}
    for key, value in values.items():
        *sections, name = key.split(".")
        section = pipeline
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return Report._parse(_polylance.embed(json.dumps(pipeline), reread, function))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of nested settings, dotted. A setting that is None is left out."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _toml(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        items = (f"{_toml(key)} = {_toml(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _warn_of_quarantine(report: Report) -> None:
    refused = report.get("rows_quarantined", 0)
    if refused:
        rows = "1 row" if refused == 1 else f"{refused:,} rows"
        command = f"polylance quarantine list --table {report['table']}"
        warnings.warn(f"{rows} could not be embedded and went to the quarantine: {command}", stacklevel=3)
