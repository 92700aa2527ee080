"""Rows of searches and queries, as an Arrow stream that other libraries read."""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import _optional

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

#: Rows that a notebook shows.
_SHOWN_ROWS = 20
#: Characters of a value that a notebook shows.
_SHOWN_CHARACTERS = 200


class Rows:
    """The rows of a search or of a query.

    Every library with the Arrow PyCapsule interface takes them as they are: `polars.DataFrame(rows)`,
    `pyarrow.table(rows)`, `duckdb.sql("FROM rows")`.
    """

    def __init__(self, native: Any):
        self._native = native

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._native.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._native.__arrow_c_schema__()

    def __len__(self) -> int:
        return int(self._native.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._native.column_names)

    def to_arrow(self) -> pyarrow.Table:
        """A table of PyArrow."""
        table: pyarrow.Table = _optional.load("pyarrow", "to_arrow()").table(self)
        return table

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame of pandas."""
        _optional.load("pandas", "to_pandas()")
        frame: pandas.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> polars.DataFrame:
        """A DataFrame of polars."""
        frame: polars.DataFrame = _optional.load("polars", "to_polars()").DataFrame(self)
        return frame

    def to_pylist(self) -> list[dict[str, Any]]:
        """A dictionary for each row."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def __repr__(self) -> str:
        count = len(self)
        return f"<polylance.Rows: {count:,} {'row' if count == 1 else 'rows'} of {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        try:
            rows = self.to_arrow().slice(0, _SHOWN_ROWS).to_pylist()
        except ModuleNotFoundError:
            return f"<pre>{html.escape(repr(self))}</pre>"
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
        more = len(self) - len(rows)
        rest = f"<p>and {more:,} more</p>" if more else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    # A vector is not written in full.
    text = f"[{', '.join(map(str, islice(value, 8)))}, …]" if isinstance(value, list) and len(value) > 8 else str(value)
    return html.escape(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")
