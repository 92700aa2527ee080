"""Progress bars, by tqdm where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Called with the stage, what is done, what there is in all (0: not known) and documents.
Function = Callable[[str, int, int, int], None]


@contextmanager
def shown(progress: bool | Function | None) -> Iterator[Function | None]:
    """The function that a job calls: the given one, or one that draws bars. `None` draws them on a terminal and in a
    notebook."""
    if callable(progress):
        yield progress
        return
    tqdm = None if progress is False else _tqdm(progress is True)
    if tqdm is None:
        yield None
        return
    bars: dict[str, Any] = {}

    def update(stage: str, done: int, total: int, documents: int) -> None:
        if stage not in bars:
            unit = {"unit": "B", "unit_scale": True} if stage == "embed" else {"unit": " rows"}
            bars[stage] = tqdm(desc=stage, total=total or None, leave=False, **unit)
        bar = bars[stage]
        bar.total = total or bar.total
        bar.update(done - bar.n)
        if stage == "embed":
            bar.set_postfix_str(f"{documents:,} rows", refresh=False)

    try:
        yield update
    finally:
        for bar in bars.values():
            bar.close()


def _tqdm(wanted: bool) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm if wanted or sys.stderr.isatty() or "ipykernel" in sys.modules else None
