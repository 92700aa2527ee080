"""Rows as they leave: an Arrow stream that other libraries read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class Rows:
    """The rows of a search or of a query.

    Anything that reads the Arrow PyCapsule interface takes them as they are: `polars.DataFrame(rows)`,
    `pyarrow.table(rows)`, `duckdb.sql("FROM rows")`.
    """

    def __init__(self, native: Any):
        self._native = native

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._native.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self._native.__arrow_c_schema__()

    def __len__(self) -> int:
        return self._native.num_rows

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self._native.column_names)

    def to_arrow(self) -> pyarrow.Table:
        """A table of pyarrow."""
        import pyarrow

        return pyarrow.table(self)

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame of pandas."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """A data frame of polars."""
        import polars

        return polars.DataFrame(self)

    def to_pylist(self) -> list[dict[str, Any]]:
        """A dictionary for each row."""
        return self.to_arrow().to_pylist()

    def __repr__(self) -> str:
        return f"<polylance.Rows: {len(self)} rows of {', '.join(self.columns)}>"
