"""The reports of jobs."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any


class Report(Mapping[str, Any]):
    """The result of a job: a mapping whose keys are attributes, too.

    `report.rows_written` is `report["rows_written"]`. A report of `embed` and `run` has the counts of rows (`rows_read`,
    `rows_skipped`, `rows_written`, `chunks_written`, `rows_quarantined`), the `table` and its `version`, `tokens`,
    `seconds`, `tokens_per_second`, `index` and `upkeep`: the keys of `polylance run --json`. One of `annotate` has those
    of `polylance annotate --json`.
    """

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)

    @classmethod
    def _parse(cls, text: str) -> Report:
        return cls(json.loads(text))

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
            raise AttributeError(f"the report has no {key!r}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def _lines(self) -> list[tuple[str, str]]:
        return [(key, _text(value)) for key, value in self._values.items() if value not in (None, [], {})]

    def __repr__(self) -> str:
        lines = self._lines()
        width = max((len(key) for key, _ in lines), default=0)
        return "\n".join(f"{key:<{width}}  {value}" for key, value in lines)

    def _repr_html_(self) -> str:
        cell = "<{tag} style='text-align:left'>{text}</{tag}>"
        rows = (
            cell.format(tag="th", text=html.escape(key)) + cell.format(tag="td", text=html.escape(value))
            for key, value in self._lines()
        )
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return json.dumps(value, ensure_ascii=False)
