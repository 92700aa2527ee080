"""What a job did."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any


class Report(Mapping[str, Any]):
    """What a job did, as a mapping with its keys as attributes: `report.rows_written`, `report["rows_written"]`."""

    def __init__(self, text: str):
        self._values: dict[str, Any] = json.loads(text)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, key: str) -> Any:
        try:
            return self.__dict__["_values"][key]
        except KeyError:
            raise AttributeError(key) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def _lines(self) -> list[tuple[str, str]]:
        return [(key, _shown(value)) for key, value in self._values.items() if value not in (None, [], {})]

    def __repr__(self) -> str:
        width = max((len(key) for key, _ in self._lines()), default=0)
        return "\n".join(f"{key:<{width}}  {value}" for key, value in self._lines())

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for key, value in self._lines()
        )
        return f"<table>{cells}</table>"


def _shown(value: Any) -> str:
    if isinstance(value, bool) or isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return json.dumps(value)
