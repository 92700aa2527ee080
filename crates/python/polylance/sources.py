"""Sources in memory: objects with an Arrow stream."""

from __future__ import annotations

import os
from itertools import chain
from typing import Any

from . import _optional
from .errors import UsageError

_PYCAPSULES = ("__arrow_c_stream__", "__arrow_c_array__")
#: Rows that are taken from a dataset of Hugging Face at a time.
_DATASET_ROWS = 1000


def is_pipeline_file(source: Any) -> bool:
    """Whether the source is the path of a pipeline file."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(".toml")


def stream_of(source: Any) -> Any:
    """An object with the Arrow PyCapsule interface: the source itself, or its stream.

    Raises:
        UsageError: The source has no Arrow stream.
    """
    if any(hasattr(source, name) for name in _PYCAPSULES):
        return source
    if hasattr(source, "with_format") and hasattr(source, "features"):
        return _stream_of_dataset(source)
    for method in ("to_arrow_batch_reader", "fetch_record_batch"):
        # A scan of PyIceberg, a cursor of ADBC.
        if hasattr(source, method):
            return getattr(source, method)()
    found = type(source).__name__
    raise UsageError(
        f"a source is a path, an address or an object with an Arrow stream, found {found}", _hint(source)
    )


def _hint(source: Any) -> str:
    if isinstance(source, (list, dict)):
        return "make a DataFrame of it: pandas.DataFrame(...) or polars.DataFrame(...)"
    if hasattr(source, "collect"):
        return "call its method collect() first"
    if hasattr(source, "scan"):
        return "call its method scan() first"
    return "DataFrames of pandas and polars, tables of PyArrow and relations of DuckDB have one"


def _stream_of_dataset(dataset: Any) -> Any:
    """The rows of a dataset of Hugging Face in their order: a selection or a shuffle is not in its Arrow table."""
    pyarrow = _optional.load("pyarrow", "a dataset of Hugging Face")
    tables = dataset.with_format("arrow").iter(batch_size=_DATASET_ROWS)
    batches = (batch for table in tables for batch in table.to_batches())
    first = next(batches, None)
    if first is None:
        schema = dataset.features.arrow_schema if dataset.features else pyarrow.schema([])
        return pyarrow.RecordBatchReader.from_batches(schema, [])
    return pyarrow.RecordBatchReader.from_batches(first.schema, chain([first], batches))
