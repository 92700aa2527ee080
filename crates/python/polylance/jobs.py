"""Jobs: embed a source into a table."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from . import _polylance, progress as bars
from .errors import UsageError
from .report import Report
from .table import Table

_IN_MEMORY = ("__arrow_c_stream__", "__arrow_c_array__")


def embed(
    source: Any,
    *,
    table: str | os.PathLike[str],
    text: str = "text",
    id: str = "id",
    keep: Sequence[str] = (),
    model: str | None = None,
    devices: str | Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    reread: bool = False,
    progress: bool | bars.Function | None = None,
) -> Table:
    """Embeds a source into a table and returns the table; its `report` says what was done.

    source
        A path, a glob or an address (`s3://`, `gs://`, `az://`, `https://`, `builtin:udhr`), or any object that speaks
        the Arrow PyCapsule interface: a data frame of pandas or polars, a table of pyarrow, a relation of duckdb.
    table
        The Lance table; it is made when it is not there. A second run embeds only what is new or has changed.
    text, id, keep
        The columns with the text and with the document's name, and those to carry into the table; `["*"]` carries all.
    model, devices
        As `--model` and `--devices` of the command line.
    settings
        Other settings of a pipeline file, as nested dictionaries: `{"chunk": {"tokens": 256}}`.
    progress
        True, False, or a function that gets the stage, what is done, what there is in all and documents; by default a
        bar of tqdm on a terminal and in a notebook.
    """
    pipeline: dict[str, Any] = {"version": 1, **_copied(settings or {})}
    pipeline.setdefault("table", {})["uri"] = os.fspath(table)
    columns = pipeline.setdefault("source", {})
    columns.update(text=text, id=id, keep=list(keep))
    if model is not None:
        pipeline.setdefault("model", {})["id"] = model
    if devices:
        pipeline.setdefault("model", {})["devices"] = [devices] if isinstance(devices, str) else list(devices)
    with tempfile.TemporaryDirectory(prefix="polylance-") as folder, bars.shown(progress) as called:
        columns["uri"] = _address(source, folder)
        report = Report(_polylance.embed(json.dumps(pipeline), reread, called))
    return Table(os.fspath(table), model=model, devices=devices, report=report)


def run(
    pipeline: str | os.PathLike[str],
    settings: Sequence[str] | Mapping[str, Any] = (),
    *,
    reread: bool = False,
    progress: bool | bars.Function | None = None,
) -> Report:
    """Runs a pipeline file, as `polylance run` does. `settings` stand over the file's: `{"model.dtype": "int8"}` or
    `["model.dtype=int8"]`."""
    if isinstance(settings, Mapping):
        settings = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    with bars.shown(progress) as called:
        return Report(_polylance.run(os.fspath(pipeline), list(settings), reread, called))


def _address(source: Any, folder: str) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if not any(hasattr(source, name) for name in _IN_MEMORY):
        source = _arrow_of(source)
    file = os.path.join(folder, "source.arrow")
    _polylance.spool(source, file)
    return file


def _arrow_of(source: Any) -> Any:
    """What speaks Arrow inside of an object that does not: a dataset of Hugging Face."""
    data = getattr(source, "data", None)
    inner = getattr(data, "table", data)
    if any(hasattr(inner, name) for name in _IN_MEMORY):
        return inner
    found = type(source).__name__
    raise UsageError(f"a source is a path, an address or an object with an Arrow stream, found {found}")


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
